"""Pack all that an offline GPU machine needs, in parts that are easy to carry: ``make gpu-kit``.

The kit is one tar, cut: the project (its last commit), wheels of what it needs beyond the packages
that the machine has, data and weights. There: ``cat gpu-kit.tar.* | tar xf - && bash
gpu-kit/project/cluster/gpu_run.sh``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34, 35)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)


def needed(requirements: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Return name to version of all packages that requirements need, as they are installed here.

    The version is empty for what only the Python there needs.
    """
    found: dict[str, str] = {}
    waiting = [Requirement(line) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
            continue
        found[name] = package.version
        for line in package.requires or ():
            inner = Requirement(line)
            if inner.marker is None or any(
                inner.marker.evaluate(environment | {"extra": extra}) for extra in ("", *extras)
            ):
                waiting.append(inner)
    return found


def names_in(path: Path) -> set[str]:
    """Return the packages of a list: a line each, as ``pip list --format=freeze`` writes them."""
    lines = path.read_text().replace(",", "\n").splitlines()
    names = (re.split(r"[=<>@ ]", line.strip(), maxsplit=1)[0] for line in lines)
    return {canonicalize_name(name) for name in names if name and not name.startswith("#")}


def download(packages: dict[str, str], folder: Path, python: str) -> None:
    """Fetch a wheel of each package for Linux on x86-64 and this Python."""
    folder.mkdir(parents=True)
    if not packages:
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    wanted = (f"{name}=={version}" if version else name for name, version in packages.items())
    subprocess.run([*command, *sorted(wanted)], check=True)


class Parts(io.RawIOBase):
    """Writes a stream to files of at most `size` bytes: ``gpu-kit.tar.00``, ``.01`` and so on."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths: list[Path] = []
        self._folder, self._size, self._left = folder, size, 0

    def writable(self) -> bool:
        """Return True: a tar is written to it."""
        return True

    def write(self, data) -> int:
        """Append, and begin the next file where one is full."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            if not self._left:
                self.paths.append(self._folder / f"gpu-kit.tar.{len(self.paths):02d}")
                self.paths[-1].write_bytes(b"")
                self._left = self._size
            piece = view[written : written + self._left]
            with self.paths[-1].open("ab") as file:
                file.write(piece)
            written += len(piece)
            self._left -= len(piece)
        return written


def main() -> None:
    """Pack the kit and say how to use it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit")
    parser.add_argument("--data", type=Path, help="folder of a data set, as data.root names it")
    parser.add_argument("--weights", type=Path, help="file, as model.weights names it")
    parser.add_argument("--have", type=Path, help="there: pip list --format=freeze > FILE")
    parser.add_argument("--without", nargs="*", default=[], help="packages to leave out: ray, say")
    parser.add_argument("--python", default="3.12", help="version there")
    parser.add_argument("--part-mb", type=int, default=60)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if any(options.out.iterdir()):
        raise SystemExit(f"{options.out} is not empty; remove it, or give another --out")
    environment = {k: str(v) for k, v in default_environment().items()}
    environment |= {"python_version": options.python, "python_full_version": f"{options.python}.0"}
    has = names_in(options.have) if options.have else set()
    has |= {canonicalize_name(name) for name in options.without} | {"madbal-ray"}
    packages = needed(["madbal_ray", "pytest", "pytest-timeout", "hypothesis"], environment)
    lacking = {name: version for name, version in packages.items() if name not in has}
    wheels = options.out / "wheels"
    download(lacking, wheels, options.python)
    tree = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True
    ).stdout
    parts = Parts(options.out, options.part_mb * 1_000_000)
    with tarfile.open(fileobj=parts, mode="w|") as tar:
        with tarfile.open(fileobj=io.BytesIO(tree)) as project:
            for member in project:
                member.name = f"gpu-kit/project/{member.name}"
                tar.addfile(member, project.extractfile(member) if member.isreg() else None)
        for path in sorted(wheels.iterdir()):
            tar.add(path, f"gpu-kit/wheels/{path.name}")
        if options.data:
            tar.add(options.data.resolve(), "gpu-kit/data")
        if options.weights:
            tar.add(options.weights.resolve(), f"gpu-kit/weights/{options.weights.name}")
    for path in wheels.iterdir():
        path.unlink()
    wheels.rmdir()
    size = sum(path.stat().st_size for path in parts.paths) / 1e6
    print(f"{len(lacking)} wheels: {', '.join(sorted(lacking)) or 'none'}")
    print(f"{len(parts.paths)} parts, {size:.0f} MB in {options.out}; there:")
    print("cat gpu-kit.tar.* | tar xf - && bash gpu-kit/project/cluster/gpu_run.sh")


if __name__ == "__main__":
    main()
