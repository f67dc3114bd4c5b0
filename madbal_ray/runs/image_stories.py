"""Some images of the pool through the rounds: what was asked, why, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from skimage.measure import approximate_polygon, find_contours

from madbal_ray.arrays import BoolMap, LabelMap, Mask
from madbal_ray.labels.ledger import latest_revisions
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.models.trained import load_network
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, read_images, read_label_maps
from madbal_ray.report.pictures import ImageStory, NetworkView
from madbal_ray.runs.run import Run
from madbal_ray.scoring.explain_image import Explanation, explain_image
from madbal_ray.scoring.registry import ScoreOptions
from madbal_ray.strategies.strategy import resolve

MAX_VIEWS = 8
"""Networks that are shown of an image; of more rounds, some at even distances and the ends."""

QUERY = ["round", "image_id", "y", "x", "unit"]
TOLERANCE = 0.4
"""Working-grid pixels by which an outline may cut the corners of a superpixel."""


@dataclass(frozen=True)
class Candidate:
    """An image that may be shown.

    Attributes:
        gained: pixel accuracy of the last network less that of the first; without a mask the
            share of pixels that they call different classes.
        wrong: share of wrong pixels of the last network; without a mask its mean score.
    """

    image: PoolImage
    gained: float
    wrong: float
    has_truth: bool


def choose(candidates: Sequence[Candidate], count: int) -> list[tuple[PoolImage, str]]:
    """Return up to `count` images, each with the reason: in turn gained, wrong, typical."""
    left = [one for one in candidates if not math.isnan(one.wrong)]
    if not left:
        return []
    median = float(np.median([one.wrong for one in left]))
    has_truth = all(one.has_truth for one in left)
    ways = (
        ("most gained" if has_truth else "most changed", lambda one: -one.gained),
        ("most wrong" if has_truth else "most doubtful", lambda one: -one.wrong),
        ("typical", lambda one: abs(one.wrong - median)),
    )
    chosen: list[tuple[PoolImage, str]] = []
    while left and len(chosen) < count:
        reason, key = ways[len(chosen) % len(ways)]
        best = min(left, key=lambda one: (key(one), one.image.image_id))
        left.remove(best)
        chosen.append((best.image, reason))
    return chosen


@dataclass
class Networks:
    """The networks of a run, one at a time in memory, and what they see.

    Attributes:
        pool: opened once, since opening it lists the features that are kept.
    """

    run: Run
    device: torch.device
    pool: Pool = field(init=False)
    _network: SegmentationNetwork | None = None
    _round: int | None = None

    def __post_init__(self) -> None:
        self.pool = self.run.pool()

    def explain(self, round_index: int, inputs: NetworkInput, boundary: BoolMap) -> Explanation:
        """Return what the network of a round says of an image.

        Args:
            inputs, boundary: as `Pool.input_and_boundary` returns them.
        """
        strategy = self.run.config.strategy
        return explain_image(
            self._of(round_index),
            inputs,
            boundary,
            options=ScoreOptions(strategy.normalize_terms, strategy.uncertainty),
            device=self.device,
        )

    def _of(self, round_index: int) -> SegmentationNetwork:
        if self._network is None or self._round != round_index:
            self._round = None  # of none, should it not be filled
            self._network = load_network(
                self.run.config.model,
                len(self.run.class_names),
                self.run.network(round_index),
                resolve(self.run.config.strategy).supports,
                into=self._network,
            ).to(self.device)
            self._network.set_phase("eval")
            self._round = round_index
        return self._network

    def score_name(self, explanation: Explanation) -> str:
        """Return which signal stands for what the strategy asks by."""
        own = resolve(self.run.config.strategy).pixel_score
        if own in explanation.signals:
            return str(own)
        return "score" if "score" in explanation.signals else "entropy"


def tell_stories(
    run: Run, chosen: Sequence[tuple[PoolImage, str]], networks: Networks
) -> list[ImageStory]:
    """Return what happened to some images, from stored tables and the networks of all rounds."""
    pool, reader = networks.pool, networks.pool.reader
    photos = [reader.original(image) for image, _ in chosen]
    inputs = [pool.input_and_boundary(image) for image, _ in chosen]
    asked = [_asked(run, image) for image, _ in chosen]
    views: list[list[NetworkView]] = [[] for _ in chosen]
    name = "entropy"
    shown = shown_rounds(run.num_rounds)
    for round_index in range(run.num_rounds):
        for index, of_image in enumerate(inputs):
            explanation = networks.explain(round_index, *of_image)
            name = networks.score_name(explanation)
            prediction = explanation.predictions["final"].numpy().astype(np.uint8)
            if round_index in shown:
                score = explanation.signals[name].numpy()
                views[index].append(NetworkView(round_index, prediction, score))
            _look_up(asked[index], round_index + 1, prediction, explanation)
    stories = []
    for index, (image, reason) in enumerate(chosen):
        label_map = _label_map(run, image)
        truth: Mask | None = None
        if image.mask_uri is not None:
            truth = reader.mask_on_working_grid(image)
        stories.append(
            ImageStory(
                image_id=image.image_id,
                reason=reason,
                photo=photos[index],
                truth=truth,
                score_name=name,
                views=views[index],
                queries=asked[index],
                outlines={
                    superpixel: outline(label_map, superpixel)
                    for superpixel in sorted(set(asked[index]["superpixel_id"]) - {-1})
                },
            )
        )
    return stories


def shown_rounds(num_rounds: int) -> list[int]:
    """Return which networks are shown, the first and the last among them.

    >>> shown_rounds(3), shown_rounds(20)
    ([0, 1, 2], [0, 3, 5, 8, 11, 14, 16, 19])
    """
    count = min(MAX_VIEWS, num_rounds)
    return sorted({round(index) for index in np.linspace(0, num_rounds - 1, count)})


def outline(label_map: LabelMap, superpixel: int) -> list[list[float]]:
    """Return the closed lines around a superpixel: x0, y0, x1, y1… on the working grid.

    The whole grid is 0..width and 0..height, so a pixel's centre lies at half numbers.
    """
    inside = np.pad((label_map == superpixel).astype(np.float64), 1)
    lines = []
    for contour in find_contours(inside, 0.5):
        line = approximate_polygon(contour, TOLERANCE) - 0.5  # less the border, to the centre
        lines.append(np.round(line[:, ::-1], 1).ravel().tolist())
    return lines


def _label_map(run: Run, image: PoolImage) -> LabelMap:
    in_shard = read_images(run.stage("images"), image.shard_id)
    return read_label_maps(run.stage("superpixels"), image.shard_id, in_shard)[image.image_id]


def _asked(run: Run, image: PoolImage) -> pd.DataFrame:
    """Return the queries of an image with answers, budgets and scores of their superpixels."""
    of_image = pc.field("image_id") == image.image_id
    queries, labels = [], []
    for index in range(run.num_rounds):
        for stage, table, parts in (("select", "queries", queries), ("labels", "labels", labels)):
            found = run.stage(stage, index).read_table(table, [image.shard_id])
            parts.append(found.filter(of_image))
    answers = latest_revisions(pa.concat_tables(labels)).select([*QUERY, "class_id", "status"])
    rows = pa.concat_tables(queries).to_pandas()
    rows["superpixel_id"] = rows["superpixel_id"].fillna(-1).astype(int)
    rows = rows.merge(answers.to_pandas(), on=QUERY, how="left")
    rows["predicted"] = math.nan
    rows = rows.merge(
        run.table("cluster_budgets").to_pandas()[
            ["round", "cluster_id", "num_superpixels", "budget", "share"]
        ],
        on=["round", "cluster_id"],
        how="left",
    )
    return rows.merge(
        _superpixel_scores(run, image), on=["round", "superpixel_id"], how="left"
    ).sort_values(["round", "rank"], ignore_index=True)


def _superpixel_scores(run: Run, image: PoolImage) -> pd.DataFrame:
    """Return round, superpixel_id, mean_score, dominant_class of what was scored for a round."""
    columns = ["superpixel_id", "mean_score", "dominant_class"]
    parts = [pd.DataFrame({name: [] for name in ["round", *columns]})]
    if resolve(run.config.strategy).rows == "superpixels":
        for index in range(1, run.num_rounds):
            table = run.stage("score", index).read_table("superpixel_scores", [image.shard_id])
            table = table.filter(pc.field("image_id") == image.image_id).select(columns)
            parts.append(table.to_pandas().assign(round=index))
    return pd.concat(parts[1:] or parts).astype({"round": int, "superpixel_id": int})


def _look_up(
    rows: pd.DataFrame, round_index: int, prediction: Mask, explanation: Explanation
) -> None:
    """Note what the asking network said of the pixels that a round asked."""
    is_of = (rows["round"] == round_index) & (rows["unit"] != "image")
    y, x = rows.loc[is_of, "y"].to_numpy(), rows.loc[is_of, "x"].to_numpy()
    rows.loc[is_of, "predicted"] = prediction[y, x].astype(float)
    for name, signal in explanation.signals.items():
        rows.loc[is_of, f"term_{name}"] = signal.numpy()[y, x].astype(float)


def accuracies(
    first: Mask, last: Mask, score: np.ndarray, truth: Mask | None, counts: np.ndarray | None
) -> Mapping[str, float]:
    """Return `gained` and `wrong` of a `Candidate`.

    Args:
        first, last: predictions of the first and the last network.
        counts: pixels that count, with a mask; NaN where there are none.
    """
    if truth is None or counts is None:
        return {"gained": float((first != last).mean()), "wrong": float(score.mean())}
    if not counts.any():
        return {"gained": math.nan, "wrong": math.nan}
    right, before = (float((one == truth)[counts].mean()) for one in (last, first))
    return {"gained": right - before, "wrong": 1 - right}
