# One place for every command. `make setup` runs by itself when it has to.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Runs, resumes and comparisons of whole loops; `test-parts` has all the rest.
LOOPS := tests/loop tests/resume tests/smoke tests/parity tests/runs tests/studies tests/contracts tests/golden tests/cli
QUICK := not kill and not slow and not slurm and not drill and not labelstudio and not readers

.PHONY: docs setup demo demo-annotate test test-ray test-loops test-parts check lint mutants drill bench bench-gpu
.PHONY: gpu-kit test-gpu test-kill test-slurm test-annotate load-annotate test-labelstudio clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## three MADBAL rounds on synthetic scenes through Ray: a table and a plot
	$(BIN)/madbal run experiments/quickstart.yaml

demo-annotate: setup  ## the labelling page on synthetic scenes: open the link that is printed
	$(BIN)/madbal run experiments/quickstart.yaml --engine local --run-dir runs/demo-annotate --set oracle=people \
	    --set data.synthetic.num_train=12 --set data.synthetic.num_val=4 || test $$? -eq 3
	$(BIN)/madbal annotate runs/demo-annotate

lint: setup  ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: setup  ## all tests that a machine without a GPU can run in minutes, two processes at a time
	$(MAKE) --no-print-directory --jobs 2 --output-sync test-ray test-loops test-parts

test-ray: setup  # these wait a lot: for Ray's processes to start
	$(BIN)/pytest -m "ray and $(QUICK)"

test-loops: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not ray and $(QUICK)" $(LOOPS)

test-parts: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not ray and $(QUICK)" $(addprefix --ignore=,$(LOOPS))

check: lint test  ## what CI runs

mutants: setup  ## change one line at a time: some test must notice (tests/mutants.toml)
	$(BIN)/python tests/mutants.py

drill: setup  ## damage pictures, archives, configurations and finished runs by the thousand: one table
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.drill

test-kill: setup  ## kill runs and searches, take nodes away; same results in the end
	$(BIN)/pytest -m "kill or slow" -s

test-slurm: setup  ## cluster/slurm.sh on a real SLURM on loopback (as root: apt-get install slurm-wlm munge)
	$(BIN)/pytest -m slurm -s

test-annotate: setup  ## kill the labelling server 100 times; people see a run through in real browsers
	$(BIN)/pytest tests/annotate -m drill -s

load-annotate: setup  ## 100,000 queries, 20 simulated annotators, five minutes: times and memory
	$(BIN)/python -m tests.annotate.load
	$(BIN)/python -m tests.annotate.speed

test-labelstudio: setup .labelstudio/bin/label-studio .readers/bin/python  ## other tools take our files: a real server, readers of CVAT and COCO
	$(BIN)/pytest tests/runs -m "labelstudio or readers" -rs -s

.labelstudio/bin/label-studio:
	$(PYTHON) -m venv .labelstudio
	.labelstudio/bin/pip install --quiet --disable-pip-version-check 'label-studio>=1.20'

.readers/bin/python:
	$(PYTHON) -m venv .readers
	.readers/bin/pip install --quiet --disable-pip-version-check 'datumaro>=1.10' 'pycocotools>=2.0.8'

test-gpu: setup  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu -rs

docs: setup  ## the documents as a site, links checked: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file docs/site/mkdocs.yml

bench: setup  ## one table: ours, the plain way, ratio, memory
	$(BIN)/python -m benchmarks

gpu-kit: setup  ## an offline GPU machine's needs in parts of 60 MB: DATA=folder WEIGHTS=file HAVE=its pip list
	$(BIN)/python cluster/gpu_kit.py $(if $(DATA),--data $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS)) \
	    $(if $(HAVE),--have $(HAVE)) $(if $(WITHOUT),--without $(WITHOUT))

bench-gpu: setup  ## the same on CUDA
	$(BIN)/python -m benchmarks --device cuda

clean:  ## remove what runs and tools left behind
	rm -rf runs pool build .pytest_cache .ruff_cache .hypothesis
