"""The labelling page of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from madbal_ray.annotate.desk import Desk
from madbal_ray.annotate.listen import PORT, listen, only_server
from madbal_ray.annotate.pictures import Pictures
from madbal_ray.annotate.work_queue import OVERLAP
from madbal_ray.data.members import read_image_bytes
from madbal_ray.data.registry import data_root
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.runs.requests import open_store
from madbal_ray.runs.run import Run, open_run


def serve(
    run_dir: str,
    *,
    annotators: Sequence[str],
    port: int = PORT,
    overlap: float = OVERLAP,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the labelling page of a run until interrupted.

    Args:
        annotators: a link is printed for each.
        port: on 127.0.0.1; 0: any that is free.
        overlap: share of queries (0..1) that a second annotator is asked, too.
        say: takes the lines with the links.

    Raises:
        RunDirError: nobody was asked.
        LockedError: the run has a server already.
        ResourceError: the port is taken.
    """
    run = open_run(run_dir)
    with open_store(run) as store, only_server(store.path):
        listen(
            _desk(run, store, annotators=annotators, overlap=overlap),
            port=port,
            say=say,
        )


def _desk(run: Run, store: AnswerStore, *, annotators: Sequence[str], overlap: float) -> Desk:
    root = data_root(run.config.data, run.run_dir.pool_folder(run.config))
    images = run.table("images").select(["image_id", "height", "width"]).to_pylist()
    return Desk(
        store,
        Pictures(
            lambda uri: read_image_bytes(root, uri, max_bytes=run.config.data.max_bytes),
            max_pixels=run.config.data.max_pixels,
        ),
        annotators=annotators,
        colors=run.colors,
        image_sizes={row["image_id"]: (row["height"], row["width"]) for row in images},
        title=run.config.name,
        overlap=overlap,
    )
