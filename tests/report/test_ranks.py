"""Mean ranks, critical differences and label efficiency against figures worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from madbal_ray.report import figures, page_tables, plots
from madbal_ray.report.page_tables import cell
from madbal_ray.report.ranks import mean_ranks
from madbal_ray.report.results import Results
from madbal_ray.report.statistics import equivalent_clicks
from tests.report.test_results import run


def blocks(*rows, names="abc"):
    return {index: dict(zip(names, row, strict=True)) for index, row in enumerate(rows)}


USUAL = (0.5, 0.4, 0.1)
SIX = blocks(USUAL, USUAL, (0.5, 0.5, 0.1), (0.2, 0.4, 0.1), USUAL, USUAL)


def test_ranks_are_means_over_blocks_and_ties_share():
    found = mean_ranks(SIX)
    assert found.num_blocks == 6
    # a: 1, 1, 1.5, 2, 1, 1; b: 2, 2, 1.5, 1, 2, 2; c: always 3
    assert dict(found.mean) == {
        "a": pytest.approx(7.5 / 6), "b": pytest.approx(10.5 / 6), "c": 3.0
    }  # fmt: skip
    assert list(found.mean) == ["a", "b", "c"]
    # Demsar's table 5: q = 2.343 for three; 2.343 sqrt(3 * 4 / 36)
    assert found.critical_difference == pytest.approx(2.343 * math.sqrt(12 / 36), abs=1e-3)
    columns = [[row[name] for row in SIX.values()] for name in "abc"]
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*columns).pvalue)
    assert found.groups == [("a", "b"), ("b", "c")]
    near = mean_ranks(blocks(*[(0.3, 0.2, 0.1), (0.2, 0.1, 0.3), (0.1, 0.3, 0.2)] * 2))
    assert near.groups == [("a", "b", "c")]  # and not ("b", "c") as well, which is in it
    for ranks, alike in ((found, ["b", "c", ""]), (near, ["c", "c", ""])):
        assert page_tables.ranked(ranks)["alike_up_to"].tolist() == alike


@pytest.mark.parametrize(("count", "q"), [(4, 2.569), (6, 2.850), (10, 3.164)])
def test_the_critical_difference_is_nemenyis(count, q):
    names = [f"m{index}" for index in range(count)]
    rows = [[row + 10 * index for index in range(count)] for row in range(8)]
    found = mean_ranks(blocks(*rows, names=names))
    expected = q * math.sqrt(count * (count + 1) / 48)
    assert found.critical_difference == pytest.approx(expected, abs=2e-3)
    assert list(found.mean) == names[::-1]


def test_members_that_a_block_lacks_are_left_out_and_few_say_nothing():
    rows = blocks(*[(0.3, 0.2, 0.1, 0.4)] * 6, names="abcd")
    del rows[3]["d"]
    assert list(mean_ranks(rows).mean) == ["a", "b", "c"]
    assert mean_ranks({key: rows[key] for key in range(5)}) is None
    assert mean_ranks(blocks(*[(0.1, 0.2)] * 9, names="ab")) is None
    assert mean_ranks({}) is None
    assert mean_ranks(blocks(*[(0.2, 0.2, 0.2)] * 6)).p_value == 1.0


def test_clicks_of_the_baseline_that_are_as_good():
    baseline = {0: [0.30, 0.40, 0.50], 1: [0.32, 0.42, 0.52]}
    own = {0: [0.30, 0.40, 0.45], 1: [0.30, 0.40, 0.47], 7: [0.9, 0.9, 0.9]}
    found = equivalent_clicks([10, 20, 30], own, baseline)
    # means 0.46 against 0.31, 0.41, 0.51; seed 7 has no partner
    assert (found.mean, found.count) == (pytest.approx(25.0), 2)
    assert (found.low, found.high) == (pytest.approx(25.0), pytest.approx(25.0))
    never = equivalent_clicks([10, 20, 30], {0: [0.3, 0.4, 0.6], 1: [0.3, 0.4, 0.51]}, baseline)
    assert never.mean == never.high == math.inf
    assert never.low == pytest.approx(29.0)  # seed 1 alone: 0.51 of 0.42 to 0.52


def test_a_curve_that_ends_below_where_the_baseline_begins_is_worth_fewer_clicks():
    baseline = {seed: [0.30, 0.40] for seed in range(6)}
    found = equivalent_clicks([10, 20], {seed: [0.30, 0.29] for seed in range(6)}, baseline)
    assert (found.low, found.mean, found.high) == (-math.inf,) * 3
    assert [cell(value) for value in (-math.inf, math.inf)] == ["fewer", "more"]
    same = equivalent_clicks([10, 20], {seed: [0.30, 0.30] for seed in range(6)}, baseline)
    assert (same.low, same.mean, same.high) == (10,) * 3


def test_clicks_of_the_baseline_have_quantiles_as_far_out_as_so_few_seeds_ask():
    ends = [0.41, 0.42, 0.44, 0.45, 0.455, 0.47]
    own = {seed: [0.3, end] for seed, end in enumerate(ends)}
    found = equivalent_clicks([10, 20], own, {seed: [0.3, 0.5] for seed in own})
    assert found.mean == pytest.approx(10 + 10 * (np.mean(ends) - 0.3) / 0.2)
    draws = np.random.default_rng(2).choice(ends, (40_000, 6)).mean(axis=1)
    # Student's t of 6 is 2.5706 standard errors, of 6 - 1 degrees: the 0.243 % of a normal tail
    low, high = np.quantile(10 + 10 * (draws - 0.3) / 0.2, [0.00243, 1 - 0.00243])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.12), pytest.approx(high, abs=0.12))
    one = equivalent_clicks([10, 20], {0: [0.3, 0.4]}, {0: [0.3, 0.5]})
    assert (one.low, one.mean, one.high) == (pytest.approx(15),) * 3


def results():
    runs = [run("random", s, [10, 20, 30], [0.3, 0.4, 0.5 + s / 1000]) for s in range(6)]
    runs += [run("good", s, [10, 20, 30], [0.3, 0.45, 0.6 + s / 1000]) for s in range(6)]
    runs += [run("bad", s, [10, 20, 30], [0.3, 0.3, 0.35 + s / 1000]) for s in range(6)]
    return Results(runs, baseline="random")


def test_the_page_has_ranks_and_what_a_click_is_worth():
    table = results().label_efficiency("test").set_index("member")
    assert table.loc["good", "equivalent_clicks"] == math.inf
    assert table.loc["bad", "equivalent_clicks"] == pytest.approx(15.25, abs=0.1)
    # The other way: the baseline ends at 0.5025, between good's 0.45 at 20 and 0.6025 at 30.
    reached = table.loc["good", ["clicks_to_baseline_low", "clicks_to_baseline"]]
    assert reached.iloc[1] == pytest.approx(20 + 10 * 0.0525 / 0.1525)
    assert 23 < reached.iloc[0] <= reached.iloc[1] <= table.loc["good", "clicks_to_baseline_high"]
    assert table.loc["bad", "clicks_to_baseline"] == math.inf
    assert table["seeds"].tolist() == [6, 6]
    assert page_tables.cell(math.inf) == "more"
    found = results().ranks("test")
    assert list(found.mean) == ["good", "random", "bad"]
    rows = page_tables.ranked(found).to_dict("records")
    assert rows[0] == {"member": "good", "mean_rank": 1.0, "alike_up_to": "random"}
    assert rows[2]["alike_up_to"] == ""
    plot = plots.ranks(found)
    (trace,) = plot["data"]
    assert (trace["x"], trace["y"]) == ([1.0, 2.0, 3.0], ["good", "random", "bad"])
    assert trace["error_x"]["value"] == pytest.approx(found.critical_difference / 2)
    axes = figures.rank_figure(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "random", "bad"]
    assert Results(results().runs[:12], baseline="random").ranks("test") is None
    assert len(Results(results().runs).label_efficiency("test")) == 0
