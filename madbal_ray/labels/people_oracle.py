"""Oracle `people`: a round waits until somebody has answered.

The driver posts a round's queries to the run's `AnswerStore` and looks what was said. When enough
is, it writes that down once, as stage `answers`; workers read this stage and never the store, so
that a round that is repeated after a crash learns from the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from madbal_ray.config.asking import NoiseConfig
from madbal_ray.config.schema import Config
from madbal_ray.errors import AnswersPending, ConfigError, LabelError
from madbal_ray.labels.answer_rows import IDENTITY, QueryState, how_to_settle
from madbal_ray.labels.answer_store import AnswerStore, store_place
from madbal_ray.labels.ledger import WAITING, latest_revisions
from madbal_ray.labels.oracle import Answers, Enquiry, Oracle, Questions
from madbal_ray.labels.requests import query_id, request_pixels, stored_queries
from madbal_ray.seams import STRATEGIES
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir, digests

ANSWERED = {"pixel", "superpixel"}
"""Units that one click answers."""


class PeopleOracle(Oracle):
    """Takes what people said; stops the run until enough of them have."""

    asks_people: ClassVar[bool] = True

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Yield what nobody can be asked."""
        yield from super().problems(config)
        if config.oracle.skip_void:
            yield "oracle.skip_void looks at masks, and people answer without: leave it out"
        if config.oracle.noise != NoiseConfig():
            yield "oracle.noise is for simulated annotators: leave it out"
        if config.budget.initial_pixels_per_image == "all":
            yield "budget.initial_pixels_per_image = all: people answer pixels, not whole images"
        unit = STRATEGIES[config.strategy.name].unit
        if unit not in ANSWERED:
            yield (
                f"strategy {config.strategy.name} asks for whole images, which nobody answers with "
                "a click: choose one that asks for pixels or superpixels"
            )

    def post(self, enquiry: Enquiry) -> None:
        """Post the queries, unless they were answered already."""
        if not _frozen(enquiry).is_done:
            self._posted(enquiry)[0].close()

    def prepare(self, enquiry: Enquiry) -> None:
        """Post the queries; freeze the answers once there are enough.

        Raises:
            AnswersPending: there are not.
            ConfigError: a study asks, which has no run to carry on.
        """
        answers = _frozen(enquiry)
        if not answers.is_done:
            self._freeze(enquiry, answers)
        enquiry.runner.point(answers)
        self.reads = (answers,)

    def answer(self, questions: Questions) -> Answers:
        """Return what was said about one image when the round went on."""
        (stage,) = self.reads
        said, image = _said(stage, questions.image.shard_id), questions.image.image_id
        places = zip(questions.y, questions.x, strict=True)
        found = [said[questions.round_index, image, int(y), int(x)] for y, x in places]
        return Answers(
            class_id=np.array([row["class_id"] or 0 for row in found], np.int64),
            status=[row["status"] for row in found],
            annotator=[row["annotator"] for row in found],
            seconds=[row["seconds"] for row in found],
            revision=[row["revision"] for row in found],
        )

    def late_shards(self) -> Sequence[int]:
        """Return the shards in which anything was said."""
        (stage,) = self.reads
        return stage.shards_with("answers")

    def late(self, shard_id: int) -> pa.Table:
        """Return what was said since about earlier rounds."""
        (stage,) = self.reads
        table = stage.read_table("answers", [shard_id])
        latest = stage.marker().summary["round"]
        return table.filter(pa.array(table["round"].to_numpy() != latest))

    def _freeze(self, enquiry: Enquiry, output: StageDir) -> None:
        store, requests = self._posted(enquiry)
        with store:
            own = store.states(enquiry.round_index)
            answered = sum(state.settled is not None for state in own.values())
            needed = math.ceil(round(self.config.oracle.share * len(own), 6))
            if answered < needed:
                raise AnswersPending(_awaited(enquiry, own, answered, needed), needed - answered)
            everything = store.states() if enquiry.earlier else own
        files = [
            output.write_table(
                "answers",
                shard_id,
                _rows(
                    requests.read_table("pixel_requests", [shard_id]), enquiry, everything, shard_id
                ),
            )
            for shard_id in enquiry.shard_ids
        ]
        output.commit(
            files,
            {
                "round": enquiry.round_index,
                "asked": len(own),
                "answered": answered,
                "share": self.config.oracle.share,
            },
        )

    def _posted(self, enquiry: Enquiry) -> tuple[AnswerStore, StageDir]:
        """Return the run's store, with the queries in it, and stage `requests`."""
        if enquiry.run_dir is None:
            raise ConfigError(
                "oracle people waits for somebody, and a search cannot wait: search with oracle "
                "simulated, on images with masks"
            )
        requests = self._request(enquiry)
        store = AnswerStore.create(
            store_place(self.config.oracle.store, enquiry.run_dir),
            run_id=enquiry.run_dir.identity(),
            class_names=enquiry.pool.class_names,
        )
        for shard_id in enquiry.shard_ids:
            rows = requests.read_table("pixel_requests", [shard_id])
            store.post(stored_queries(rows, enquiry.round_index, enquiry.purpose))
        return store, requests

    def _request(self, enquiry: Enquiry) -> StageDir:
        """Return the queries on the original images, finished."""
        assert enquiry.run_dir is not None
        return request_pixels(
            enquiry.runner,
            enquiry.folder,
            enquiry.pool,
            enquiry.queries,
            run_id=enquiry.run_dir.identity(),
        )


