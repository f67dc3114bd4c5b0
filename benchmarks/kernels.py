"""What is added to the forward pass, and what training on points saves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import plain
from benchmarks.measure import Row, in_turns, milliseconds, side_by_side
from madbal_ray.config.training import ModelConfig
from madbal_ray.models.network import build_network
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.scoring.pixel_scores import pixel_scores
from madbal_ray.scoring.reduce import reduce_on_device, reduce_scores
from madbal_ray.training.point_loss import point_cross_entropy

HEIGHT, WIDTH, CLASSES, SUPERPIXELS = 256, 512, 19, 512


def grid_superpixels(height: int, width: int, side: int) -> np.ndarray:
    """Return squares of `side` pixels, int32 [height, width]."""
    rows = np.arange(height)[:, None] // side
    return (rows * (width // side) + np.arange(width)[None] // side).astype(np.int32)


def _maps(device: str, batch: int, height: int, width: int, *, stride: int = 4) -> dict[str, Any]:
    """Return what `pixel_scores` takes: four heads at 1 / stride of the size, channels last."""
    generator = torch.Generator().manual_seed(0)

    def random(channels: int) -> torch.Tensor:
        maps = torch.randn(batch, channels, height // stride, width // stride, generator=generator)
        return (maps * 3.0).to(device, memory_format=torch.channels_last)

    return {
        "logits": random(CLASSES),
        "head_logits": tuple(random(CLASSES) for _ in range(3)),
        "maturity_weights": F.softmax(random(3), dim=1),
        "error_logits": random(2),
        "is_boundary": torch.rand(batch, height, width, generator=generator).to(device) < 0.3,
    }


def uncertainty(device: str) -> Iterator[Row]:
    """Uncertainty and reduction of one image: ours, two ways in torch, and the forward pass."""
    for stride, target in ((4, 6.0), (1, None)):
        yield from _three_ways(device, stride, target)
    yield from _against_forward_pass(device)


def _ours(maps: dict[str, Any], is_asked: torch.Tensor, ids: torch.Tensor) -> Any:
    with torch.inference_mode():
        scores = pixel_scores(**maps)
        return scores, reduce_scores(
            score=scores.score[0],
            prediction=scores.prediction[0],
            is_asked=is_asked,
            superpixel_ids=ids,
            num_superpixels=SUPERPIXELS,
            num_classes=CLASSES,
            top=1,
        )


def _asked_and_ids(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    is_asked = torch.rand(HEIGHT, WIDTH, generator=generator).to(device) < 1e-4
    return is_asked, torch.from_numpy(grid_superpixels(HEIGHT, WIDTH, 16)).to(device)


def _three_ways(device: str, stride: int, target: float | None) -> Iterator[Row]:
    maps = _maps(device, 1, HEIGHT, WIDTH, stride=stride)
    is_asked, ids = _asked_and_ids(device)
    fused = torch.compile(plain.vectorised_uncertainty, dynamic=False)

    def ours():
        return _ours(maps, is_asked, ids)

    def published():
        with torch.inference_mode():
            score, prediction = plain.uncertainty(**maps)
            return score, plain.reduce_by_masks(
                score[0], prediction[0], is_asked, ids, SUPERPIXELS, CLASSES
            )

    def vectorised():
        with torch.inference_mode():
            score, prediction = fused(**maps)
            return score, reduce_on_device(
                score=score[0],
                prediction=prediction[0],
                is_asked=is_asked,
                superpixel_ids=ids,
                num_superpixels=SUPERPIXELS,
                num_classes=CLASSES,
                top=1,
            )

    (scores, reduced), (score, (means, classes, ys, xs)) = ours(), published()
    torch.testing.assert_close(scores.score, score, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(scores.score, vectorised()[0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(reduced.mean_score.cpu(), means, rtol=1e-4)
    assert np.mean(reduced.dominant_class.cpu().numpy() == np.array(classes)) > 0.99
    assert np.mean(reduced.top_y.cpu().numpy()[:, 0] == np.array(ys)) > 0.99
    assert np.mean(reduced.top_x.cpu().numpy()[:, 0] == np.array(xs)) > 0.99

    fast, slow, middle = in_turns([ours, published, vectorised], device=device, repeats=5)
    yield Row(
        f"uncertainty + reduction, 256 x 512, heads of stride {stride}, 19 classes, "
        "512 superpixels",
        milliseconds(fast),
        milliseconds(slow),
        f"{slow / fast:.1f} x and {middle / fast:.1f} x faster",
        None if target is None else f">= {target:g} x",
        None if target is None else slow / fast >= target,
        compiled=milliseconds(middle),
    )


def _against_forward_pass(device: str) -> Iterator[Row]:
    maps = _maps(device, 1, HEIGHT, WIDTH)
    is_asked, ids = _asked_and_ids(device)
    generator = torch.Generator().manual_seed(2)

    def ours():
        return _ours(maps, is_asked, ids)

    picture = torch.randn(1, 3, HEIGHT, WIDTH, generator=generator).to(device)
    for head, on_cpu in (("deeplabv3plus", 0.25), ("lraspp", 0.8)):
        model = ModelConfig.model_validate({"backbone": "mobilenet_v2", "head": head})
        network = build_network(model, CLASSES, weights=None, seed=0, supports="full").to(device)
        network.set_phase("eval")

        def forward(network=network):
            with torch.inference_mode():
                return network(picture, supports=True)

        mine, passed = side_by_side(ours, forward, device=device, repeats=7)
        limit = 0.1 if device == "cuda" else on_cpu
        yield Row(
            f"the same against the forward pass, mobilenet_v2 + {head}",
            milliseconds(mine),
            milliseconds(passed),
            f"{mine / passed:.2f} of the forward pass",
            f"<= {limit}",
            mine / passed <= limit,
        )


def fused_kernel(device: str) -> Iterator[Row]:
    """Eq. 4 on CUDA: what the kernel reads and writes by its time, against a copy on the card."""
    if device == "cuda":
        yield from _bandwidth(device, batch=16, height=512, width=1024, calls=20)


def _bandwidth(device: str, *, batch: int, height: int, width: int, calls: int) -> Iterator[Row]:
    """Time many calls at once, so that the device and not the launching host is measured."""
    from madbal_ray.scoring.fused_cuda import fused_scores

    maps = _maps(device, batch, height, width)
    options = {"entropy_factor": 1.0, "disagreement_factor": 1.0, "use_margin": False}
    for layout in (torch.contiguous_format, torch.channels_last):  # networks give the second
        maps["logits"] = maps["logits"].contiguous(memory_format=layout)
        maps["head_logits"] = tuple(
            head.contiguous(memory_format=layout) for head in maps["head_logits"]
        )
        given = [maps["logits"], *maps["head_logits"]]
        given += [maps["maturity_weights"], maps["error_logits"], maps["is_boundary"]]
        moved = sum(one.nbytes for one in (*given, *fused_scores(**maps, **options)))
        source = torch.zeros(moved // 2, dtype=torch.uint8, device=device)  # read, then written
        target = torch.empty_like(source)

        def ours():
            for _ in range(calls):
                fused_scores(**maps, **options)

        def copy(source=source, target=target):
            for _ in range(calls):
                target.copy_(source)

        kernel, copied = (
            seconds / calls for seconds in side_by_side(ours, copy, device=device, repeats=9)
        )
        name = "channels last" if layout is torch.channels_last else "channels first"
        yield Row(
            f"fused kernel, {batch} x {height} x {width}, {CLASSES} classes, 4 heads, {name}",
            f"{1000 * kernel:.3f} ms, {moved / kernel / 1e9:.0f} GB/s",
            f"copy: {moved / copied / 1e9:.0f} GB/s",
            f"{copied / kernel:.2f} of the copy's bandwidth",
        )


def point_loss(device: str) -> Iterator[Row]:
    """A phase-II step on 768 x 768 crops: loss at points against dense loss after upsampling."""
    size, points = 768, 60
    generator = torch.Generator().manual_seed(0)
    network = build_network(
        ModelConfig(backbone="mobilenet_v2", head="lraspp"), CLASSES, weights=None, seed=0,
        supports="full",
    ).to(device)  # fmt: skip
    network.set_phase("phase2")
    picture = torch.randn(1, 3, size, size, generator=generator).to(device)
    y, x = (torch.randint(0, size, (points,), generator=generator).to(device) for _ in range(2))
    classes = torch.randint(0, CLASSES, (points,), generator=generator).to(device)
    dense = torch.full((1, size, size), 255, device=device)
    dense[0, y, x] = classes
    classes = dense[0, y, x]
    unique = torch.unique(torch.stack([y, x], 1), dim=0)
    y, x = unique.unbind(1)
    classes = dense[0, y, x]
    batch = torch.zeros(len(y), dtype=torch.long, device=device)

    def at_points(output):
        return sum(
            point_cross_entropy(
                logits=head,
                point_batch=batch,
                point_y=y,
                point_x=x,
                point_class=classes,
                height=size,
                width=size,
            ).mean()
            for head in output.head_logits
        )

    def densely(output):
        return sum(plain.dense_cross_entropy(head, dense) for head in output.head_logits)

    def step(loss):
        network.zero_grad(set_to_none=True)
        loss(network(picture, supports=True)).backward()

    output = network(picture, supports=True)
    torch.testing.assert_close(at_points(output), densely(output), rtol=1e-4, atol=1e-5)
    fast, slow = side_by_side(
        lambda: step(at_points), lambda: step(densely), device=device, repeats=5
    )
    memory = [_saved_bytes(loss, output) for loss in (at_points, densely)]
    yield Row(
        "phase-II step, 768 x 768, 19 classes, batch 1: point loss",
        milliseconds(fast),
        milliseconds(slow),
        f"{slow / fast:.1f} x faster",
        ">= 1.5 x",
        slow / fast >= 1.5,
    )
    yield Row(
        "  activations kept for the loss, beyond the heads",
        f"{memory[0] / 2**20:.2f} MiB",
        f"{memory[1] / 2**20:.1f} MiB",
        f"{memory[0] / memory[1]:.4f} of it",
        "<= 1/3",
        memory[0] <= memory[1] / 3,
    )


def _saved_bytes(loss, output) -> int:
    """Return the bytes that autograd keeps for a loss, the heads' own outputs not counted."""
    known = {head.data_ptr() for head in output.head_logits}
    seen: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in known:
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(output)
    return sum(seen.values())


def patches(device: str) -> Iterator[Row]:
    """Superpixel patches of one 360 x 480 image; always on the CPU."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (360, 480, 3), dtype=np.uint8)
    label_map = grid_superpixels(360, 480, 16)
    label_map = np.unique(label_map, return_inverse=True)[1].reshape(360, 480).astype(np.uint16)
    count = int(label_map.max()) + 1

    def ours():
        return crop_patches(image, label_map, num_superpixels=count, size=16)

    def simple():
        return plain.patches(image, label_map, count, 16)

    np.testing.assert_allclose(ours(), simple(), atol=0.51)
    fast, slow = side_by_side(ours, simple, device="cpu", repeats=5)
    yield Row(
        f"patches of {count} superpixels, 360 x 480",
        milliseconds(fast),
        milliseconds(slow),
        f"{slow / fast:.1f} x faster",
        ">= 5 x",
        slow / fast >= 5,
    )
