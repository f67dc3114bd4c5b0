"""Answers and their ledger: the simulated oracle, the budget's bookkeeping."""

from madbal_ray.labels.ledger import Ledger
from madbal_ray.labels.simulated import (
    AnnotatorNoise,
    answer_pixels,
    answer_region,
    make_mistakes,
    on_boundary,
)

__all__ = [
    "AnnotatorNoise",
    "Ledger",
    "answer_pixels",
    "answer_region",
    "make_mistakes",
    "on_boundary",
]
