"""Networks: a backbone with four taps, a main head, and the active-learning supports."""

from madbal_ray.models.backbones import BACKBONES
from madbal_ray.models.heads import HEADS
from madbal_ray.models.network import NetworkOutput, SegmentationNetwork, build_network

__all__ = ["BACKBONES", "HEADS", "NetworkOutput", "SegmentationNetwork", "build_network"]
