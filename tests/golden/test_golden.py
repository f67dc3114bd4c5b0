"""Each stage's output on one tiny input, as it was when its revision was last raised."""

import json
import math

import pytest

from tests.golden.record import file_of, places, record_all

RELATIVE, ABSOLUTE = 2e-3, 2e-4
LARGE = 2**20
SHARE = 0.05
"""Of the whole numbers that follow from a network: another release of torch may turn a tie."""

GOLDEN = [place for place in places() if file_of(*place).exists()]
EXACT = {"index", "images", "superpixels"}


def is_close(golden, value):
    if isinstance(golden, float) or isinstance(value, float):
        if golden is None or value is None or isinstance(golden, str) or isinstance(value, str):
            return golden == value
        return math.isclose(golden, value, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(golden, int) and isinstance(value, int) and abs(golden) > LARGE:  # score_sum
        return math.isclose(golden, value, rel_tol=RELATIVE)
    if isinstance(golden, list) and isinstance(value, list) and len(golden) == len(value):
        return all(is_close(a, b) for a, b in zip(golden, value, strict=True))
    if isinstance(golden, dict) and isinstance(value, dict) and golden.keys() == value.keys():
        return all(is_close(golden[key], value[key]) for key in golden)
    return golden == value


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    record_all(folder)
    return folder


def odd_values(golden, values):
    return [
        index for index, pair in enumerate(zip(golden, values, strict=True)) if not is_close(*pair)
    ]


@pytest.mark.parametrize(("run", "name", "round_index"), GOLDEN)
def test_a_stage_writes_what_it_wrote(recorded, run, name, round_index):
    golden = json.loads(file_of(run, name, round_index).read_text())
    path = file_of(run, name, round_index, recorded)
    advice = (
        f"stage {name} writes other values than its golden file says: raise the stage's revision "
        "in madbal_ray/state/stages.py and run `python -m tests.golden.record`, or mend"
    )
    assert path.exists(), advice
    now = json.loads(path.read_text())
    assert golden["revision"] == now["revision"], "run `python -m tests.golden.record` as well"
    assert golden["tables"].keys() == now["tables"].keys(), advice
    for table, columns in golden["tables"].items():
        assert columns.keys() == now["tables"][table].keys(), advice
        for column, values in columns.items():
            new = now["tables"][table][column]
            assert len(values) == len(new), f"{table}.{column}: {advice}"
            odd = odd_values(values, new)
            allowed = 0 if name in EXACT else SHARE * len(values)
            assert len(odd) <= allowed, f"{table}.{column}, rows {odd}: {advice}"
    assert golden["weights"].keys() == now["weights"].keys(), advice
    odd = [
        key for key, norm in golden["weights"].items() if not is_close(norm, now["weights"][key])
    ]
    assert not odd, f"weights {odd}: {advice}"


def test_every_stage_of_a_run_has_a_golden_file(recorded):
    done = [place for place in places() if file_of(*place, recorded).exists()]
    assert done == GOLDEN
