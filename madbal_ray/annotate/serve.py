"""The labelling page of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from madbal_ray.annotate.correction import Correction
from madbal_ray.annotate.desk import Desk
from madbal_ray.annotate.listen import PORT, listen, only_server
from madbal_ray.annotate.pictures import Pictures
from madbal_ray.annotate.work_queue import OVERLAP
from madbal_ray.arrays import BoolMap, LabelMap
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.pool.reader import PoolImage, pool_images, read_label_maps
from madbal_ray.runs.predictions import predicted_classes
from madbal_ray.runs.requests import inspected_bytes, open_store
from madbal_ray.runs.run import Run, open_run


def serve(
    run_dir: str,
    *,
    annotators: Sequence[str],
    port: int = PORT,
    overlap: float = OVERLAP,
    blind: float | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the labelling page of a run until interrupted.

    Args:
        annotators: a link is printed for each.
        port: on 127.0.0.1; 0: any that is free.
        overlap: share of queries (0..1) that a second annotator is asked, too.
        blind: correction mode: predictions are shown but for this share (0..1) of the queries;
            None: nobody sees one.
        say: takes the lines with the links.

    Raises:
        RunDirError: nobody was asked.
        LockedError: the run has a server already.
        ResourceError: the port is taken.
    """
    run = open_run(run_dir)
    with open_store(run) as store, only_server(store.path):
        listen(
            _desk(run, store, annotators=annotators, overlap=overlap, blind=blind),
            port=port,
            say=say,
        )


def _desk(
    run: Run,
    store: AnswerStore,
    *,
    annotators: Sequence[str],
    overlap: float,
    blind: float | None,
) -> Desk:
    images = pool_images(run.table("images"))
    return Desk(
        store,
        Pictures(inspected_bytes(run, images), max_pixels=run.config.data.max_pixels),
        annotators=annotators,
        colors=run.colors,
        image_sizes={image.image_id: (image.height, image.width) for image in images},
        title=run.config.name,
        regions=_Regions(run, images),
        overlap=overlap,
        correction=None
        if blind is None
        else Correction(lambda index: predicted_classes(run, index), blind=blind),
    )


class _Regions:
    """The superpixels that queries lie in; label maps are read a shard at a time."""

    def __init__(self, run: Run, images: Sequence[PoolImage]) -> None:
        self._superpixels = run.stage("superpixels")
        self._images = {image.image_id: image for image in images}
        self._maps = lru_cache(maxsize=2)(self._label_maps)

    def __call__(self, query: StoredQuery) -> BoolMap | None:
        maps = self._maps(self._images[query.image_id].shard_id)
        label_map = maps.get(query.image_id)
        return None if label_map is None else label_map == label_map[query.y, query.x]

    def _label_maps(self, shard_id: int) -> dict[str, LabelMap]:
        images = [image for image in self._images.values() if image.shard_id == shard_id]
        return read_label_maps(self._superpixels, shard_id, images)
