"""The documents as a site, and the notebooks among them: built and run as users would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    told = subprocess.run(
        [
            sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file",
            str(ROOT / "docs/site/mkdocs.yml"), "--site-dir", str(folder),
        ],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr  # strict: a dead link is an error
    return folder


def test_every_document_is_a_page(site):
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").stat().st_size > 5_000, path.name
    start = (site / "index.html").read_text()
    assert 'href="your-own-images.html"' in start
    assert 'href="https://ray.io"' in start


def test_links_lead_to_pages_and_not_into_the_repository(site):
    for page in set(site.glob("*.html")) - {site / "404.html"}:  # that one is for a server
        text = page.read_text()
        for target in re.findall(r'href="([^"#:]+)(?:#[^"]*)?"', text):
            assert (page.parent / target).exists() or target in (".", ".."), (page.name, target)


def test_it_fetches_nothing(site):
    for page in site.glob("*.html"):
        found = re.findall(r'(?:src|srcset)="https?:|<link[^>]+href="https?:', page.read_text())
        assert not found, page.name


def test_the_reference_has_what_a_notebook_calls(site):
    text = (site / "reference.html").read_text()
    for name in ("api.run", "api.predict", "api.export", "runs.run.Run.table", "errors.DataError"):
        assert f'id="madbal_ray.{name}"' in text, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)  # they would grow old
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    text = "".join(str(output) for cell in book.cells for output in cell.get("outputs", []))
    assert "verified: 2 of 2 rounds" in text or "smallest_visible" in text
