"""The label table of a round: queries of one shard put to the oracle, its answers checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from madbal_ray.arrays import IGNORE_INDEX, BoolMap, LabelMap
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.errors import AnswersPending, LabelError
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.labels.class_map import pack_class_map
from madbal_ray.labels.late_answers import late_rows
from madbal_ray.labels.ledger import WAITING, check_answers, check_disjoint, cost_of
from madbal_ray.labels.oracle import Answers, AnswerStatus, Oracle, Pending, Questions
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, split_by_image
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.grids import nearest_pixel

STATUSES = get_args(AnswerStatus)


@dataclass(kw_only=True)
class AnswerQueries(LightShardJob):
    """Labels of one shard's queries.

    Attributes:
        earlier_labels: of the rounds before; nothing in them may be asked again.
        oracle_name: column `oracle` of the table.
    """

    pool: Pool
    queries: StageDir
    earlier_labels: tuple[StageDir, ...]
    oracle: Oracle
    oracle_name: str
    round_index: int
    table_names = ("labels",)

    @property
    def reads_images(self) -> bool:
        """Tell whether the oracle reads masks."""
        return self.oracle.needs_masks

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the answers, after asserting that none was asked before.

        Raises:
            AnswersPending: the oracle waits for somebody.
            LabelError: a query repeats a pixel, or answers do not fit their queries.
        """
        queries = self.queries.read_table("queries", [shard_id])
        rows_of = split_by_image(queries)
        images = [i for i in self.pool.images_of(shard_id) if i.image_id in rows_of]
        label_maps: dict[str, LabelMap] = {}
        if "superpixel" in queries["unit"].unique().to_pylist():
            label_maps = self.pool.label_maps_of(shard_id)
        asked = AskedPixels(self.earlier_labels, shard_id, label_maps)

        def ask(image: PoolImage) -> tuple[pa.Table, Questions, Answers | Pending]:
            rows = rows_of[image.image_id]
            part = queries.slice(rows.start, rows.stop - rows.start)
            questions = self._questions(image, part, label_maps, asked)
            return part, questions, self.oracle.answer(questions)

        parts, waiting = [], []
        threads = self.pool.threads
        for part, questions, answers in map_ahead(ask, images, threads=threads, ahead=threads):
            if isinstance(answers, Pending):
                waiting.append(answers)
            else:
                _check(questions, answers, self.pool.num_classes)
                parts.append(self._label_rows(part, questions, answers))
        if waiting:
            raise AnswersPending(waiting[0].awaited, sum(pending.count for pending in waiting))
        labels = tables.concat("labels", parts)
        check_answers(queries, labels)
        before = [stage.read_table("labels", [shard_id]) for stage in self.earlier_labels]
        for earlier in before:
            check_disjoint(labels, earlier)
        late = late_rows(before, self.oracle.late(shard_id), oracle_name=self.oracle_name)
        return {"labels": tables.concat("labels", [labels, late])}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and what the answers cost; what waits or came late, where there is any."""
        labels = shard_tables["labels"]
        counts = {"images": len(labels["image_id"].unique()), **vars(cost_of(labels))}
        is_late = labels["round"].to_numpy() != self.round_index
        is_waiting = labels["status"].to_numpy() == WAITING
        extra = {
            "late": int((is_late & ~is_waiting).sum()),
            "waiting": int((is_waiting & ~is_late).sum()),
        }
        return counts | {name: number for name, number in extra.items() if number}

    def _questions(
        self,
        image: PoolImage,
        queries: pa.Table,
        label_maps: Mapping[str, LabelMap],
        asked: AskedPixels,
    ) -> Questions:
        unit = queries["unit"][0].as_py()
        y = queries["y"].to_numpy().astype(np.int64)
        x = queries["x"].to_numpy().astype(np.int64)
        regions: list[BoolMap] = []
        if unit == "image":
            regions = [~asked.map_of(image)]
        elif unit == "superpixel":
            unasked = ~asked.map_of(image)
            ids = queries["superpixel_id"].to_numpy()
            regions = [(label_maps[image.image_id] == superpixel) & unasked for superpixel in ids]
        return Questions(
            image=image,
            round_index=self.round_index,
            unit=unit,
            y=y,
            x=x,
            image_y=nearest_pixel(y, image.work_height, image.height),
            image_x=nearest_pixel(x, image.work_width, image.width),
            regions=regions,
            reader=self.pool.reader,
        )

    def _label_rows(self, queries: pa.Table, questions: Questions, answers: Answers) -> pa.Table:
        count = len(questions)
        is_known = np.array([status == "labelled" for status in answers.status], bool)
        is_known &= questions.unit != "image"
        names = ("round", "image_id", "y", "x", "unit", "superpixel_id")
        columns: dict[str, Any] = {name: queries[name].combine_chunks() for name in names}
        columns |= {
            "num_pixels": [int(region.sum()) for region in questions.regions] or [1] * count,
            "image_y": questions.image_y,
            "image_x": questions.image_x,
            "class_id": pa.array(answers.class_id, pa.int32(), mask=~is_known),
            "class_map": [None] * count,
            "status": list(answers.status),
            "oracle": [self.oracle_name] * count,
            "annotator": [answers.annotator] * count
            if answers.annotator is None or isinstance(answers.annotator, str)
            else list(answers.annotator),
            "seconds": [None] * count if answers.seconds is None else list(answers.seconds),
            "revision": [0] * count if answers.revision is None else list(answers.revision),
        }
        if answers.class_map is not None:
            columns["class_map"] = [pack_class_map(answers.class_map)]
        return tables.from_columns("labels", columns)


def _check(questions: Questions, answers: Answers, num_classes: int) -> None:
    """See that answers fit their questions; an oracle may be anybody's code."""
    where = f"round {questions.round_index}, {questions.image.image_id}"
    if not len(questions) == len(answers.class_id) == len(answers.status):
        raise LabelError(
            f"{where}: the oracle gave {len(answers.class_id)} classes and {len(answers.status)} "
            f"statuses for {len(questions)} queries; expected one of each a query"
        )
    odd = [status for status in answers.status if status not in STATUSES]
    if odd:
        raise LabelError(f"{where}: the oracle gave status {odd[0]!r}; expected {STATUSES}")
    classes = answers.class_id[[status == "labelled" for status in answers.status]]
    if questions.unit == "image":
        work = (questions.image.work_height, questions.image.work_width)
        if answers.class_map is None or answers.class_map.shape != work:
            raise LabelError(
                f"{where}: a whole image is answered by a class map of {work[0]} x {work[1]}"
            )
        classes = answers.class_map[answers.class_map != IGNORE_INDEX].astype(np.int64)
    unknown = classes[(classes < 0) | (classes >= num_classes)]
    if len(unknown):
        raise LabelError(
            f"{where}: the oracle gave class {unknown[0]}; expected 0 to {num_classes - 1}"
        )
