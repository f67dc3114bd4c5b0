"""Run one experiment with a failure at every write point; a script, started by its test.

A fork a file: each child makes one new file and fails at the next, after the temporary file
is there and before the rename. The parent imports everything once and computes nothing, so
that forking is safe.

How it fails: ``kill``: SIGKILL; ``EIO``: the disk refuses the rename; ``ENOSPC``: the disk is
full when half of the file is written. What the disk refuses has to end as one sentence.
"""

import errno
import json
import os
import signal
import stat
import sys
import traceback

import madbal_ray.api as api
from madbal_ray.errors import MadbalError
from madbal_ray.state import retries, storage
from madbal_ray.state.lock import OWNER_NAME

MAX_FAILURES = 600
SENTENCE = 3


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(how: str) -> None:
    code = getattr(errno, how)
    raise OSError(code, os.strerror(code))


def arm(how: str) -> None:
    """Let this process make one new file and fail at the second."""
    append, sync = storage.Folder.append_line, os.fsync
    seen = {"writes": 0, "lines": 0}

    def failing(give):
        """Return what gives a complete file its name: `os.replace`, or `os.link` for a marker."""

        def act(source, target):
            if os.path.basename(target) != OWNER_NAME and not os.path.exists(target):
                seen["writes"] += 1
                if how == "kill" and seen["writes"] == 2:
                    die()
                if how == "EIO" and seen["writes"] >= 2:  # the disk stays as it is
                    refuse(how)
            give(source, target)

        return act

    def failing_append(folder, name, line):
        seen["lines"] += 1
        if how == "kill" and seen["lines"] == 10:  # now and then a torn line comes first
            with open(folder.local_path / name, "ab") as sink:
                sink.write(line[: len(line) // 2].encode())
            die()
        append(folder, name, line)

    def failing_sync(file):
        if how == "ENOSPC" and seen["writes"] >= 1 and stat.S_ISREG(os.fstat(file).st_mode):
            os.ftruncate(file, os.fstat(file).st_size // 2)
            refuse(how)
        sync(file)

    retries.PAUSE_SECONDS = 0.0  # what fails for good need not be waited for
    os.replace, os.link, os.fsync = failing(os.replace), failing(os.link), failing_sync
    storage.Folder.append_line = failing_append


def child(config: dict, run_dir: str, how: str) -> int:
    """Return the exit status: `SENTENCE` where the error is one that is made for users."""
    arm(how)
    try:
        api.run(config, run_dir=run_dir, engine="local")
    except MadbalError as error:
        said = str(error)
        is_sentence = how != "kill" and os.strerror(getattr(errno, how)) in said
        print(said, file=sys.stderr)
        return SENTENCE if is_sentence and "\n" not in said else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    config, run_dir, how = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    failures = 0
    while failures < MAX_FAILURES:
        pid = os.fork()
        if pid == 0:
            os._exit(child(config, run_dir, how))
        _, status = os.waitpid(pid, 0)
        is_expected = (
            os.WIFSIGNALED(status) if how == "kill" else os.WEXITSTATUS(status) == SENTENCE
        )
        if not is_expected:
            print(json.dumps({"failures": failures, "exit": os.waitstatus_to_exitcode(status)}))
            return
        failures += 1
    raise SystemExit(f"still not finished after {failures} failures")


if __name__ == "__main__":
    main()
