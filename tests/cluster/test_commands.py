"""Every command of docs/cluster.md against the file it names and its program's own options."""

import itertools
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from madbal_ray.config.file import load_config

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^```python\n.*?^```\n", re.DOTALL | re.MULTILINE)
"""Blocks that are no commands (tests/cluster/test_batches.py runs them)."""

TEXT = PYTHON.sub("", (ROOT / "docs" / "cluster.md").read_text())
PROGRAMS = ("ray", "madbal", "kubectl", "sbatch", "docker", "aws", "gcloud")
IMAGE_ROOTS = ("/opt/madbal/", "/shared/madbal_ray/")
"""Where the repository lies in the image, and on machines of one's own."""


def commands():
    """All commands of the page, whether in blocks or in sentences."""
    blocks = re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    sentences = re.sub(r"^```\n.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", sentences)]
    found = []
    for line in lines:
        words = [] if "…" in line else shlex.split(line)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if len(words) > 1 and words[0] in PROGRAMS:
            found.append(words)
    return found


COMMANDS = commands()
SHOWN = [" ".join(words)[:70] for words in COMMANDS]


def inner(words):
    """The command that another one runs on the cluster; None: it runs none."""
    if words[:2] == ["ray", "exec"] and len(words) > 3:
        return shlex.split(words[3])
    if words[:3] == ["ray", "job", "submit"] and "--" in words:
        return words[words.index("--") + 1 :]
    return None


def check_click(command, words):
    """See that a click program has this subcommand and these options."""
    context = click.Context(command)
    for number, word in enumerate(words):
        if not isinstance(command, click.Group):
            break
        child = command.get_command(context, word)
        assert child is not None, f"{word!r} is no command"
        command, rest = child, words[number + 1 :]
    known = {name for parameter in command.params for name in parameter.opts}
    for word in rest:
        if word == "--":
            break
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{word} is no option"
    return command, rest


def check_madbal(words, file):
    from madbal_ray.cli import main

    command, rest = check_click(main, words[1:])
    if not rest or command.name != "run":
        return
    path = rest[0]
    for root in IMAGE_ROOTS:
        path = path.replace(root, f"{ROOT}/")
    overrides = [value for name, value in itertools.pairwise(rest) if name == "--set"]
    config = load_config(Path(path), overrides=overrides)
    least = least_workers(file)
    if least is not None and config.resources.scoring_workers != "auto":
        assert int(config.resources.scoring_workers) <= least


def least_workers(file):
    """GPU workers that a cluster file has from the start; None: it is not said there."""
    if file is None:
        return None
    types = yaml.safe_load(file.read_text()).get("available_node_types", {})
    return sum(kind.get("min_workers", 0) for kind in types.values()) or None


def cluster_file(number):
    """The file of a command, or of the nearest one before it in the page."""
    for words in reversed(COMMANDS[: number + 1]):
        for word in words:
            if re.fullmatch(r"cluster/ray-\w+\.yaml", word):
                return ROOT / word
    return None


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=SHOWN)
def test_a_command_is_one_that_its_program_takes(number):
    from ray.scripts.scripts import cli as ray_cli

    words = COMMANDS[number]
    for file in re.findall(r"\bcluster/[\w.-]+", " ".join(words)):
        assert (ROOT / file).exists(), file
    if words[0] == "ray" and words[1] != "start":
        check_click(ray_cli, words[1:])
    there = inner(words) or words
    program = Path(there[0]).name
    if program == "madbal":
        check_madbal(there, cluster_file(number))
    elif program == "ray" and there is not words:
        check_click(ray_cli, there[1:])


def test_all_ways_to_launch_are_among_them():
    shown = "\n".join(SHOWN)
    for start in (
        "ray up cluster/ray-local.yaml",
        "ray up cluster/ray-aws.yaml",
        "ray job submit",
        "kubectl apply -f cluster/kuberay-job.yaml",
        "sbatch cluster/slurm.sh",
        "aws s3api",
        "gcloud storage",
        "docker build",
    ):
        assert start in shown, start


def test_usage_of_the_slurm_files_is_that_of_the_page():
    for name in ("slurm.sh", "slurm-symmetric.sh"):
        text = (ROOT / "cluster" / name).read_text()
        assert f"usage: sbatch cluster/{name} CONFIG RUN_DIR" in text
        steps = re.findall(r"srun (?:.|\\\n)*?ray (?:start|symmetric-run)", text)
        assert steps
        assert all('--cpus-per-task="$SLURM_CPUS_PER_TASK"' in step for step in steps)
        assert "#SBATCH --requeue" in text
