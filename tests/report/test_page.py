"""The report's page, looked at in a real browser, and its numbers."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from madbal_ray import api
from madbal_ray.report import page_tables

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}
DESKTOP = {"width": 1300, "height": 900}
AXE = Path(__file__).parent / "axe" / "axe.min.js"
MAX_BYTES = 6_000_000


@pytest.fixture(scope="module")
def report(tiny_suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    warnings: list[str] = []
    results, written = api.report([str(tiny_suite)], out=out, warn=warnings.append)
    assert warnings == []
    assert all(path.stat().st_size > 0 for path in written)
    return results, out


@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_page_in_a_browser(report, browser, viewport):
    _, out = report
    page = browser.new_page(viewport=viewport)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((out / "index.html").as_uri())
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    sizes = page.eval_on_selector_all(
        "img", "all => all.map(i => [i.naturalWidth, i.clientWidth, i.clientHeight, i.alt])"
    )
    assert len(sizes) == 3  # a row of superpixels for each cluster
    for natural, width, height, alt in sizes:
        assert natural > 0, alt
        assert width > 20, alt
        assert height > 10, alt
        assert alt
        assert width <= viewport["width"], alt
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, "the page scrolls sideways"
    drawn = page.eval_on_selector_all(
        ".plot", "all => all.map(p => [p.clientWidth, p.querySelectorAll('.main-svg').length])"
    )
    charts = [width for width, layers in drawn]
    assert all(layers for width, layers in drawn), "a chart was not drawn"
    assert min(charts) > 0.55 * min(viewport["width"], 500)
    headings = page.eval_on_selector_all("h2", "all => all.map(h => h.textContent)")
    assert headings == [
        "What to do next",
        "What came out",
        "Class by class",
        "What was asked",
        "Queries in place",
        "The pool at a glance",
        "What it cost",
        "Protocol",
    ]
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_nobody_is_kept_out(report, browser, viewport, theme):
    _, out = report
    page = browser.new_page(viewport=viewport, color_scheme=theme)
    page.goto((out / "index.html").as_uri())
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    assert [
        (one["id"], one["nodes"][0]["html"])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ] == []
    page.close()


def test_a_page_is_small_and_keeps_to_itself(report, browser):
    _, out = report
    assert (out / "index.html").stat().st_size < MAX_BYTES
    page = browser.new_page(viewport=DESKTOP)
    page.goto((out / "index.html").as_uri())
    buttons = page.eval_on_selector_all(
        ".modebar-btn", "all => all.map(b => b.dataset.title || b.getAttribute('aria-label'))"
    )
    assert len(buttons) > 10
    assert not [name for name in buttons if "cloud" in name.lower()]
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))")
    files = [link for link in links if not link.startswith("#")]
    assert len(files) > 30
    assert [link for link in files if not (out / link).is_file()] == []
    assert [link[1:] for link in links if link[0] == "#" and not page.query_selector(link)] == []
    page.close()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_names_of_lines_lie_under_no_button_and_on_no_axis(report, browser, viewport):
    _, out = report
    page = browser.new_page(viewport=viewport, has_touch=True, is_mobile=True)
    page.goto((out / "index.html").as_uri())
    boxes = page.eval_on_selector_all(
        ".plot[data-chart]",
        """all => all.map(plot => ['.legend', '.modebar', '.xtitle'].map(name => {
          const one = plot.querySelector(name);
          return one && (({top, bottom}) => [top, bottom])(one.getBoundingClientRect());
        }))""",
    )
    checked = 0
    for legend, buttons, title in boxes:
        if legend and buttons and title:
            assert buttons[1] <= legend[0] + 1
            assert title[1] <= legend[0] + 1
            checked += 1
    assert checked > 5
    page.close()


def test_lines_can_be_hidden_and_colours_follow_the_button(report, browser):
    _, out = report
    page = browser.new_page(viewport=DESKTOP, color_scheme="light")
    page.goto((out / "index.html").as_uri())
    ink = "document.querySelector('.plot')._fullLayout.font.color"
    assert page.evaluate(ink) == "#1b1b1b"
    page.click(".theme")
    assert page.evaluate(ink) == "#e8e8e8"
    page.click(".plot .legendtoggle >> nth=0")
    visible = "document.querySelector('.plot').data.map(t => t.visible)"
    page.wait_for_function(f"{visible}.includes('legendonly')")
    page.close()


def test_queries_can_be_looked_at_one_by_one(report, browser, tiny_suite):
    import madbal_ray

    _, out = report
    page = browser.new_page(viewport=DESKTOP)
    page.goto((out / "index.html").as_uri())
    images = "#view-plot .imagelayer image"
    assert page.eval_on_selector_all("#view-image option", "all => all.length") == 6
    first = page.eval_on_selector("#view-image option", "one => one.textContent")
    assert first.startswith("most gained: train/")
    assert len(page.query_selector_all(images)) == 1
    for layer in ("prediction", "errors", "score", "truth"):
        page.select_option("#view-layer", layer)
        assert len(page.query_selector_all(images)) == 2
    run = madbal_ray.open_run(tiny_suite / "madbal-seed-0")
    asked = run.table("queries", round=1).to_pandas()
    mine = asked[asked["image_id"] == first.removeprefix("most gained: ")].sort_values("rank")
    rows = "#view-table tbody tr"
    cells = page.eval_on_selector_all(
        rows, "all => all.map(r => [...r.cells].map(c => c.innerText))"
    )
    assert [row[0] for row in cells] == ["1", "2", "3", "4", "5"]
    assert [int(row[3]) for row in cells] == mine["superpixel_id"].tolist()
    assert [int(row[4]) for row in cells] == mine["cluster_id"].tolist()
    known = {*run.class_names, "void"}
    assert {cell for row in cells for cell in row[1:3]} <= known
    assert all("of the round's budget" in row[5] for row in cells)
    page.click(f"{rows} >> nth=2 >> button")
    third = mine.iloc[2]
    shown = page.evaluate("document.getElementById('view-plot')._fullLayout.xaxis.range")
    assert shown[1] - shown[0] < 64
    assert sum(shown) / 2 == pytest.approx(third["x"] + 0.5)
    page.fill("#view-round", "0")
    page.dispatch_event("#view-round", "input")
    said = page.eval_on_selector_all(rows, "all => all.map(r => r.cells[5].innerText)")
    assert said == ["at random, before there was a network"] * 5
    page.close()


def test_numbers_are_those_of_the_runs(report, tiny_suite):
    import madbal_ray

    results, out = report
    summary = pd.read_csv(out / "summary_val.csv").set_index("member")
    for member in ("madbal", "random"):
        runs = [madbal_ray.open_run(tiny_suite / f"{member}-seed-{seed}") for seed in (0, 1)]
        last = [run.metrics()["miou"].iloc[-1] for run in runs]
        assert summary.loc[member, "miou"] == pytest.approx(sum(last) / 2)
        ledger = pd.read_csv(out / "ledger.csv").set_index(["member", "seed"])
        for seed, run in enumerate(runs):
            assert ledger.loc[(member, seed), "num_labels"] == run.table("labels").num_rows
    shown = page_tables.spent(results.ledger()).set_index("member")
    assert shown.index.tolist() == ["madbal", "random", "full_supervision"]
    assert shown["seeds"].tolist() == [2, 2, 2]
    # 6 images, 5 pixels in each of two rounds; all of 48 x 64 pixels.
    assert shown["num_labels"].tolist() == [60, 60, 6 * 48 * 64]
    alone = results.ledger().drop_duplicates("member")
    assert page_tables.spent(alone) is alone
    (everybody, shared), *own = page_tables.protocols(results)
    assert everybody == "of all"
    assert [line.split()[0] for line in shared] == ["data", "grids", "measure"]
    assert [(names, [line.split()[0] for line in lines]) for names, lines in own] == [
        ("madbal", ["network", "budget", "remark"]),
        ("random", ["network", "budget"]),
        ("full_supervision", ["network", "budget"]),
    ]
    shares = pd.read_csv(out / "asked_classes.csv").set_index("member")
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * len(shares))
    assert list(shares.index) == ["random start", "madbal", "random"]
    detection = pd.read_csv(out / "error_detection.csv").set_index("member")
    assert {"chance", "entropy", "margin", "maturity", "predicted_error", "score"} <= set(detection)
    assert detection.loc["random", "maturity"] != detection.loc["random", "maturity"]  # NaN
    assert (detection["entropy"] > 0).all()
    assert results.baseline == "random"


def test_the_same_report_twice_is_the_same_but_for_nothing(report, tiny_suite, tmp_path):
    _, out = report
    api.report([str(tiny_suite)], out=tmp_path / "again", warn=print)
    first, again = ((folder / "index.html").read_text() for folder in (out, tmp_path / "again"))
    assert first == again


def test_a_run_without_its_images_is_reported_without_pictures(tiny_suite, tmp_path):
    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite, folder)
    for image in (folder / "pool" / "synthetic").rglob("train/*.png"):
        image.write_bytes(b"")
    warnings: list[str] = []
    _, written = api.report([str(folder)], out=tmp_path / "out", warn=warnings.append)
    assert written[0].exists()
    assert any("no pictures of madbal" in line for line in warnings)
