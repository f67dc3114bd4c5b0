"""A selection on stored scores alone: no run, no images."""

from madbal_ray.config.schema import Config
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader
from madbal_ray.selection.asking import Asking
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


class InFolder:
    """Completes stages in a folder, with the local engine."""

    def __init__(self, folder, shard_ids):
        self.folder, self.shard_ids, self.lines = folder, shard_ids, []

    def plan(self, name, settings, inputs):
        return StageDir.plan(self.folder, name, settings, inputs)

    def map(self, job, shard_ids=None):
        shards = self.shard_ids if shard_ids is None else shard_ids
        complete_stage(LocalEngine("cpu"), job, shards, on_row=lambda row: None)

    def call(self, job):
        job.run()

    def say(self, text):
        self.lines.append(text)


def asking_on(score, folder, *, classes=3, round_index=1, labels=(), **config):
    """Return what a strategy works with, for a stage `score` made by hand."""
    counts = score.marker().summary["shards"]
    shard_ids = [int(name) for name in counts]
    num_images = sum(shard["images"] for shard in counts.values())
    pool = Pool(
        reader=ImageReader(Folder("."), {}, 0, 0),
        threads=1,
        class_names=tuple(f"class {i}" for i in range(classes)),
        images=score,
        superpixels=score,
        clusters=score,
        shard_ids=shard_ids,
        num_images=num_images,
        num_pixels=num_images,
    )
    return Asking(
        config=Config(**config),
        pool=pool,
        round_index=round_index,
        labels=labels,
        score=score,
        stages=InFolder(folder, shard_ids),
    )
