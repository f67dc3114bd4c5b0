"""A real SLURM on loopback: Debian's slurm-wlm, one controller and two nodes of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
START_SECONDS = 60

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
MpiDefault=none
NodeName=DEFAULT CPUs={cpus} RealMemory=3000 Gres=gpu:1 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacks() -> list[str]:
    """Return the programs of SLURM that are not installed here."""
    return [name for name in DAEMONS if shutil.which(name) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start SLURM; yield the environment in which its commands reach it.

    Both nodes have all of this machine's processors and one GPU that is not there.
    """
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    text = CONFIGURATION.format(
        host=socket.gethostname().split(".")[0],
        user=subprocess.run(
            ["id", "-un"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        folder=folder,
        ports=_free_ports(3),
        cpus=os.cpu_count(),
    )
    (folder / "slurm.conf").write_text(text)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    conf = ["-f", str(folder / "slurm.conf")]
    munge = [f"--{name}={folder}/munge.{end}" for name, end in (
        ("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"),
        ("seed-file", "seed"),
    )]  # fmt: skip
    try:
        _start(["munged", *munge, "--force", "--num-threads=1"], environment)
        _start(["slurmctld", *conf], environment)
        for node in ("n1", "n2"):
            _start(["slurmd", "-N", node, *conf], environment)
        _wait_for_nodes(environment, folder)
        yield environment
    finally:
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munge"):
            _end(folder / f"{name}.pid")


def _start(command: list[str], environment: dict[str, str]) -> None:
    """Start a daemon; it puts itself into the background."""
    subprocess.run(
        command,
        env=environment,
        check=True,
        timeout=START_SECONDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a pipe would stay open as long as the daemon lives
    )


def _wait_for_nodes(environment: dict[str, str], folder: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    states: list[str] = []
    while time.monotonic() < ends:
        done = subprocess.run(
            ["sinfo", "-hN", "-o", "%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        states = done.stdout.split()
        if states == ["idle", "idle"]:
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("slurm*.log"))
    raise AssertionError(f"SLURM's nodes are {states} after {START_SECONDS} s:\n{logs}")


def _end(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
