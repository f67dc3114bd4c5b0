"""`madbal annotate` on a run that waits: its answers are the run's, its refusals are sentences."""

import re
import shutil
import socket

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import madbal_ray
from madbal_ray.annotate import listen, serve
from madbal_ray.cli import main
from madbal_ray.errors import LockedError, ResourceError, RunDirError
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import said
from tests.people import people_config, truth, waiting_run

BOX = ((0, min), (1, min), (2, max), (3, max))


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    return waiting_run(tmp_path_factory.mktemp("annotate"))


def test_a_picture_that_changed_since_it_was_inspected_is_refused(waiting, tmp_path, monkeypatch):
    """The pixel was chosen on the other one: an answer about this one would be a wrong label."""
    shutil.copytree(waiting[0].parent, tmp_path / "copy")
    first, *others = sorted((waiting[0].parent / "pictures" / "images").iterdir())
    lines, replies = [], {}

    def annotate(server, sockets):
        link = re.fullmatch(r"ada: (http://127\.0\.0\.1:\d+)(/\?token=\S+)", lines[0])
        client = TestClient(server.config.app, base_url=link[1])
        client.get(link[2])
        headers = {"Origin": link[1], "X-Madbal": "1", "X-Annotator": "ada"}
        have = []
        while given := client.post("/api/lease", json={"have": have}, headers=headers).json()[
            "queries"
        ]:
            have += [query["query_id"] for query in given]
            for kind in ("crop.png", "whole.jpg"):
                reply = client.get(f"/images/{given[0]['query_id']}/{kind}")
                replies[given[0]["image_id"], kind] = reply

    monkeypatch.setattr(listen.uvicorn.Server, "run", annotate)
    before = first.read_bytes()
    try:
        first.write_bytes(others[0].read_bytes())
        serve.serve(str(tmp_path / "copy" / "run"), annotators=["ada"], port=0, say=lines.append)
    finally:
        first.write_bytes(before)
    assert {key: reply.status_code for key, reply in replies.items()} == {
        (f"images/{path.name}", kind): 503 if path == first else 200
        for path in (first, *others)
        for kind in ("crop.png", "whole.jpg")
    }
    assert (
        replies[f"images/{first.name}", "crop.png"]
        .json()["error"]
        .startswith(
            f"the server cannot read it: images/{first.name}: {first} was fine when the pool was "
            "prepared and is not now (it holds something else); restore it"
        )
    )


def test_what_is_typed_on_the_page_carries_the_run_on(waiting, monkeypatch):
    """The page's requests to the app that the command serves, in this process."""
    run_dir, masks, names = waiting
    said_lines, counts = [], []

    def annotate(server, sockets):
        assert sockets[0].proto == socket.IPPROTO_TCP  # or replies wait 40 ms for a receipt
        link = re.fullmatch(r"ada: (http://127\.0\.0\.1:\d+)(/\?token=\S+)", said_lines[0])
        client = TestClient(server.config.app, base_url=link[1])
        assert client.get(link[2]).status_code == 200
        headers = {"Origin": link[1], "X-Madbal": "1", "X-Annotator": "ada"}
        with AnswerStore.open(str(run_dir / "answers.sqlite")) as store:
            queries = {query.query_id: query for query in store.queries()}
        while given := client.post("/api/lease", json={}, headers=headers).json()["queries"]:
            assert len({query["image_id"] for query in given}) == 1
            answers = []
            for query in given:
                status, name = truth(queries[query["query_id"]], masks, names)
                answers.append(said(query["query_id"], status, name))
                assert (query["height"], query["width"]) == (48, 64)
                assert client.get(f"/images/{query['query_id']}/crop.png").status_code == 200
                border = client.get(f"/api/outline/{query['query_id']}").json()["segments"]
                left, top, right, bottom = (f(one[i] for one in border) for i, f in BOX)
                assert left <= query["x"] < right <= 64
                assert top <= query["y"] < bottom <= 48
            reply = client.post("/api/answers", json={"answers": answers}, headers=headers)
            counts.append(reply.json()["waiting"])
        with pytest.raises(LockedError, match="has a server already"):
            serve.serve(str(run_dir), annotators=["bob"], port=0)

    monkeypatch.setattr(listen.uvicorn.Server, "run", annotate)
    serve.serve(str(run_dir), annotators=["ada"], port=0, say=said_lines.append)
    assert counts == [25, 20, 15, 10, 5, 0]
    done = madbal_ray.run(
        people_config(waiting[0].parent / "pictures", num_rounds=1), run_dir=run_dir, engine="local"
    )
    labels = done.table("labels").to_pandas()
    assert len(labels) == 30
    for row in labels.to_dict("records"):
        value = masks[row["image_id"]][row["image_y"], row["image_x"]]
        assert row["status"] == ("void" if value == 255 else "labelled")
        assert value == 255 or row["class_id"] == value
    assert done.minutes_of_people() == {0: pytest.approx(30 * 1.5 / 60)}


def test_a_port_that_is_taken_is_told(waiting):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ResourceError, match="choose one with --port"):
            serve.serve(str(waiting[0]), annotators=["ada"], port=other.getsockname()[1])


def test_a_run_that_asks_nobody_has_no_page(tiny_run):
    with pytest.raises(RunDirError, match="asks nobody"):
        serve.serve(str(tiny_run.run_dir), annotators=["ada"])


def test_an_annotator_has_a_name(waiting):
    result = CliRunner().invoke(main, ["annotate", str(waiting[0]), "--annotator", "a\nb"])
    assert result.exit_code == 2
    assert "expected 1 to 200 printable characters" in result.output


def test_the_page_travels_with_the_package():
    """What the wheel takes (pyproject's package-data) is every file of the page."""
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        path
        for pattern in patterns["package-data"]["madbal_ray"]
        for path in (root / "madbal_ray").glob(pattern)
    }
    page = set((root / "madbal_ray" / "annotate" / "page").iterdir())
    assert page <= listed
    for path in page:
        for name in re.findall(r'"(?:\./|/page/)([a-z]+\.[a-z]+)"', path.read_text()):
            assert path.with_name(name) in page, f"{path.name} names {name}"
        assert "://" not in path.read_text().replace("http://www.w3.org/2000/svg", "")
