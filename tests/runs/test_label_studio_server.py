"""A real Label Studio server on loopback: what it is given, what people say in it, what comes back.

`make test-labelstudio` installs it into a folder of its own; another one is named by the variable
``MADBAL_LABEL_STUDIO``.
"""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.runs.hand_made import CLASSES, six_queries, take, written

PROGRAM = Path(os.environ.get("MADBAL_LABEL_STUDIO", ".labelstudio/bin/label-studio"))
TOKEN = "0123456789abcdef0123456789abcdef01234567"
DEADLINE = 1200.0
"""Seconds: a first start makes a database in some hundred steps."""


class Server:
    """The server's interface, by the token of its only user."""

    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}"

    def call(self, path, body=None):
        """Return the answer to GET, or to POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)

    def project(self, config, tasks):
        """Return a new project with tasks, as (its number, its tasks in order)."""
        said = {"title": "madbal", "label_config": config.read_text()}
        number = self.call("/api/projects", said)["id"]
        taken = self.call(f"/api/projects/{number}/import", json.loads(tasks.read_text()))
        assert taken["task_count"] == len(json.loads(tasks.read_text()))
        found = self.call(f"/api/tasks?project={number}&page_size=100&fields=all")["tasks"]
        return number, sorted(found, key=lambda task: task["id"])

    def annotate(self, task, results, **more):
        """Answer a task, as its page does."""
        return self.call(f"/api/tasks/{task['id']}/annotations", {"result": results, **more})

    def export(self, number, path):
        """Write what the project's export button gives."""
        path.write_text(json.dumps(self.call(f"/api/projects/{number}/export?exportType=JSON")))
        return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not PROGRAM.is_file():
        pytest.skip(f"Label Studio is not installed ({PROGRAM}): make test-labelstudio")
    folder = tmp_path_factory.mktemp("labelstudio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(PROGRAM.absolute()), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    words += ["--port", str(port), "--data-dir", str(folder / "data"), "--username"]
    words += ["ada@example.org", "--password", "a long one", "--user-token", TOKEN]
    quiet = {"COLLECT_ANALYTICS": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [*words, "--enable-legacy-api-token"],
            cwd=folder,
            env=environment | quiet | {"DJANGO_DB": "sqlite"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield _ready(Server(port), process, folder / "log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _ready(server, process, log):
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends and process.poll() is None:
        try:
            server.call("/api/projects")
            return server
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"Label Studio did not start:\n{log.read_text()[-3000:]}")


@pytest.mark.labelstudio
@pytest.mark.timeout(2 * DEADLINE)
def test_crops_go_in_and_answers_come_back(server, asked, tmp_path):
    tasks = written(asked, tmp_path / "ask.json", "label-studio")
    number, found = server.project(tmp_path / "ask.config.xml", tasks)
    assert [task["data"]["query_id"] for task in found] == [f"q{index}" for index in range(6)]
    for task, word in zip(found, [*CLASSES, "void"], strict=False):
        chosen = {"from_name": "class", "to_name": "image", "type": "choices"}
        server.annotate(task, [{**chosen, "value": {"choices": [word]}}], lead_time=2.5)
    server.annotate(found[4], [], was_cancelled=True, lead_time=1)
    report = take(asked, server.export(number, tmp_path / "back.json"), "label-studio")
    assert report.refused == ()
    rows = {row.query_id: row for row in asked.answers()}
    said = {query: (row.status, row.class_name) for query, row in rows.items()}
    assert said == {
        **{f"q{index}": ("labelled", name) for index, name in enumerate(CLASSES)},
        "q3": ("void", None),
        "q4": ("skipped", None),
    }
    assert [rows[f"q{index}"].milliseconds for index in range(5)] == [2500] * 4 + [1000]
    assert {row.annotator for row in rows.values()} == {"user 1"}


@pytest.mark.labelstudio
@pytest.mark.timeout(2 * DEADLINE)
def test_keypoints_go_in_and_answers_come_back(server, asked, tmp_path):
    tasks = written(asked, tmp_path / "ask.json", "label-studio-keypoints")
    number, (task,) = server.project(tmp_path / "ask.config.xml", tasks)
    (prediction,) = server.call(f"/api/tasks/{task['id']}")["predictions"]
    results = prediction["result"]
    for index, (result, word) in enumerate(zip(results, [*CLASSES, "void", "skip"], strict=False)):
        result["id"] = f"copy{index}"  # as the page gives a copied prediction an id of its own
        result["value"]["keypointlabels"] = [word]
    server.annotate(task, results, lead_time=12)
    back = server.export(number, tmp_path / "back.json")
    report = take(asked, back, "label-studio-keypoints")
    assert (report.taken, report.unanswered, report.refused) == (5, 1, ())
    states = asked.states()
    said = [states[f"q{index}"].settled for index in range(5)]
    assert [(one.status, one.class_name) for one in said] == [
        *(("labelled", name) for name in CLASSES),
        ("void", None),
        ("skipped", None),
    ]
    with six_queries(tmp_path / "moved.sqlite") as other:
        document = json.loads(back.read_text())
        document[0]["annotations"][0]["result"][0]["value"]["x"] += 15  # percent: a pixel further
        back.write_text(json.dumps(document))
        moved = take(other, back, "label-studio-keypoints")
        assert (moved.taken, len(moved.refused)) == (4, 1)
