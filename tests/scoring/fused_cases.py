"""Inputs for the fused kernels; run as a module: all of them through Triton's interpreter."""

import math
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

SIZES = ((8, 16), (5, 9), (16, 32))  # of three heads: coarser, odd, finer


def draw(
    seed, *, batch=2, classes=5, size=(4, 6), heads=(), weights=(3, 5), errors=None, grid, scale=3.0
):
    """Random inputs of a kernel; plain options."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * scale

    return {
        "logits": random(batch, classes, *size),
        "head_logits": tuple(random(batch, classes, *one) for one in heads),
        "maturity_weights": F.softmax(random(batch, len(heads), *weights), 1) if heads else None,
        "error_logits": random(batch, 2, *errors) if errors else None,
        "is_boundary": torch.rand(batch, *grid, generator=generator) < 0.4,
        "entropy_factor": 1.0,
        "disagreement_factor": 1.0,
        "use_margin": False,
    }


def converted(inputs, convert):
    """Apply a function to all maps of logits, weights and errors."""
    heads = tuple(map(convert, inputs["head_logits"]))
    names = ("logits", "maturity_weights", "error_logits")
    return inputs | {name: convert(inputs[name]) for name in names} | {"head_logits": heads}


def extreme(scale, dtype):
    """Certain heads, each of another class."""
    inputs = draw(8, classes=19, size=(2, 2), heads=((2, 2),) * 3, errors=(2, 2), grid=(4, 4))
    logits = torch.zeros(2, 19, 2, 2)
    logits[:, 0] = scale
    logits[1] *= -1
    heads = tuple(logits.roll(shift, dims=1) for shift in (0, 1, 18))
    inputs |= {"logits": logits, "head_logits": heads}
    inputs["error_logits"] = inputs["error_logits"].sign() * scale
    return converted(inputs, lambda maps: maps.to(dtype))


def cases():
    """Inputs by name."""
    full = {"heads": SIZES, "errors": (3, 7)}
    normalized = {"entropy_factor": 1 / math.log(5), "disagreement_factor": 1 / math.log(2)}
    inputs = {
        "street": draw(0, classes=19, size=(8, 16), grid=(32, 64), **full),
        "main head alone": draw(1, size=(4, 6), grid=(9, 13)),
        "no errors": draw(2, classes=8, heads=SIZES[:1], grid=(8, 20)),
        "no heads": draw(3, classes=8, errors=(8, 20), grid=(8, 20)),
        "margin": draw(4, classes=8, grid=(8, 20), **full) | {"use_margin": True},
        "normalized": draw(5, grid=(7, 11), **full) | normalized,
        "several programs a row": draw(6, batch=1, classes=3, size=(3, 37), grid=(4, 150), **full),
        "more classes than pixels": draw(7, batch=1, classes=150, grid=(4, 40), **full),
        "two classes, one source": draw(9, classes=2, size=(1, 1), heads=SIZES, grid=(5, 6)),
        "shrunk": draw(10, size=(12, 17), grid=(5, 6), **full),
        "the grid's own size": draw(11, size=(5, 9), grid=(5, 9), **full),
        "four heads": draw(12, heads=((2, 3),) * 4, grid=(5, 6)),
        "nearly certain": draw(13, grid=(8, 12), **full, scale=10.0),
        "nearly even": draw(14, grid=(8, 12), **full, scale=0.01),
        "extreme": extreme(1e4, torch.float32),
        "extreme margin, level classes": extreme(1e4, torch.float32) | {"use_margin": True},
        "extreme bfloat16": extreme(6e4, torch.bfloat16),
    }
    inputs["bfloat16"] = converted(
        draw(15, grid=(8, 12), **full), lambda maps: maps.to(torch.bfloat16)
    )
    inputs["channels last"] = converted(
        draw(16, grid=(8, 12), **full),
        lambda maps: maps.contiguous(memory_format=torch.channels_last),
    )
    for bad in (math.nan, math.inf, -math.inf):
        for margin in (False, True):
            name = f"{bad}, margin" if margin else str(bad)
            inputs[name] = draw(17, batch=1, grid=(8, 12), **full) | {"use_margin": margin}
            inputs[name]["logits"][0, 1, 1, 2] = bad
    inputs["nan in a head"] = draw(17, batch=1, grid=(8, 12), **full)
    inputs["nan in a head"]["head_logits"][1][0, 4, 1, 2] = math.nan
    return inputs


CASES = cases()


def main() -> None:
    """Write scores and predictions of all cases to the file named."""
    from madbal_ray.scoring.fused_cuda import fused_scores

    torch.save({name: fused_scores(**inputs) for name, inputs in CASES.items()}, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
