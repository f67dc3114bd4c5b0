"""What a finished run paid for: its labels beside its queries and its metrics."""

from __future__ import annotations

from collections.abc import Sequence

from madbal_ray.errors import IntegrityError
from madbal_ray.labels.ledger import Cost, check_answers, check_disjoint, cost_of, of_round
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir


def cost_of_answers(
    run_dir: RunDir, index: int, earlier: Sequence[StageDir], pool: Pool
) -> Cost | None:
    """See that a round's labels answer its queries, each once; None before there are any.

    Raises:
        LabelError: they do not, or a pixel was asked before.
    """
    labels, queries = (run_dir.find(name, index) for name in ("labels", "select"))
    if labels is None or queries is None:
        return None
    total = Cost()
    for shard_id in pool.shard_ids:
        answers = labels.read_table("labels", [shard_id])
        own = of_round(answers, index)
        check_answers(queries.read_table("queries", [shard_id]), own)
        for stage in earlier:
            check_disjoint(own, stage.read_table("labels", [shard_id]))
        total += cost_of(answers)
    return total


def check_costs(run_dir: RunDir, round_index: int, spent: Cost) -> None:
    """See that a round's metrics note what its labels and those before it cost.

    Raises:
        IntegrityError: they note something else.
    """
    stage = run_dir.find("metrics", round_index)
    if stage is None:
        return
    for row in stage.read_table("metrics").to_pylist():
        noted = Cost(*(row[f"num_{name}"] for name in ("labels", "regions", "clicks", "void")))
        if noted != spent:
            raise IntegrityError(
                f"{stage.folder}: metrics of round {round_index}, split {row['split']} note "
                f"{noted}, the label store holds {spent}"
            )
