"""Members over several suites: which seeds count, and what stands in the table."""

import pytest

from madbal_ray.report.over_suites import left_out, rank_over, same_runs, table_over
from madbal_ray.report.results import Results
from tests.report.test_results import run

GAINS = {"random": 0.0, "better": 0.1, "worse": -0.1}


def suite(seeds, gains=GAINS, without=()):
    runs = [
        run(member, seed, [5, 10], [0.3, 0.4 + gain * (1 + seed / 100) + seed / 1000])
        for member, gain in gains.items()
        for seed in seeds
        if (member, seed) not in without
    ]
    return Results(runs, baseline="random")


def test_every_seed_of_every_suite_is_a_block():
    suites = {
        "streets": suite(range(3)),
        "facades": suite(
            range(4), {"worse": 0.2, **{k: v for k, v in GAINS.items() if k != "worse"}}
        ),
    }
    ranks = rank_over(suites, "test")
    assert ranks.num_blocks == 7
    # better: first in 3, second in 4; random: second in 3, third in 4; worse: third, then first
    expected = {"better": 11 / 7, "worse": 13 / 7, "random": 18 / 7}
    assert ranks.mean == pytest.approx(expected)
    table = table_over(suites, ranks, "test").set_index("member")
    assert list(table.index) == ["better", "worse", "random"]
    assert table.loc["better", "streets: points"] == pytest.approx(5.05)  # half of 10 x 1.01
    assert table.loc["worse", "facades: points"] == pytest.approx(10.15)
    assert table.loc["random"].drop("mean_rank").isna().all()


def test_what_a_suite_lacks_is_left_out():
    suites = {
        "streets": suite(range(4), without=[("worse", 3)]),
        "facades": suite(range(4), {**GAINS, "other": 0.3}),
    }
    ranks = rank_over(suites, "test")
    assert ranks.num_blocks == 7  # seed 3 of streets is not finished
    assert ranks.mean == {"better": 1.0, "random": 2.0, "worse": 3.0}
    assert rank_over({"streets": suite(range(5))}, "test") is None  # too few blocks
    assert rank_over(suites, "val") is None
    assert left_out(suites, "test") == [
        "streets: 3 of 4 seeds are ranked; not all members have seed 3 (worse)",
        "facades: other: not ranked, since not every suite has a curve of them on the range of the "
        "others",
    ]
    assert left_out({"streets": suite(range(6))}, "test") == []


def test_a_member_off_the_range_of_one_suite_takes_no_block_of_it_along():
    odd = [run("worse", seed, [5, 900], [0.3, 0.4]) for seed in range(4)]
    facades = suite(range(4), {"random": 0.0, "better": 0.1, "good": 0.05})
    streets = suite(range(4), {**GAINS, "good": 0.05})
    suites = {"streets": streets, "facades": Results([*facades.runs, *odd], baseline="random")}
    ranks = rank_over(suites, "test")
    assert ranks.num_blocks == 8
    assert ranks.mean == {"better": 1.0, "good": 2.0, "random": 3.0}
    assert [line.partition(":")[0] for line in left_out(suites, "test")] == ["streets", "facades"]


def test_the_same_runs_twice_are_found_and_further_seeds_are_not_the_same():
    assert same_runs({"a": suite(range(3)), "b": suite(range(3))}) == ("a", "b")
    assert same_runs({"a": suite(range(3)), "b": suite(range(2))}) == ("a", "b")
    assert same_runs({"a": suite(range(3)), "b": suite(range(3, 6))}) is None
    other = suite(range(3), {**GAINS, "worse": -0.2})
    assert same_runs({"a": suite(range(3)), "b": other}) is None
