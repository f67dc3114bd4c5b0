"""Data sets by name."""

from __future__ import annotations

from madbal_ray.config.data import DataConfig
from madbal_ray.data import synthetic
from madbal_ray.data.dataset import Dataset
from madbal_ray.errors import PoolError
from madbal_ray.seams import DATASETS
from madbal_ray.state.storage import Folder


def data_root(config: DataConfig, pool: Folder) -> Folder:
    """Return the folder that image and mask URIs are relative to."""
    if config.root is not None:
        return Folder(config.root)
    return pool / f"synthetic/{synthetic.scene_key(config.synthetic)}"


def open_dataset(config: DataConfig, pool: Folder) -> Dataset:
    """Open the data set that the configuration names.

    Args:
        pool: folder of the pool; synthetic scenes are drawn into it when `data.root` is null.

    Raises:
        DataError: the data set is not laid out as expected; the message names the path.
        PoolError: the pool split has no images.
    """
    root = data_root(config, pool)
    dataset = DATASETS[config.name](config, root)
    num_pool = dataset.size_of(config.pool_split)
    if not num_pool and not dataset.splits:
        raise PoolError(f"{config.name} at {root} holds no images: {root.why_empty()}")
    if not num_pool:
        raise PoolError(
            f"{config.name} at {root}: split {config.pool_split!r} holds no images; splits found: "
            f"{', '.join(dataset.splits)}"
        )
    if config.pool_images is not None and config.pool_images < num_pool:
        dataset = dataset.thinned(config.pool_split, config.pool_images)
    return dataset
