"""A real server process of a hand-made store, without a run."""

import functools
import multiprocessing
import re
from pathlib import Path

from madbal_ray.annotate.correction import Correction
from madbal_ray.annotate.listen import listen, only_server
from madbal_ray.errors import DataError
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_desk, picture_bytes

LINK = re.compile(r"(\w+): (http://127\.0\.0\.1:(\d+)/\?token=\S+)")
START_SECONDS = 120
FORKS = multiprocessing.get_context("forkserver")
"""Processes that find the server imported: a start takes milliseconds."""
FORKS.set_forkserver_preload(["madbal_ray.annotate.listen", "uvicorn.lifespan.on"])


class LightServer:
    """Started when made; `links` by annotator.

    Args:
        predicted: class shown with every query but a share `blind` of them.

    An image is refused while a file of its name lies beside the store.
    """

    def __init__(self, path, *, port=0, overlap=0.0, predicted=None, blind=0.0):
        heard, said = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(
            target=_main,
            args=(str(path), port, overlap, predicted, blind, said),
            daemon=True,  # a test that fails before `kill` ends all the same
        )
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


def _read(folder, uri):
    if (folder / uri).exists():
        raise DataError(f"{uri}: it holds something else")
    return picture_bytes(uri)


def _main(path, port, overlap, predicted, blind, said):
    with AnswerStore.open(path) as store, only_server(store.path):
        names = {query.query_id: predicted for query in store.queries()}
        correction = None if predicted is None else Correction(lambda _: names, blind=blind)
        read = functools.partial(_read, Path(path).parent)
        desk = made_desk(store, overlap=overlap, correction=correction, read=read)
        listen(desk, port=port, say=said.send)
