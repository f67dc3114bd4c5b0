"""Many annotators at one server: `python -m tests.annotate.load --minutes 5`.

A store of 100,000 queries and 20 simulated annotators, each a session of its own that leases and
answers over HTTP and thinks for half a second in between, which is twice as fast as quick people
are. Times are the server's (from the call to the commit, waiting for each other included) and the
clients' (the round trip, with HTTP and this machine's other work in it).
"""

import argparse
import asyncio
import os
import random
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import httpx2
import numpy as np

from madbal_ray.annotate.desk import Desk
from madbal_ray.annotate.listen import listen, only_server
from madbal_ray.annotate.shares import is_asked_twice
from madbal_ray.annotate.work_queue import OVERLAP
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_desk, made_store, said
from tests.annotate.light_server import FORKS

EACH = 12
THINK_SECONDS = 0.5


class TimedDesk(Desk):
    """Notes how long leases and commits took."""

    times: ClassVar = {"lease": [], "commit": []}

    def lease(self, annotator, have):
        started = time.perf_counter()
        found = super().lease(annotator, have)
        self.times["lease"].append(time.perf_counter() - started)
        return found

    def record(self, annotator, message):
        started = time.perf_counter()
        found = super().record(annotator, message)
        self.times["commit"].append(time.perf_counter() - started)
        return found


def serve(path, names, said_lines, results):
    """Serve until interrupted, then hand the times over."""
    with AnswerStore.open(path) as store, only_server(store.path):
        desk = made_desk(store, annotators=names, overlap=OVERLAP, kind=TimedDesk)
        try:
            listen(desk, port=0, say=said_lines.send)
        except KeyboardInterrupt:
            results.send(TimedDesk.times)


async def annotate(name, link, until, round_trips):
    """Lease and answer until the time is over."""
    drawn, home = random.Random(name), link.partition("/?")[0]
    headers = {"Origin": home, "X-Madbal": "1", "X-Annotator": name}
    async with httpx2.AsyncClient(base_url=home, timeout=60, trust_env=False) as client:
        assert (await client.get(link)).status_code == 200

        async def post(kind, path, message):
            started = time.perf_counter()
            reply = await client.post(path, json=message, headers=headers)
            round_trips[kind].append(time.perf_counter() - started)
            assert reply.status_code == 200, reply.text
            return reply.json()

        while time.monotonic() < until:
            for query in (await post("lease", "/api/lease", {"have": []}))["queries"]:
                await asyncio.sleep(drawn.uniform(0.5, 1.5) * THINK_SECONDS)
                answer = {"answers": [said(query["query_id"])]}
                await post("commit", "/api/answers", answer)
                if time.monotonic() > until:
                    break


async def watch(pid, until, memory):
    """Note the server's memory every ten seconds, in MiB."""
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text()
        memory.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024)
        await asyncio.sleep(10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    asked = parser.parse_args()
    names = [f"annotator-{index}" for index in range(asked.annotators)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.sqlite"
        made_store(path, images=-(-asked.queries // EACH), each=EACH).close()
        heard, said_lines = FORKS.Pipe(duplex=False)
        found, results = FORKS.Pipe(duplex=False)
        server = FORKS.Process(target=serve, args=(str(path), names, said_lines, results))
        server.start()
        links = dict(heard.recv().split(": ", 1) for _ in names)
        round_trips, memory = {"lease": [], "commit": []}, []
        until = time.monotonic() + 60 * asked.minutes

        async def everybody():
            workers = [annotate(name, links[name], until, round_trips) for name in names]
            await asyncio.gather(watch(server.pid, until, memory), *workers)

        asyncio.run(everybody())
        os.kill(server.pid, signal.SIGINT)
        times = found.recv()
        server.join(30)
        with AnswerStore.open(str(path)) as store:
            answers = store.answers()
    show(times, round_trips, memory, answers)


def show(times, round_trips, memory, answers):
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for kind, limit in (("lease", 10), ("commit", 25)):
        for where, values in (("server", times[kind]), ("round trip", round_trips[kind])):
            p50, p95, p99 = 1000 * np.percentile(values, [50, 95, 99])
            print(
                f"{kind:7} {where:10} n {len(values):6}  p50 {p50:7.2f} ms  p95 {p95:7.2f} ms  "
                f"p99 {p99:7.2f} ms" + (f"  (idle: at most {limit} ms)" * (where == "server"))
            )
    said_by = {}
    for answer in answers:
        said_by.setdefault(answer.query_id, []).append(answer.annotator)
    beyond = {
        query_id: who
        for query_id, who in said_by.items()
        if len(who) > (2 if is_asked_twice(query_id, OVERLAP) else 1)
    }
    print(f"answers {len(answers)}, queries {len(said_by)}, answered beyond the overlap {beyond}")
    print("memory  MiB " + " ".join(f"{one:.0f}" for one in memory))
    assert not beyond


if __name__ == "__main__":
    main()
