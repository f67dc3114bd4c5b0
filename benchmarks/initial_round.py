"""A first round at random against one spread over clusters: ``python -m benchmarks.initial_round CONFIG``.

Round 0 of every seed is run once with each `budget.initial`, on one pool, in the folder of
``--folder``; the same command carries on where it stopped. Then the mIoU of each split: means and
ranges over seeds, and the p-value of a paired t-test.
"""  # noqa: E501

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from madbal_ray import api
from madbal_ray.report.statistics import smallest_visible_difference

WAYS = ("random", "spread")


def main() -> None:
    """Run what is missing and print one row for each split and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    miou: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        for way in WAYS:
            run = api.run(
                options.config,
                run_dir=f"{options.folder}/{way}-seed-{seed}",
                engine="local",
                overrides=[
                    *options.overrides,
                    *("num_rounds=1", "strategy.name=random"),
                    *(f"seed={seed}", f"budget.initial={way}"),
                ],
            )
            for row in run.metrics().to_dict("records"):
                miou.setdefault(row["split"], {}).setdefault(way, []).append(row["miou"])
                print(f"seed {seed}, {way}, {row['split']}: {row['miou']:.4f}", flush=True)
    print("split | way | mean mIoU, lowest to highest | spread - random | p | visible")
    for split, of_way in miou.items():
        found = {way: np.array(values) for way, values in of_way.items()}
        difference = found["spread"] - found["random"]
        p_value = float(np.asarray(stats.ttest_1samp(difference, 0.0))[1])
        for way, values in found.items():
            print(
                f"{split} | {way} | {values.mean():.4f}, {values.min():.4f} to {values.max():.4f} "
                f"| {difference.mean():+.4f} | {p_value:.3f} | "
                f"{smallest_visible_difference(difference):.4f}"
            )


if __name__ == "__main__":
    main()
