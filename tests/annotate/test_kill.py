"""The server is killed while answers stream in: none that it confirmed is lost, none is doubled."""

import random
import threading
import time

import httpx2
import pytest

from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_store, said
from tests.annotate.light_server import LightServer


class Typist(threading.Thread):
    """Leases and answers as the page does: sends an answer until it is confirmed."""

    def __init__(self, name, link, stop):
        super().__init__(daemon=True)
        self.name, self.home = name, link.partition("/?")[0]
        self.client = httpx2.Client(base_url=self.home, timeout=5, trust_env=False)
        assert self.client.get(link).status_code == 200
        self.stop = stop
        self.confirmed = {}
        self.trouble = None

    def post(self, path, message):
        headers = {"Origin": self.home, "X-Madbal": "1", "X-Annotator": self.name}
        while True:
            try:
                reply = self.client.post(path, json=message, headers=headers)
            except httpx2.TransportError:
                time.sleep(0.01)
                continue
            assert reply.status_code == 200, reply.text
            return reply.json()

    def run(self):
        try:
            while not self.stop.is_set():
                for query in self.post("/api/lease", {"have": []})["queries"]:
                    answer = said(query["query_id"])
                    (revision,) = self.post("/api/answers", {"answers": [answer]})["revisions"]
                    self.confirmed[answer["uuid"]] = (answer["query_id"], revision)
        except BaseException as error:  # told by the test, in its own thread
            self.trouble = error


def drill(folder, kills):
    path = folder / "answers.sqlite"
    made_store(path, images=10 * kills, each=16).close()
    drawn = random.Random(5)
    server = LightServer(path)
    stop = threading.Event()
    typists = [Typist(name, server.links[name], stop) for name in ("ada", "bob")]
    for typist in typists:
        typist.start()
    before = 0
    for _ in range(kills):
        deadline = time.monotonic() + 60
        while sum(len(typist.confirmed) for typist in typists) < before + 10:
            assert all(typist.trouble is None for typist in typists), typists
            assert time.monotonic() < deadline, "no answers come"
            time.sleep(0.005)
        time.sleep(drawn.uniform(0, 0.05))
        server.kill()
        before = sum(len(typist.confirmed) for typist in typists)
        server = LightServer(path, port=server.port)
    stop.set()
    for typist in typists:
        typist.join(60)
        assert not typist.is_alive()
        assert typist.trouble is None
    server.kill()
    with AnswerStore.open(str(path)) as store:
        stored = {answer.uuid: (answer.query_id, answer.revision) for answer in store.answers()}
        count = len(store.answers())
    confirmed = typists[0].confirmed | typists[1].confirmed
    lost = {uuid for uuid in confirmed if stored.get(uuid) != confirmed[uuid]}
    doubled = count - len({query_id for query_id, _ in stored.values()})
    print(f"{kills} kills: {len(confirmed)} confirmed, {len(lost)} lost, {doubled} doubled")
    assert len(confirmed) >= 10 * kills
    assert (len(lost), doubled) == (0, 0)


def test_confirmed_answers_outlive_the_server(tmp_path):
    drill(tmp_path, kills=2)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_confirmed_answers_outlive_a_hundred_servers(tmp_path):
    drill(tmp_path, kills=100)
