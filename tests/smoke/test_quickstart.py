"""The quick start without Ray installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # import ray now raises ModuleNotFoundError
from madbal_ray.cli import main
main(sys.argv[1:], prog_name="madbal")
"""


def test_quick_start_runs_locally_without_ray(tmp_path):
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_RAY,
            "run",
            ROOT / "experiments" / "quickstart.yaml",
            "--engine=local",
            f"--run-dir={tmp_path}/run",
            "--set=data.synthetic={num_train: 8, num_val: 4, height: 48, width: 64}",
            "--set=train.phase1.steps=5",
            "--set=train.phase2.steps=5",
            "--set=superpixels.pixels=64",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert "labels per image" in process.stdout
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_importing_the_package_is_cheap_and_names_are_there():
    code = (
        "import sys, madbal_ray; assert not {'torch', 'ray', 'cv2'} & set(sys.modules);"
        "assert {'run', 'open_run', 'Run'} <= set(dir(madbal_ray));"
        "import madbal_ray.selection.query, madbal_ray.selection.cluster_budget;"
        "import madbal_ray.labels.ledger, madbal_ray.state.tables;"
        "assert 'torch' not in sys.modules;"
        "madbal_ray.kernels.reduce_scores; madbal_ray.run; madbal_ray.open_run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
