"""Names of columns in words: what a reader of the page sees where the CSV has a short name."""

from __future__ import annotations

from madbal_ray.state.tables import HALF_WIDTH

WORDS = {
    "area": "area under the curve",
    "area_high": "area, upper bound",
    "area_low": "area, lower bound",
    "clicks_to_baseline": "is where the baseline ends with",
    "clicks_to_baseline_high": "upper bound",
    "clicks_to_baseline_low": "lower bound",
    "clicks_per_image": "clicks per image",
    "equivalent_clicks": "as good as the baseline's clicks",
    "equivalent_high": "upper bound",
    "equivalent_low": "lower bound",
    "high": "upper bound",
    "labels_per_image": "pixels asked per image",
    "low": "lower bound",
    "mean": "mean mIoU",
    "miou": "mIoU",
    "miou_high": "mIoU, upper bound",
    "miou_low": "mIoU, lower bound",
    "num_clicks": "clicks",
    "num_labels": "pixels asked",
    "num_points": "points with a class",
    "num_regions": "answers",
    "num_void": "void answers",
    "p_holm": "p-value (Holm)",
    "peak_gib": "peak memory, GiB",
    "percent_labelled": "% of pixels asked",
    f"points_for_{HALF_WIDTH}": f"points for ± {HALF_WIDTH}",
    "difference_points": "difference, mIoU points",
    "smallest_visible": "smallest visible difference",
    "share_of_full": "share of full supervision",
}


def in_words(column: str) -> str:
    """Return a column's name in words.

    >>> in_words("miou_low"), in_words("ahead_in_seeds")
    ('mIoU, lower bound', 'ahead in seeds')
    """
    return WORDS.get(column, column.replace("_", " "))
