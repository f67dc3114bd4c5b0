"""The Triton kernel against the plain torch code: interpreted anywhere, compiled on a GPU."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from madbal_ray.errors import ResourceError
from madbal_ray.scoring.pixel_scores import pixel_scores, torch_pixel_scores
from tests.cuda import never_waiting
from tests.scoring.fused_cases import CASES, SIZES, converted, draw

ROOT = Path(__file__).parents[2]
PLACES = ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
FINITE = [name for name in CASES if not name.startswith(("nan", "inf", "-inf"))]
COMPILED = ["street", "main head alone", "bfloat16", "channels last", "two classes, one source"]
NOT_FINITE = [name for name in CASES if name not in FINITE]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Results of all cases; Triton reads its switch when it is imported, so in a process."""
    path = tmp_path_factory.mktemp("fused") / "results.pt"
    command = [sys.executable, "-m", "tests.scoring.fused_cases", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"})
    return torch.load(path)


def on_gpu(inputs):
    inputs = converted(inputs, lambda maps: None if maps is None else maps.cuda())
    return inputs | {"is_boundary": inputs["is_boundary"].cuda()}


def found(name, place, request):
    if place == "interpreter":
        return request.getfixturevalue("interpreted")[name]
    from madbal_ray.scoring.fused_cuda import fused_scores

    score, prediction = fused_scores(**on_gpu(CASES[name]))
    assert score.is_cuda
    assert prediction.is_cuda
    return score.cpu(), prediction.cpu()


def plain(inputs):
    maps = ("logits", "head_logits", "maturity_weights", "error_logits", "is_boundary")
    result = torch_pixel_scores(
        **{name: inputs[name] for name in maps},
        normalize_terms=inputs["entropy_factor"] != 1.0,
        uncertainty="margin" if inputs["use_margin"] else "entropy",
    )
    return result.score, result.prediction


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("place", PLACES)
def test_equals_plain_torch(name, place, request):
    score, prediction = found(name, place, request)
    expected_score, expected_prediction = plain(CASES[name])
    torch.testing.assert_close(score, expected_score, rtol=1e-5, atol=1e-5)
    assert torch.equal(prediction, expected_prediction)


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_finite_stays_so(name, place, request):
    score, prediction = found(name, place, request)
    expected, _ = plain(CASES[name])
    assert not torch.isfinite(score).all()
    assert not torch.isfinite(score)[~torch.isfinite(expected)].any()
    assert (prediction >= 0).all()
    assert (prediction < CASES[name]["logits"].shape[1]).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["street", "normalized", "margin"])
def test_pixel_scores_takes_the_kernel_on_a_gpu(name):
    inputs = on_gpu(CASES[name])
    options = {
        "normalize_terms": inputs.pop("entropy_factor") != 1.0,
        "uncertainty": "margin" if inputs.pop("use_margin") else "entropy",
    }
    del inputs["disagreement_factor"]
    fast = pixel_scores(**inputs, **options)
    slow = torch_pixel_scores(**inputs, **options)
    torch.testing.assert_close(fast.score, slow.score, rtol=1e-5, atol=1e-5)
    assert torch.equal(fast.prediction, slow.prediction)


@pytest.mark.gpu
def test_no_map_of_all_classes_is_made_on_a_gpu_and_nothing_waits():
    from madbal_ray.scoring.fused_cuda import fused_scores

    inputs = draw(0, classes=19, size=(64, 128), heads=SIZES, errors=(64, 128), grid=(256, 512))
    inputs = on_gpu(inputs)
    fused_scores(**inputs)  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with never_waiting():
        score, prediction = fused_scores(**inputs)
    assert torch.cuda.max_memory_allocated() - before == score.nbytes + prediction.nbytes


class CompileOnly:
    """Stands in for the kernel: compiles it for a card from a launch's real arguments."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self.compiled(
            self.kernel.warmup(*args, grid=grid, **options)
        )

    def compiled(self, kernel):
        self.found = kernel
        self.binary = kernel.asm["cubin"]
        self.shared_memory = kernel.metadata.shared


@pytest.fixture
def compile_for(monkeypatch, tmp_path):
    """A function: the kernel, compiled for a compute capability, that is not here."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from madbal_ray.scoring import fused_cuda

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = CompileOnly(fused_cuda._score)
    monkeypatch.setattr(fused_cuda, "_score", kernel)

    def compiled(inputs, capability):
        card = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: capability,  # the key of Triton's cache
            get_current_stream=lambda device: 0,
        )
        monkeypatch.setattr(driver, "_active", card)
        fused_cuda.fused_scores(**inputs)
        return kernel

    return compiled


needs_compiler = pytest.mark.skipif(
    "TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET: nothing compiles"
)


