"""How little each image of a pool looks like the labelled ones, for strategies that ask that."""

from __future__ import annotations

from madbal_ray.engine.stages import JobRunner
from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from madbal_ray.training.adversarial_job import LearnFamiliarity, ShrinkImages


def compare_images(asking: Asking, runner: JobRunner, folder: Folder, steps: int) -> StageDir:
    """Return stage `familiarity`, with table `image_scores`.

    Args:
        folder: of the round.
        steps: of training.
    """
    config, pool, index = asking.config, asking.pool, asking.round_index
    thumbnails = runner.plan(folder, "thumbnails", {}, digests(pool.images))
    shrink = ShrinkImages(
        output=thumbnails, reader=pool.reader, threads=config.resources.decode_threads, pool=pool
    )
    runner.map(shrink, pool.shard_ids, total=pool.num_images)
    output = runner.plan(
        folder,
        "familiarity",
        {"steps": steps, "seed": config.seed, "round": index},
        digests(thumbnails) | label_digests(asking.labels),
    )
    runner.call(
        LearnFamiliarity(
            output=output,
            thumbnails=thumbnails,
            labels=asking.labels,
            shard_ids=pool.shard_ids,
            steps=steps,
            round_index=index,
            seed=config.seed,
        )
    )
    if not output.marker().summary["is_learned"]:
        runner.progress.say(
            f"round {index}: {config.strategy.name} has nothing to tell apart, since all images "
            "have as many labels or none has any: images are drawn at random; "
            "budget.initial_images gives a part of them labels first"
        )
    return output
