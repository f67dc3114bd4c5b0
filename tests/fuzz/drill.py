"""The drill: ``python -m tests.fuzz.drill``; foreign bytes and edited runs, one table.

Exits with 1 at any failure.

Counts are for the whole drill (`make drill`); $MADBAL_DRILL scales them. A case's name, printed
where it fails, is its seed: the same one is made again by ``--only NAME``.
"""

import argparse
import collections
import faulthandler
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz import archives, configurations, edits, images

COUNTS = {"images": 12_000, "archives": 3_600, "configurations": 2_400, "edits": 320}
SECONDS = {"edits": 60.0}
SECONDS_ELSE = 5.0
"""Of the processor: a case that takes longer is slow; some edits make a resume train again."""
HANGS = 60.0
"""Seconds, and ten times as many for edits."""
FATAL = ("wrong", "traceback", "slow")


def cases(kind, seed, count, folder):
    """Yield (name, function that judges the case)."""
    if kind == "images":
        for name, what, original, data in images.cases(seed, count):
            yield name, lambda a=(what, original, data): images.check(*a)
    elif kind == "archives":
        for name, what, _, data in archives.cases(seed, count):
            yield name, lambda a=(what, data): archives.check(*a, folder)
    elif kind == "edits":
        run = edits.finished_run(Path(folder) / "original")
        for case in edits.cases(seed, count):
            yield case[0], lambda a=case: edits.check(run, *a, folder)
    else:
        for name, loader, data in configurations.cases(seed, count):
            yield name, lambda a=(loader, data): configurations.check(*a, folder)


def judge(kind, seed, count, folder, *, before=lambda name: None):
    """Return how many cases came out how, and (name, what happened) of the failures."""
    outcomes, failures = collections.Counter(), []
    for name, case in cases(kind, seed, count, folder):
        before(name)
        started = time.process_time()
        try:
            outcome = case()
        except Exception:
            outcome = "traceback"
            failures.append((name, traceback.format_exc(limit=-3)))
        if outcome == "wrong":
            failures.append(
                (name, "read as something else, lost, unnoticed, or a message that is no sentence")
            )
        most = SECONDS.get(kind, SECONDS_ELSE)
        if time.process_time() - started > most:
            outcome = "slow"
            failures.append((name, f"took more than {most} s of the processor"))
        outcomes[outcome] += 1
    return outcomes, failures


def _in_child(kind, seed, count, folder, last, results):
    warnings.simplefilter("ignore")
    faulthandler.enable()

    def note(name):
        Path(last).write_text(name)

    results.put(judge(kind, seed, count, Path(folder), before=note))


def run(kind, seed, count, folder):
    """Judge cases in a child process, whose death is a finding; return outcomes and failures."""
    context = multiprocessing.get_context("spawn")
    results, last = context.Queue(), folder / "last.txt"
    child = context.Process(
        target=_in_child, args=(kind, seed, count, str(folder), str(last), results)
    )
    child.start()
    while True:
        try:
            found = results.get(timeout=1.0)
            child.join()
            return found
        except Exception:  # queue.Empty
            hangs = 10 * HANGS if kind == "edits" else HANGS
            stuck = last.exists() and time.time() - last.stat().st_mtime > hangs
            if child.is_alive() and not stuck:
                continue
            child.kill()
            name = last.read_text() if last.exists() else "none"
            how = "hung for a minute" if stuck else f"ended the process ({child.exitcode})"
            return collections.Counter(crash=1), [(name, how)]


def main():
    """Run the drill and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=float(os.environ.get("MADBAL_DRILL", "1")))
    parser.add_argument("--only", help="one case by name, as it is printed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        if options.only:
            kind = next(kind for kind in COUNTS if options.only.startswith(kind[:-1]))
            seed, index = map(int, options.only.split("-")[1:])
            for name, case in cases(kind, seed, index + 1, Path(place)):
                if name == options.only:
                    print(name, case())
            return
        failed = 0
        print(f"{'tried':>24} {'seconds':>8}  outcomes")
        for kind, count in COUNTS.items():
            folder = Path(place) / kind
            folder.mkdir()
            started = time.time()
            scaled = max(1, round(count * options.scale))
            outcomes, failures = run(kind, options.seed, scaled, folder)
            shown = ", ".join(f"{value} {name}" for name, value in sorted(outcomes.items()))
            shown += "".join(f", 0 {name}" for name in (*FATAL, "crash") if name not in outcomes)
            print(f"{scaled:>8} {kind:>15} {time.time() - started:8.1f}  {shown}", flush=True)
            for name, what in failures[:20]:
                print(f"  {name}: {what}", file=sys.stderr)
            failed += len(failures)
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
