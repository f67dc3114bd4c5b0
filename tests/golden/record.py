"""What the golden files hold of a run, and writing them anew: ``python -m tests.golden.record``.

Write them anew only together with a raised revision in `madbal_ray/state/stages.py`, or when a new
stage or column has no golden rows yet.

The runs take place in a process of their own that uses no more of a processor than all have
(`ANY_PROCESSOR`): training a network of random weights on six images turns the last bit of a
convolution into another query.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_safetensors

from madbal_ray.state.stage_dir import table_path
from madbal_ray.state.stages import STAGES, stages_of

FOLDER = Path(__file__).parent
ANY_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "OMP_NUM_THREADS": "1",
}
"""Torch, MKL, oneDNN, OpenBLAS and numba take the same instructions on every x86-64 processor."""
NUM_ROWS = 24
DIGITS = 5


HALF_FLOATS = {"taps", "features"}
"""Columns of bytes that are float16 values."""

OF_FROZEN = {"backbone_features", "tap_statistics", "point_features", "phase1", "phase2", "score"}
"""Stages that a frozen backbone changes; all others are the tiny run's."""


def places():
    """Yield run, stage and round of what two tiny runs of two rounds complete."""
    pool = [(name, None) for name in stages_of("pool")]
    rounds = [(name, index) for index in (0, 1) for name in stages_of("round")]
    for name, round_index in pool + rounds:
        yield "tiny", name, round_index
        if name in OF_FROZEN:
            yield "frozen", name, round_index


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
            column: [_plain(value, column) for value in rows[column].to_pylist()]
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


def _plain(value, column=""):
    if column in HALF_FLOATS:
        values = np.frombuffer(value, np.float16).astype(np.float64)
        return {"bytes": len(value), "norm": round(float(np.linalg.norm(values)), DIGITS)}
    if isinstance(value, bytes):
        return {"bytes": len(value), "sum": sum(value)}
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def file_of(run, name, round_index, folder=FOLDER):
    """Return the golden file of a stage."""
    parts = [] if run == "tiny" else [run]
    parts += [name] if round_index is None else [str(round_index), name]
    return folder / f"{'-'.join(parts)}.json"


def record_all(folder):
    """Write the files of all stages, from fresh runs in a process of its own, to a folder."""
    subprocess.run(
        [sys.executable, "-m", "tests.golden.record", "--here", folder],
        env=os.environ | ANY_PROCESSOR,
        cwd=FOLDER.parents[1],
        check=True,
    )


def _record_here(target):
    import madbal_ray
    from tests.conftest import frozen_config, tiny_config

    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: madbal_ray.run(config, run_dir=f"{folder}/{name}", engine="local")
            for name, config in (("tiny", tiny_config()), ("frozen", frozen_config()))
        }
        for place in places():
            run, name, round_index = place
            values = record(runs[run], name, round_index)
            if values is not None:
                text = json.dumps(values, separators=(",", ":"), sort_keys=True)
                file_of(*place, target).write_text(text + "\n")


def main() -> None:
    """Write all golden files anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--here", type=Path, help="run in this process, write to this folder")
    folder = parser.parse_args().here
    if folder is None:
        record_all(FOLDER)
    else:
        _record_here(folder)


if __name__ == "__main__":
    main()
