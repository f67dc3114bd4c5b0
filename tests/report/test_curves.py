"""Curves of suites as a table: what is written, what is read back, what is refused."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from madbal_ray.errors import DataError
from madbal_ray.report.curves import COLUMNS, curve_rows, read_curves
from madbal_ray.report.over_suites import rank_over, table_over
from madbal_ray.report.results import Results
from madbal_ray.report.spreadsheet import csv_bytes
from tests.report.test_over_suites import suite
from tests.report.test_results import run

HEADER = ",".join(COLUMNS) + "\n"
ROW = "streets,random,baseline,0,test,0,5.0,0.25\n"


def written(suites):
    return csv_bytes(curve_rows(suites)).decode()


def test_a_row_holds_a_point_of_a_curve():
    runs = [run("random", 3, [5, 10], [0.25, 0.5]), run("margin", 3, [5, 10], [0.25, math.nan])]
    text = written({"streets": Results(runs, "random")})
    assert text == (
        "suite,member,role,seed,split,round,clicks_per_image,miou\n"
        "streets,random,baseline,3,test,0,5.0,0.25\n"
        "streets,random,baseline,3,test,1,10.0,0.5\n"
        "streets,margin,member,3,test,0,5.0,0.25\n"  # nothing of round 1 was measured
    )
    back = read_curves(text, "curves.csv")["streets"]
    assert back.baseline == "random"
    assert back.members == ["random", "margin"]
    assert back.of("random")[0].curve("test")["miou"].tolist() == [0.25, 0.5]
    assert back.of("margin")[0].curve("test")["miou"].tolist() == [0.25]
    as_nan = read_curves(text + "streets,margin,member,3,test,1,10.0,\n", "curves.csv")
    assert as_nan["streets"].of("margin")[0].curve("test")["miou"].tolist() == [0.25]


def test_ranks_of_a_table_are_those_of_the_suites():
    suites = {"streets": suite(range(5)), "facades": suite(range(4), without=[("worse", 3)])}
    back = read_curves(written(suites), "curves.csv")
    assert list(back) == ["streets", "facades"]
    ranks, again = rank_over(suites, "test"), rank_over(back, "test")
    assert vars(again) == vars(ranks)
    pd.testing.assert_frame_equal(
        table_over(back, again, "test"), table_over(suites, ranks, "test"), check_exact=True
    )


def test_full_supervision_and_names_that_a_spreadsheet_would_run_come_back():
    full = replace(run("=full", 0, [172800], [0.625]), is_reference=True)
    suites = {"-streets": Results([run("@a", 0, [5], [0.5]), full], None)}
    text = written(suites)
    assert "\n'-streets,'=full,reference,0,test,0,172800.0,0.625\n" in text
    back = read_curves(text, "curves.csv")["-streets"]
    assert back.baseline is None
    assert back.members == ["@a"]
    assert back.full_supervision("test") == {0: 0.625}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.csv has no column suite, member, role, seed, split, round"),
        ("member,rank\na,1\n", "c.csv has no column suite, role, seed, split, round"),
        (HEADER, "c.csv has no row below its header"),
        (HEADER + ROW + ROW, "c.csv, line 3: random, seed 0, has round 0 on test twice"),
        (HEADER + ROW.replace("baseline", "best"), "c.csv, line 2: role 'best'; expected member"),
        (HEADER + ROW.replace(",0,test", ",-1,test"), "seed is '-1'; expected a whole number"),
        (HEADER + ROW.replace(",0,test", f",{9 * 10**18},test"), "expected a whole number from 0"),
        (HEADER + ROW.replace("0.25", "high"), "line 2: miou is 'high'; expected a number"),
        (HEADER + ROW.replace("0.25", "1e999"), "line 2: miou is '1e999'; expected a number"),
        (HEADER + ROW.replace("streets", ""), "line 2: suite is empty"),
        (HEADER + "streets,random\n", "line 2: fewer cells than the header's 8"),
        (HEADER + ROW.replace("0.25", "0,25"), "line 2: more cells than the header's 8"),
        (HEADER + ROW.replace("0.25", "25.0"), "miou is '25.0'; expected a number from 0 to 1"),
        (HEADER + ROW.replace("5.0,", "-5.0,"), "clicks_per_image is '-5.0'; expected a number"),
        (HEADER + ROW.replace("5.0,", "nan,"), "clicks_per_image is 'nan'; expected a number"),
        (HEADER + ROW.replace("5.0,", ","), "line 2: clicks_per_image is empty"),
        (
            HEADER + ROW + ROW.replace("baseline", "member").replace(",0,5.0", ",1,5.0"),
            "line 3: random, seed 0, is a member and was a baseline above",
        ),
        (
            HEADER + ROW + ROW.replace("random", "margin"),
            "line 3: margin is a baseline of streets, and so is random; expected one",
        ),
        (HEADER + "x" * 200_000, "c.csv, after line 1: field larger than field limit"),
    ],
)
def test_other_tables_are_refused(text, expected):
    with pytest.raises(DataError) as caught:
        read_curves(text, "c.csv")
    assert expected in str(caught.value)
