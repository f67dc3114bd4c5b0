"""What the options of speed bring: ``python -m benchmarks.options [--device cuda]``.

A forward pass of scoring and a phase-I step with each option, against neither; an epoch's
images from the cache against decoding them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable

import torch

from benchmarks.measure import machine, milliseconds, side_by_side
from madbal_ray.config.data import DataConfig, SyntheticConfig
from madbal_ray.config.training import ModelConfig
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.models.network import Phase, SegmentationNetwork, build_network
from madbal_ray.pool.reader import ImageReader, PoolImage
from madbal_ray.state.storage import Folder
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.training.point_loss import point_cross_entropy

BATCH, HEIGHT, WIDTH, CLASSES, POINTS = 4, 256, 512, 19, 80
HEADS = ("lraspp", "deeplabv3plus")


def _network(head: str, device: str, *, compiled: bool = False) -> SegmentationNetwork:
    config = ModelConfig.model_validate({"head": head})
    network = build_network(config, CLASSES, weights=None, seed=0, supports="full").to(device)
    if compiled:
        network.compile()
    return network


def _forward(network: SegmentationNetwork, images: torch.Tensor, *, bf16: bool = False) -> None:
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        network(images, supports=True)


def _step(network: SegmentationNetwork, images: torch.Tensor, *, bf16: bool = False) -> None:
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        output = network(images, supports=False)
    point_cross_entropy(
        logits=output.logits,
        point_batch=torch.arange(POINTS, device=device) % BATCH,
        point_y=torch.linspace(0, HEIGHT - 1, POINTS, device=device),
        point_x=torch.linspace(0, WIDTH - 1, POINTS, device=device),
        point_class=torch.arange(POINTS, device=device) % CLASSES,
        height=HEIGHT,
        width=WIDTH,
    ).mean().backward()


KINDS: tuple[tuple[str, Callable[..., None], Phase], ...] = (
    ("forward pass", _forward, "eval"),
    ("step", _step, "phase1"),
)


def measure_network(device: str) -> None:
    """Print milliseconds of passes and steps, plain and with each option."""
    images = torch.rand(BATCH, 3, HEIGHT, WIDTH, device=device)
    last = images.contiguous(memory_format=torch.channels_last)
    for head in HEADS:
        for title, work, phase in KINDS:
            plain, compiled = _network(head, device), _network(head, device, compiled=True)
            for network in (plain, compiled):
                network.set_phase(phase)
            ways: dict[str, Callable[[], None]] = {
                "channels-last": lambda w=work, n=plain: w(n, last),
                "channels-last, bf16": lambda w=work, n=plain: w(n, last, bf16=True),
                "channels-last, compiled": lambda w=work, n=compiled: w(n, last),
            }
            for name, way in ways.items():
                ours, before = side_by_side(
                    way, lambda w=work, n=plain: w(n, images), device=device, repeats=5
                )
                print(
                    f"{head}, {title}, {name}: {milliseconds(ours)} against "
                    f"{milliseconds(before)}, {ours / before:.2f} of it",
                    flush=True,
                )


def measure_cache() -> None:
    """Print milliseconds an image from memory, from the scratch file, and decoded."""
    config = DataConfig(synthetic=SyntheticConfig(num_train=64, num_val=1, height=360, width=480))
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(name)
        dataset = open_dataset(config, folder)
        reader = ImageReader(
            data_root(config, folder), dataset.mask_values, config.max_pixels, config.max_bytes
        )
        images = [
            PoolImage(one.image_id, one.image_uri, None, 360, 480, 360, 480, 360, 480)
            for one in dataset.of_split("train")
        ]
        for title, memory, disk in (("memory", 1.0, 0.0), ("the scratch file", 0.0, 1.0)):
            cache = ImageCache(reader, memory_gib=memory, disk_gib=disk)

            def cached(source: ImageCache = cache) -> None:
                for image in images:
                    source.get(image).sum()

            def decoded() -> None:
                for image in images:
                    reader.on_input_grid(image).sum()

            ours, before = side_by_side(cached, decoded, device="cpu", repeats=5)
            print(
                f"an image of 360 x 480 (PNG) from {title}: {milliseconds(ours / len(images))} "
                f"against {milliseconds(before / len(images))} decoded",
                flush=True,
            )


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(2)
    print(machine(options.device))
    measure_cache()
    measure_network(options.device)


if __name__ == "__main__":
    main()
