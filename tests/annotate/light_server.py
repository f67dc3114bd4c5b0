"""A real server process of a hand-made store, without a run."""

import multiprocessing
import re

from madbal_ray.annotate.correction import Correction
from madbal_ray.annotate.listen import listen, only_server
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_desk

LINK = re.compile(r"(\w+): (http://127\.0\.0\.1:(\d+)/\?token=\S+)")
START_SECONDS = 120
FORKS = multiprocessing.get_context("forkserver")
"""Processes that find the server imported: a start takes milliseconds."""
FORKS.set_forkserver_preload(["madbal_ray.annotate.listen", "uvicorn.lifespan.on"])


class LightServer:
    """Started when made; `links` by annotator; `predicted`: class shown with every query."""

    def __init__(self, path, *, port=0, overlap=0.0, predicted=None):
        heard, said = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=_main, args=(str(path), port, overlap, predicted, said))
        self.process.start()
        said.close()
        self.links = {}
        while len(self.links) < 2:
            assert heard.poll(START_SECONDS), "the server says nothing"
            line = heard.recv()
            found = LINK.match(line)
            assert found, f"the server said {line!r}"
            self.links[found[1]] = found[2]
            self.port = int(found[3])
        self._heard = heard

    def kill(self):
        self.process.kill()
        self.process.join()
        self._heard.close()


def _main(path, port, overlap, predicted, said):
    with AnswerStore.open(path) as store, only_server(store.path):
        names = {query.query_id: predicted for query in store.queries()}
        correction = None if predicted is None else Correction(lambda _: names, blind=0)
        listen(made_desk(store, overlap=overlap, correction=correction), port=port, say=said.send)
