"""What a strategy is: a pixel score, the network parts it needs, and a selector.

A strategy is a declaration; it does no I/O and trains nothing. To add one, add a line to
`REGISTRY` (and its name to `config.StrategyName`).
"""

from __future__ import annotations

from madbal_ray.strategies.registry import REGISTRY, resolve
from madbal_ray.strategies.strategy import Strategy

__all__ = ["REGISTRY", "Strategy", "resolve"]
