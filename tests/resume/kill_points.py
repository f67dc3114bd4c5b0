"""Run one experiment with a SIGKILL at every write point; a script, started by its test.

A fork a file: each child makes one new file and is killed inside the next, after the
temporary file is there and before the rename. The parent imports everything once and
computes nothing, so that forking is safe.
"""

import json
import os
import signal
import sys

import madbal_ray.api as api
from madbal_ray.state import storage
from madbal_ray.state.lock import OWNER_NAME

MAX_KILLS = 400


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Let this process make one new file and die inside the second."""
    rename, append = os.replace, storage.Folder.append_line
    seen = {"writes": 0, "lines": 0}

    def killing_rename(source, target):
        if os.path.basename(target) != OWNER_NAME and not os.path.exists(target):
            seen["writes"] += 1
            if seen["writes"] == 2:
                die()
        rename(source, target)

    def killing_append(folder, name, line):
        seen["lines"] += 1
        if seen["lines"] == 9:  # now and then a torn line comes first
            with open(folder.local_path / name, "ab") as sink:
                sink.write(line[: len(line) // 2].encode())
            die()
        append(folder, name, line)

    os.replace = killing_rename
    storage.Folder.append_line = killing_append


def main() -> None:
    config, run_dir = json.loads(sys.argv[1]), sys.argv[2]
    kills = 0
    while kills < MAX_KILLS:
        child = os.fork()
        if child == 0:
            arm()
            api.run(config, run_dir=run_dir, engine="local")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(json.dumps({"kills": kills, "exit": os.WEXITSTATUS(status)}))
            return
        kills += 1
    raise SystemExit(f"still not finished after {kills} kills")


if __name__ == "__main__":
    main()
