# One place for every command. `make setup` runs by itself when it has to.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test check lint mutants bench bench-gpu test-gpu test-kill clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## three MADBAL rounds on synthetic scenes through Ray: a table and a plot
	$(BIN)/madbal run experiments/quickstart.yaml

lint: setup  ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: setup  ## all tests that a machine without a GPU can run in minutes
	$(BIN)/pytest -m "not kill and not slow" -n 2 --dist loadgroup

check: lint test  ## what CI runs

mutants: setup  ## change one line at a time: some test must notice (tests/mutants.toml)
	$(BIN)/python tests/mutants.py

test-kill: setup  ## kill runs and searches, take nodes away; same results in the end
	$(BIN)/pytest -m "kill or slow" -s

test-gpu: setup  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu -rs

bench: setup  ## one table: ours, the plain way, ratio, memory
	$(BIN)/python -m benchmarks

bench-gpu: setup  ## the same on CUDA
	$(BIN)/python -m benchmarks --device cuda

clean:  ## remove what runs and tools left behind
	rm -rf runs pool build .pytest_cache .ruff_cache .hypothesis
