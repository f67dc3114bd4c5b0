"""A slice of the drill; `make drill` runs all of it, $MADBAL_DRILL_SLICE scales this one."""

import collections
import os
import warnings

import pytest

from tests.fuzz import drill, edits

SLICE = {"images": 700, "archives": 200, "configurations": 150}
SCALE = float(os.environ.get("MADBAL_DRILL_SLICE", "1"))
SEED = 1
"""Another than the drill's, so that both look at different cases."""


EDITS = 16
"""One of each kind."""


def test_no_edit_of_a_finished_run_goes_unnoticed(tiny_run, tmp_path):
    outcomes = collections.Counter(
        edits.check(tiny_run, *case, tmp_path) for case in edits.cases(SEED, round(EDITS * SCALE))
    )
    assert outcomes["wrong"] == 0
    assert outcomes["noticed"] > 0.7 * outcomes.total()


@pytest.mark.parametrize("kind", list(SLICE))
def test_no_foreign_bytes_end_in_a_traceback_or_are_read_wrong(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what they mend
        outcomes, failures = drill.judge(kind, SEED, round(SLICE[kind] * SCALE), tmp_path)
    assert not [failure for failure in failures if "took more than" not in failure[1]]
    assert outcomes["refused"] > 0.2 * outcomes.total()
    assert len(outcomes) > 1  # some damage does not matter: the drill is no list of hopeless cases