@lru_cache(maxsize=1)  # a shard's images are asked about one after another
def _said(stage: StageDir, shard_id: int) -> dict[tuple[int, str, int, int], dict[str, Any]]:
    """Return a shard's answers by round, image and place."""
    rows = stage.read_table("answers", [shard_id]).to_pylist()
    return {(row["round"], row["image_id"], row["y"], row["x"]): row for row in rows}


def _frozen(enquiry: Enquiry) -> StageDir:
    """Return the stage that answers are written down in."""
    earlier = {f"labels_{i:03d}": one.digest() for i, one in enumerate(enquiry.earlier)}
    return enquiry.runner.plan(
        enquiry.folder,
        "answers",
        {"purpose": enquiry.purpose},
        digests(enquiry.queries) | earlier,
    )


def _rows(
    requests: pa.Table, enquiry: Enquiry, states: Mapping[str, QueryState], shard_id: int
) -> pa.Table:
    """Return a shard's answers: to its own queries, and changes to those of earlier rounds."""
    classes = {name: class_id for class_id, name in enumerate(enquiry.pool.class_names)}
    rows = [
        _row(request | {"round": enquiry.round_index}, states[request["query_id"]], classes)
        for request in requests.to_pylist()
    ]
    known = [stage.read_table("labels", [shard_id]) for stage in enquiry.earlier]
    if known:
        assert enquiry.run_dir is not None
        run_id = enquiry.run_dir.identity()
        for label in latest_revisions(pa.concat_tables(known)).to_pylist():
            name = query_id(run_id, **{column: label[column] for column in IDENTITY})
            if name not in states:
                raise LabelError(
                    f"the store of answers does not hold what round {label['round']} asked (query "
                    f"{name} of {label['image_id']}): it was moved between rounds; bring the old "
                    "file to the place that oracle.store names"
                )
            row = _row(label | {"query_id": name}, states[name], classes)
            if (row["status"], row["class_id"]) != (label["status"], label["class_id"]):
                rows.append(row)
    return tables.from_rows("answers", rows)


def _row(query: Mapping[str, Any], state: QueryState, classes: Mapping[str, int]) -> dict[str, Any]:
    settled = state.settled
    class_name = None if settled is None else settled.class_name
    return {
        **{name: query[name] for name in (*IDENTITY, "query_id")},
        "class_id": None if class_name is None else classes[class_name],
        "status": WAITING if settled is None else settled.status,
        "annotator": None if settled is None else ", ".join(settled.annotators),
        "seconds": state.seconds,
        "revision": state.revision,
    }


def _awaited(enquiry: Enquiry, states: Mapping[str, QueryState], answered: int, needed: int) -> str:
    """Return the line that says what waits and what to run."""
    what = (
        "evaluation points" if enquiry.purpose == "evaluation" else f"round {enquiry.round_index}"
    )
    enough = "" if needed == len(states) else f", {needed} are enough"
    disputed = sum(state.is_disputed for state in states.values())
    settled = how_to_settle(str(enquiry.run_dir))
    third = f" On {disputed} of the others two people differ: {settled}." if disputed else ""
    return (
        f"{what}: {answered} of {len(states)} pixels are answered{enough}.{third} Answer with "
        f"`madbal annotate {enquiry.run_dir}`, or ask people with `madbal requests export "
        f"{enquiry.run_dir} --format csv --out FILE` and take their answers with `madbal requests "
        f"import {enquiry.run_dir} FILE`"
    )
