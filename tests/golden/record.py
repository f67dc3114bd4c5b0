"""What the golden files hold of a run, and writing them anew: ``python -m tests.golden.record``.

Write them anew only together with a raised revision in `madbal_ray/state/stages.py`, or when a new
stage or column has no golden rows yet.
"""

import json
import math
import tempfile
from pathlib import Path

from safetensors.numpy import load as load_safetensors

from madbal_ray.state.stage_dir import table_path
from madbal_ray.state.stages import STAGES, stages_of

FOLDER = Path(__file__).parent
NUM_ROWS = 24
DIGITS = 5


def places():
    """Yield stage and round of everything a tiny run of two rounds completes."""
    for name in stages_of("pool"):
        yield name, None
    for round_index in (0, 1):
        for name in stages_of("round"):
            yield name, round_index


def record(run, name, round_index):
    """Return the rows, weights and summary of a stage as JSON values; None: not in this run."""
    stage = run.run_dir.find(name, round_index)
    if stage is None:
        return None
    spec = STAGES[name]
    found = {"revision": spec.revision, "tables": {}, "weights": {}}
    for table in (*spec.tables, *spec.drafts):
        files = [path for path in stage.marker().paths if path.startswith(f"{table}/")]
        if not files:
            continue
        shards = sorted(int(Path(path).stem) for path in files if path == table_path(table, 0))
        rows = stage.read_table(table, shards or None).slice(0, NUM_ROWS)
        found["tables"][table] = {
            column: [_plain(value) for value in rows[column].to_pylist()]
            for column in rows.column_names
        }
    for path in stage.marker().paths:
        if path.endswith(".safetensors"):
            tensors = load_safetensors(stage.folder.read(path))
            found["weights"] |= {
                key: round(math.sqrt(float((value.astype("float64") ** 2).sum())), DIGITS)
                for key, value in sorted(tensors.items())
                if value.ndim > 1
            }
    return found


def _plain(value):
    if isinstance(value, bytes):
        return {"bytes": len(value), "sum": sum(value)}
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def file_of(name, round_index):
    """Return the golden file of a stage."""
    return FOLDER / (f"{name}.json" if round_index is None else f"{round_index}-{name}.json")


def main() -> None:
    """Write all golden files from a fresh run."""
    import madbal_ray
    from tests.conftest import tiny_config

    with tempfile.TemporaryDirectory() as folder:
        run = madbal_ray.run(tiny_config(), run_dir=f"{folder}/run", engine="local")
        for name, round_index in places():
            values = record(run, name, round_index)
            if values is not None:
                text = json.dumps(values, separators=(",", ":"), sort_keys=True)
                file_of(name, round_index).write_text(text + "\n")
                print(file_of(name, round_index).name, len(text))


if __name__ == "__main__":
    main()
