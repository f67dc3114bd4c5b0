"""What a run asks of people, out to other tools and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from madbal_ray.data.registry import data_root
from madbal_ray.errors import ConfigError, RunDirError
from madbal_ray.labels.answer_store import AnswerStore, store_place
from madbal_ray.labels.import_answers import ImportReport, import_replies
from madbal_ray.labels.request_format import RequestBook, RequestFormat
from madbal_ray.labels.requests import stored_queries
from madbal_ray.pool.reader import ImageReader, PoolImage, pool_images
from madbal_ray.runs.run import Run
from madbal_ray.seams import ORACLES, REQUEST_FORMATS


def open_store(run: Run) -> AnswerStore:
    """Open a run's answers; what `madbal score` asked for is posted there first.

    Raises:
        RunDirError: nobody was asked, or the answers cannot lie where they should.
    """
    place = store_place(run.config.oracle.store, run.run_dir)
    asked = [
        (index, stage)
        for index in range(run.config.num_rounds)
        if (stage := run.run_dir.find("requests", index)) is not None
    ]
    if not asked and not ORACLES[run.config.oracle.kind].asks_people:
        raise RunDirError(
            f"{run.run_dir} asks nobody (oracle: {run.config.oracle.kind}); a run with oracle: "
            "people does, and so does `madbal score --budget`"
        )
    if not asked:
        return AnswerStore.open(place)
    store = AnswerStore.create(place, run_id=run.run_dir.identity(), class_names=run.class_names)
    for index, stage in asked:
        store.post(stored_queries(stage.read_table("pixel_requests"), index, "training"))
    return store


def inspected_bytes(run: Run, images: Sequence[PoolImage]) -> Callable[[str], bytes]:
    """Return what reads an image by its URI.

    It raises DataError where the image is not the one that was inspected: a pixel was chosen on
    that one, and an answer about another picture is a wrong label that nothing tells later.
    """
    data = run.config.data
    root = data_root(data, run.run_dir.pool_folder(run.config))
    reader = ImageReader(root, {}, data.max_pixels, data.max_bytes)
    of_uri = {image.image_uri: image for image in images}
    return lambda uri: reader.fetch(of_uri[uri])


def export_requests(
    run: Run, name: str, out: Path, *, with_answered: bool, overwrite: bool = False
) -> int:
    """Write the queries that wait (or all); return how many.

    Args:
        overwrite: an existing file is replaced; one of the run never is.

    Raises:
        ConfigError: there is no such format, it cannot say who answered and is read again, or the
            file exists.
    """
    form = _format(name)
    if with_answered and form.read is not None and not form.names_annotators:
        able = [other for other in REQUEST_FORMATS if REQUEST_FORMATS[other].names_annotators]
        raise ConfigError(
            f"format {name} cannot say who answered, so that answers would count once more when "
            f"the file is imported; leave out --all, or export as {' or '.join(able)}"
        )
    with open_store(run) as store:
        _check_out(run, store.path, out, overwrite=overwrite)
        book = _book(run, store, with_answered=with_answered)
    form.write(book, out)
    return len(book.queries)


def import_requests(run: Run, file: Path, *, name: str, annotator: str) -> ImportReport:
    """Take the answers of a file.

    Raises:
        ConfigError: there is no such format, or nothing comes back from it.
        DataError: the file cannot be read at all; nothing was taken.
    """
    form = _format(name)
    if form.read is None:
        raise ConfigError(f"format {name} is written only; answers come back in {_readable()}")
    with open_store(run) as store:
        book = _book(run, store, with_answered=True)
        return import_replies(store, form.read(file, book), annotator=annotator, source=name)


def _check_out(run: Run, store: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse to write over answers that somebody typed into the file, and over files of the run."""
    if not out.exists():
        return
    place, folder = out.resolve(), run.run_dir.folder
    is_ours = folder.is_local and place.is_relative_to(folder.local_path.resolve())
    if is_ours or place == store.resolve():
        raise ConfigError(f"{out} is a file of the run {run.run_dir}: choose another name")
    if not overwrite:
        raise ConfigError(
            f"{out} exists: import its answers first, or choose another name; --overwrite writes "
            "over it"
        )


def _format(name: str) -> RequestFormat:
    if name not in REQUEST_FORMATS:
        raise ConfigError(REQUEST_FORMATS.unknown(name))
    return REQUEST_FORMATS[name]


def _readable() -> str:
    return ", ".join(name for name in REQUEST_FORMATS if REQUEST_FORMATS[name].read is not None)


def _book(run: Run, store: AnswerStore, *, with_answered: bool) -> RequestBook:
    posted = store.queries()
    states = store.states()  # of all these, and of what a run that goes on has posted since
    queries: Sequence = [
        query for query in posted if with_answered or states[query.query_id].settled is None
    ]
    images = pool_images(run.table("images"))
    return RequestBook(
        queries=queries,
        states=states,
        class_names=run.class_names,
        colors=run.colors,
        image_bytes=inspected_bytes(run, images),
        image_sizes={image.image_id: (image.height, image.width) for image in images},
    )
