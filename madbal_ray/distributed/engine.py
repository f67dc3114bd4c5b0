"""The Ray engine: shards, selection and training in actors that stay from round to round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from madbal_ray.config.running import ResourcesConfig
from madbal_ray.config.schema import Config
from madbal_ray.distributed.capacity import await_gpus, is_joined
from madbal_ray.distributed.gpu_group import call_on_gpus
from madbal_ray.distributed.heavy_actor import HeavyActor
from madbal_ray.distributed.job_actors import JobActors
from madbal_ray.distributed.metrics import RunMetrics
from madbal_ray.distributed.nodes import spread_over_nodes
from madbal_ray.distributed.session import (
    check_shared,
    cluster_device,
    cluster_resources,
    connect,
    largest_node,
)
from madbal_ray.distributed.train_in_actor import Mailboxes, train_in_actor
from madbal_ray.engine.contract import CallJob, GpuJob, Listener, ShardJob, TrainingJob
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder

SMALLEST_CPUS = 0.1


def make_ray_engine(config: Config, run_dir: RunDir, address: str | None) -> RayEngine:
    """Return the Ray engine of one run."""
    return RayEngine(
        config.resources,
        run=run_dir.name,
        scratch=run_dir.folder / "_ray",
        threads=(config.score.threads_per_worker, config.train.threads_per_worker),
        address=address,
        shared=[run_dir.pool_folder(config)],
        plugins=config.plugins,
    )


class RayEngine:
    """Runs jobs on a Ray cluster.

    Args:
        run: name of the run, for metrics.
        scratch: folder for Ray Train's own files, reachable from every node.
        threads: (scoring, training) threads of a worker; what it reserves as CPUs, as far
            as the cluster has them.
        shared: further folders that every node must see.
        plugins: modules that every worker imports first.
        address: see `madbal_ray.distributed.session.connect`.

    Raises:
        ResourceError: no cluster, or not the GPUs that are asked for.
    """

    name = "ray"

    def __init__(
        self,
        resources: ResourcesConfig,
        *,
        run: str,
        scratch: Folder,
        threads: tuple[int, int],
        address: str | None,
        shared: Sequence[Folder] = (),
        plugins: Sequence[str] = (),
    ) -> None:
        self._is_ours = connect(address)
        self.patience = resources.node_wait_seconds if is_joined(address) else 0.0
        self.metrics = RunMetrics(run)
        self.resources = resources
        self.scratch = scratch
        self.threads, self.training_threads = max(threads), threads[1]
        self.plugins = tuple(plugins)
        self.device = cluster_device(resources.device)
        self.selection = JobActors(
            self.scoring_workers, arguments=(self.plugins,), place=spread_over_nodes()
        )
        self._heavy: JobActors | None = None
        self._heavy_is_on_gpus = False
        self.mailboxes = Mailboxes()
        for folder in (scratch, *shared):
            check_shared(folder)

    def map_shards(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Light jobs go to actors that reserve nothing, the rest to those that hold a network.

        A heavy job without a network gets CPUs alone: GPUs may be at work for another run.
        """
        on_gpus = self.device == "cuda" and job.uses_device
        actors = self.selection if job.is_light else self._heavy_actors(on_gpus=on_gpus)
        rows = actors.map(job, shard_ids)
        with self.metrics.clock(job.output.stage) as tick:
            for row in rows:
                tick()
                self.metrics.on_shard(job.output.stage, row)
                yield row

    @property
    def scoring_workers(self) -> int:
        """Return how many actors score; `auto` counts what the cluster has now."""
        asked = self.resources.scoring_workers
        if asked != "auto":
            return asked
        cpus, gpus = cluster_resources()
        return max(1, int(gpus if self.device == "cuda" else cpus // self.threads))

    @property
    def most_training_workers(self) -> int:
        """Return the GPUs that the cluster has now; without any, one worker takes all threads."""
        _, gpus = cluster_resources()
        return max(1, int(gpus)) if self.device == "cuda" else 1

    @property
    def heavy(self) -> JobActors:
        """Return the actors that hold networks, each with a GPU where there are any."""
        return self._heavy_actors(on_gpus=self.device == "cuda")

    def _heavy_actors(self, *, on_gpus: bool) -> JobActors:
        if self._heavy_is_on_gpus != on_gpus:
            self._release()
        if self._heavy is None:
            workers = self.scoring_workers
            if on_gpus:
                # Where nodes come and go one will do: an actor that waits holds up nobody.
                least = 1 if self.patience else workers
                self._await_gpus(least, "resources.scoring_workers")
            cpus, _ = cluster_resources()
            only_decodes = self.device == "cuda" and not on_gpus
            threads = self.resources.decode_threads if only_decodes else self.threads
            share = max(SMALLEST_CPUS, min(float(threads), cpus / workers, largest_node()))
            self._heavy_is_on_gpus = on_gpus
            self._heavy = JobActors(
                workers,
                kind=HeavyActor,
                arguments=(self.plugins, self.metrics.run, self.device),
                options={"num_cpus": share, "num_gpus": int(on_gpus)},
            )
        return self._heavy

    def _release(self) -> None:
        """End the heavy actors, whose CPUs and GPUs others need; they come back when asked."""
        if self._heavy is not None:
            self._heavy.stop()
            self._heavy = None

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job in a selection actor, or on as many GPUs as help it.

        GPUs are those of scoring, which does not run meanwhile.
        """
        with self.metrics.clock(job.output.stage):
            if self.device == "cuda" and isinstance(job, GpuJob) and job.num_gpus:
                self._release()
                self._await_gpus(1, "workers of clustering.backend")
                _, gpus = cluster_resources()
                call_on_gpus(job, min(job.num_gpus, self.scoring_workers, int(gpus)))
            else:
                self.selection.call("call", job.output.stage, job)

    def train(self, job: TrainingJob, listener: Listener) -> None:
        """Train one round: in an actor, or with Ray Train where it has several workers."""
        if job.num_workers == 1:
            train_in_actor(
                job,
                listener,
                actors=self.heavy,
                mailbox=self.mailboxes.get(),
                metrics=self.metrics,
                retries=self.resources.worker_retries,
            )
            return
        from madbal_ray.distributed.train import train_with_ray  # Ray Train takes seconds to import

        self._release()
        is_elastic = job.min_workers < job.num_workers
        self._await_gpus(job.min_workers, f"train.{'min' if is_elastic else 'num'}_workers")
        cpus, _ = cluster_resources()
        train_with_ray(
            job,
            listener,
            mailbox=self.mailboxes.get(),
            metrics=self.metrics,
            plugins=self.plugins,
            storage_path=self.scratch.uri,
            use_gpu=self.device == "cuda",
            num_cpus=min(float(self.training_threads), cpus / job.num_workers, largest_node()),
            retries=self.resources.worker_retries,
            wait_seconds=self.resources.node_wait_seconds,
        )

    def close(self) -> None:
        """End our actors, and Ray where we started it."""
        self._release()
        self.selection.stop()
        self.mailboxes.stop()
        if self._is_ours:
            ray.shutdown()

    def _await_gpus(self, workers: int, option: str) -> None:
        if self.device == "cuda":
            await_gpus(workers, option=option, seconds=self.patience)
