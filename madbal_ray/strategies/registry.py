"""All strategies: MADBAL, its ablations, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from madbal_ray.config.schema import StrategyConfig
from madbal_ray.errors import ConfigError
from madbal_ray.strategies.strategy import Strategy

PAPER = "MADBAL (BMVC 2023)"
ABLATION = "MADBAL, Fig. 6"

_ALL = [
    Strategy("madbal", "pixel", "full", "madbal", "breakdown", PAPER),
    Strategy("averaging", "pixel", "averaging", "madbal", "breakdown", ABLATION),
    Strategy("no_maturity", "pixel", "no_maturity", "madbal", "breakdown", ABLATION),
    Strategy("vanilla", "pixel", "none", "entropy", "breakdown", ABLATION),
    Strategy(
        "random_clusters", "pixel", "full", "madbal", "breakdown", ABLATION, clusters="random"
    ),
    Strategy("no_breakdown", "pixel", "full", "madbal", "candidates", ABLATION),
    Strategy("random", "pixel", "none", None, "random_pixels", "baseline"),
    Strategy(
        "class_aware_random",
        "pixel",
        "none",
        "entropy",
        "candidates",
        "nnActive's class-aware random baseline",
        candidate_rule="class_balanced",
    ),
    Strategy("entropy", "pixel", "none", "entropy", "candidates", "baseline; PixelPick"),
    Strategy("margin", "pixel", "none", "margin", "candidates", "baseline; PixelPick"),
    Strategy("least_confidence", "pixel", "none", "least_confidence", "candidates", "PixelPick"),
    Strategy("bald", "pixel", "none", "bald", "candidates", "Gal et al. 2017"),
    Strategy("self_consistency", "pixel", "none", "self_consistency", "candidates", "EquAL (2020)"),
    Strategy(
        "class_balanced_superpixel",
        "superpixel",
        "none",
        "best_versus_second_best",
        "breakdown",
        "Cai et al. 2021",
        clusters="one",
    ),
    Strategy("core_set", "image", "none", "entropy", "core_set", "Sener and Savarese 2018"),
    Strategy("image_entropy", "image", "none", "entropy", "top_images", "baseline"),
]

REGISTRY: Mapping[str, Strategy] = {strategy.name: strategy for strategy in _ALL}


def resolve(config: StrategyConfig) -> Strategy:
    """Return the strategy that a configuration names, its options applied.

    Raises:
        ConfigError: no such strategy; those that exist are listed.
    """
    if config.name not in REGISTRY:
        raise ConfigError(
            f"strategy {config.name!r} does not exist; strategies: {', '.join(REGISTRY)}"
        )
    strategy = REGISTRY[config.name]
    if strategy.selector == "candidates" and config.top_share is not None:
        strategy = replace(strategy, candidate_rule="random_of_top")
    return strategy
