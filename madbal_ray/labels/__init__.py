"""Answers and their ledger: the simulated oracle, the budget's bookkeeping."""

from madbal_ray.labels.ledger import Ledger
from madbal_ray.labels.simulated import answer_pixels

__all__ = ["Ledger", "answer_pixels"]