@needs_compiler
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_for_cards_that_are_not_here(name, capability, compile_for):
    """What the interpreter does not see: types, layouts, and the assembler's word."""
    kernel = compile_for(CASES[name], capability)
    assert kernel.binary[:4] == b"\x7fELF"
    assert kernel.shared_memory <= 48 * 2**10


def of_a_network(classes, size=(64, 128), grid=(256, 512)):
    """Channels-last maps as networks emit them, all heads of one size."""
    inputs = draw(
        0, batch=1, classes=classes, size=size, heads=(size,) * 3, weights=size, errors=size,
        grid=grid,
    )  # fmt: skip
    return converted(inputs, lambda maps: maps.contiguous(memory_format=torch.channels_last))


@needs_compiler
@pytest.mark.parametrize("classes", [19, 150])
def test_as_assembled_it_keeps_to_registers(classes, compile_for, tmp_path):
    """128 registers leave two programs of 8 warps a processor; what spills is read from memory."""
    import triton

    kernel = compile_for(of_a_network(classes), 90)
    path = tmp_path / "kernel.cubin"
    path.write_bytes(kernel.binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run(
        [tool, "-res-usage", path], capture_output=True, text=True, check=True
    ).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    assert usage["REG"] <= 128
    assert usage["STACK"] == 0
    assert usage["LOCAL"] == 0
    assert not re.search(r"(div|rem)\.[su]64", kernel.found.asm["ptx"])


@needs_compiler
def test_images_of_other_sizes_compile_nothing_anew(compile_for):
    first = compile_for(of_a_network(5, size=(16, 16), grid=(64, 64)), 90).found
    other = compile_for(of_a_network(5, size=(1, 9), grid=(13, 77)), 90).found
    assert other.hash == first.hash
    assert compile_for(of_a_network(6, size=(16, 16), grid=(64, 64)), 90).found.hash != first.hash


def test_maps_that_32_bits_do_not_address_are_refused(monkeypatch):
    from madbal_ray.scoring import fused_cuda

    maps = torch.zeros(1).expand(1, 3, 2**15, 4)
    with pytest.raises(ResourceError, match=r"takes sides up to 32767 and 2147483647 values"):
        fused_cuda._check_sizes((None, maps), 64, 64)
    fused_cuda._check_sizes((None, maps[:, :, :-1]), 64, 64)


def test_a_kernel_that_cannot_be_built_gives_way_to_plain_torch(monkeypatch):
    def no_header(**inputs):
        raise subprocess.CalledProcessError(1, ["gcc", "launcher.c"])

    module = sys.modules["madbal_ray.scoring.pixel_scores"]
    monkeypatch.setattr(module, "_kernel_of", lambda device: no_header)
    monkeypatch.setattr(module, "_unbuilt", set())
    names = ("logits", "head_logits", "maturity_weights", "error_logits")
    inputs = converted(CASES["street"], lambda maps: maps.to("meta"))  # a device, not the CPU
    maps = {name: inputs[name] for name in names}
    maps["is_boundary"] = inputs["is_boundary"].to("meta")
    with pytest.warns(RuntimeWarning, match=r"non-zero exit status 1.*Python\.h"):
        assert pixel_scores(**maps).score.shape == (2, 32, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_scores(**maps)


def test_tensors_on_the_cpu_are_refused():
    from madbal_ray.scoring.fused_cuda import fused_scores

    with pytest.raises(ResourceError, match=r"on cpu; expected a CUDA device: call pixel_scores"):
        fused_scores(**CASES["no heads"])


def test_every_device_has_its_kernel():
    from madbal_ray.scoring import fused_cpu, fused_cuda

    module = sys.modules["madbal_ray.scoring.pixel_scores"]
    assert module._kernel_of(torch.device("cpu")) is fused_cpu.fused_scores
    assert module._kernel_of(torch.device("cuda")) is fused_cuda.fused_scores
    assert module._kernel_of(torch.device("mps")) is None


CPU_ONLY = """
import sys
sys.modules["triton"] = None  # any import of it fails
import torch
import madbal_ray.scoring.score_images
from madbal_ray.kernels import pixel_scores
pixel_scores(
    logits=torch.zeros(1, 3, 2, 2),
    head_logits=(),
    maturity_weights=None,
    error_logits=None,
    is_boundary=torch.zeros(1, 4, 4, dtype=torch.bool),
)
assert "madbal_ray.scoring.fused_cpu" in sys.modules
"""


def test_scoring_on_cpus_needs_no_triton():
    subprocess.run([sys.executable, "-c", CPU_ONLY], check=True, cwd=ROOT)


def test_a_machine_without_triton_says_so_once_and_uses_plain_torch(monkeypatch):
    module = sys.modules["madbal_ray.scoring.pixel_scores"]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    module._has_triton.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="Triton is not installed"):
            assert module._kernel_of(torch.device("cuda")) is None
        assert module._kernel_of(torch.device("cuda")) is None
    finally:
        module._has_triton.cache_clear()
