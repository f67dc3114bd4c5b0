"""Change one line of the package at a time and see that a test notices: `make mutants`.

The files `mutants*.toml` beside this one list the changes (kernels; what joins them). Under
``[tests]`` each set of tests has a name; each ``[[mutant]]`` holds

    file        path below the repository
    find        text that occurs exactly once in it
    replace     what stands there instead
    tests       name of the set that must notice
    equivalent  optional: why no test can; such a mutant must survive

The tree is copied to a temporary folder, once for each job; nothing here is touched. Every
set must pass unchanged first. The exit code is 1 when a mutant survives that is not declared
equivalent, when a declared one is noticed, when an entry does not match its file, or when a
mutant breaks the program instead of making a test fail (then it proves nothing).
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = sorted(Path(__file__).parent.glob("mutants*.toml"))
COPIED = ("madbal_ray", "tests", "experiments", "pyproject.toml")
TIMEOUT_SECONDS = 240.0
FORKS = multiprocessing.get_context("forkserver")
"""Processes that find these modules imported, which takes longer than most tests."""
PRELOADED = ["cv2", "pyarrow.parquet", "pydantic", "pytest"]
PRELOADED += ["sklearn.cluster", "torch", "torchvision"]
PASSED, FAILED = 0, 1
"""Exit codes of pytest; others mean that no test was judged."""

WRONG = {"SURVIVED", "BROKEN", "NOT EQUIVALENT"}


@dataclass(frozen=True)
class Mutant:
    """One change of one line, and the tests that must notice it."""

    file: str
    find: str
    replace: str
    tests: str
    equivalent: str | None = None

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.find, self.replace))
        return f"{self.file}: {old}  ->  {new or 'nothing'}"


def main() -> int:
    """Run the mutants that the command line chooses; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="entries whose text holds this")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="at once (default: 2)")
    options = parser.parse_args()
    started = time.monotonic()
    contents = [tomllib.loads(path.read_text()) for path in LISTS]
    sets: dict[str, list[str]] = {}
    for content in contents:
        for name, files in content["tests"].items():
            assert name not in sets, f"two lists have a set of tests called {name}"
            sets[name] = files
    every = [Mutant(**entry) for content in contents for entry in content["mutant"]]
    findings = [text for mutant in every for text in _mismatches(mutant, sets)]
    for text in findings:
        print(f"DOES NOT MATCH  {text}")
    if findings:
        return 1
    chosen = [one for one in every if options.only in f"{one} [{one.tests}]"]
    if not chosen:
        print(f"no mutant holds {options.only!r}")
        return 1
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        first = Path(folder) / "0"
        _copy_tree(ROOT, first)
        needed = sorted({mutant.tests for mutant in chosen})
        for name in needed:
            code, output = _run_tests(first, sets[name], writes_bytecode=True)
            if code != PASSED:
                print(f"{output}\nthe tests of [{name}] fail without any mutant")
                return 1
        print(f"{len(needed)} sets of tests pass without a mutant")
        trees = [first, *(Path(folder) / str(job) for job in range(1, options.jobs))]
        for tree in trees[1:]:
            shutil.copytree(first, tree)  # compiled files come along
        results = _run_all(chosen, sets, trees)
    counts = {outcome: list(results.values()).count(outcome) for outcome in dict(results).values()}
    seconds = time.monotonic() - started
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(f"{len(results)} mutants in {seconds:.0f} s: {summary}")
    return int(bool(WRONG & counts.keys()))


def _mismatches(mutant: Mutant, sets: dict[str, list[str]]) -> list[str]:
    path = ROOT / mutant.file
    if not path.is_file():
        return [f"{mutant}: there is no such file"]
    found = []
    source = path.read_text()
    if (count := source.count(mutant.find)) != 1:
        found.append(f"{mutant}: occurs {count} times, expected once")
    else:
        try:
            ast.parse(source.replace(mutant.find, mutant.replace))
        except SyntaxError as error:
            found.append(f"{mutant}: {error}")
    if mutant.tests not in sets:
        found.append(f"{mutant}: [tests] has no set {mutant.tests!r}")
    else:
        files = {test.partition("::")[0] for test in sets[mutant.tests]}
        found += [f"{mutant}: {name} is missing" for name in files if not (ROOT / name).exists()]
    return found


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir()
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy2(source / name, target / name)


def _run_all(
    mutants: list[Mutant], sets: dict[str, list[str]], trees: list[Path]
) -> dict[Mutant, str]:
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def run(mutant: Mutant) -> tuple[str, str]:
        tree = free.get()
        try:
            return _judge(mutant, sets[mutant.tests], tree)
        finally:
            free.put(tree)

    results = {}
    with ThreadPoolExecutor(len(trees)) as pool:
        waiting = {pool.submit(run, mutant): mutant for mutant in mutants}
        for done in as_completed(waiting):
            mutant = waiting[done]
            results[mutant], output = done.result()
            if results[mutant] in WRONG:
                print("\n".join(output.splitlines()[-15:]))
            print(f"{results[mutant]:15} {mutant}", flush=True)
    return results


def _judge(mutant: Mutant, tests: list[str], tree: Path) -> tuple[str, str]:
    path = tree / mutant.file
    source, stat = path.read_text(), path.stat()
    mutated = source.replace(mutant.find, mutant.replace)
    try:
        path.write_text(mutated)
        os.utime(path, (stat.st_atime, stat.st_mtime + 1000))  # so that no cache takes it for old
        with tempfile.TemporaryDirectory() as numba_cache:
            extra = {"NUMBA_CACHE_DIR": numba_cache} if "compiled(" in source else {}
            code, output = _run_tests(tree, tests, **extra)
    finally:
        path.write_text(source)
        os.utime(path, (stat.st_atime, stat.st_mtime))
    if code not in (PASSED, FAILED, None):
        return "BROKEN", output
    if mutant.equivalent is not None:
        return ("equivalent" if code == PASSED else "NOT EQUIVALENT"), output
    return ("SURVIVED" if code == PASSED else "killed"), output


def _run_tests(
    tree: Path, tests: list[str], *, writes_bytecode: bool = False, **environment: str
) -> tuple[int | None, str]:
    """Return pytest's exit code (None: it ran out of time) and what it printed."""
    with tempfile.NamedTemporaryFile("r") as printed:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not kill and not drill", *tests]
        process = FORKS.Process(
            target=_pytest, args=(tree, options, writes_bytecode, environment, printed.name)
        )
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None, printed.read()
        return process.exitcode, printed.read()


def _pytest(
    tree: Path, options: list[str], writes_bytecode: bool, environment: dict[str, str], output: str
) -> None:
    """Run pytest in this process, whose `madbal_ray` is the copy's."""
    with open(output, "w") as sink:
        for descriptor in (1, 2):
            os.dup2(sink.fileno(), descriptor)
    os.environ.update(environment | {"PYTHONPATH": str(tree)})
    os.chdir(tree)
    sys.dont_write_bytecode = not writes_bytecode
    sys.path[0] = str(tree)
    import pytest

    found = importlib.util.find_spec("madbal_ray")
    if found is None or found.origin is None or not Path(found.origin).is_relative_to(tree):
        sys.exit(f"tests would import {found}, not the copy in {tree}")
    sys.exit(pytest.main(options))


if __name__ == "__main__":
    sys.exit(main())
