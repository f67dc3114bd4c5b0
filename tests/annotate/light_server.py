"""A real server process of a hand-made store, without a run: `python -m ... STORE PORT OVERLAP`."""

import re
import subprocess
import sys
from pathlib import Path

from madbal_ray.annotate.listen import listen, only_server
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_desk

LINK = re.compile(r"(\w+): (http://127\.0\.0\.1:(\d+)/\?token=\S+)")


class LightServer:
    """Started when made; `links` by annotator."""

    def __init__(self, path, *, port=0, overlap=0.0):
        command = [sys.executable, "-m", __name__, str(path), str(port), str(overlap)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        self.links = {}
        while len(self.links) < 2:
            line = self.process.stdout.readline()
            found = LINK.match(line)
            assert found, f"the server said {line!r}"
            self.links[found[1]] = found[2]
            self.port = int(found[3])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def main(path, port, overlap):
    with AnswerStore.open(path) as store, only_server(store.path):
        desk = made_desk(store, overlap=float(overlap))
        listen(desk, port=int(port), say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
