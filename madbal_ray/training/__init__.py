"""Losses on points, their targets, augmentation, and the measures of a trained network."""

from madbal_ray.training.metrics import confusion_matrix, summarize_confusion
from madbal_ray.training.point_loss import point_cross_entropy

__all__ = ["confusion_matrix", "point_cross_entropy", "summarize_confusion"]
