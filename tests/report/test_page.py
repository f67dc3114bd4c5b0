"""The report's page, looked at in a real browser, and its numbers."""

import shutil

import pandas as pd
import pytest

from madbal_ray import api

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def report(tiny_suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    warnings: list[str] = []
    results, written = api.report([str(tiny_suite)], out=out, warn=warnings.append)
    assert warnings == []
    assert all(path.stat().st_size > 0 for path in written)
    return results, out


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
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
    assert len(sizes) > 20
    for natural, width, height, alt in sizes:
        assert natural > 0, alt
        assert width > 20, alt
        assert height > 10, alt
        assert alt
        assert width <= viewport["width"], alt
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, "the page scrolls sideways"
    charts = page.eval_on_selector_all("img.chart", "all => all.map(i => i.clientWidth)")
    assert min(charts) > 0.55 * min(viewport["width"], 500)
    headings = page.eval_on_selector_all("h2", "all => all.map(h => h.textContent)")
    assert headings == [
        "What came out",
        "Class by class",
        "What was asked",
        "What the networks saw",
        "What it cost",
        "Protocol",
    ]
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
