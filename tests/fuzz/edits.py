"""Edits of finished runs: `madbal verify` must notice each, a resume must end in order.

Half of the edits mend every hash above them, as somebody would who wants to deceive.
"""

import contextlib
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import madbal_ray
from madbal_ray.config.file import changed_keys, stored_config
from madbal_ray.errors import MadbalError
from madbal_ray.state.stage_dir import MARKER_NAME
from tests.conftest import tiny_config
from tests.edited_runs import Copy

RESUMED = 6
"""Every so many edits, the run is also carried on with."""

OUT_OF_REACH = {("phase1", 1), ("phase2", 1)}
"""Weights and thresholds of the last round: no later stage depends on them. `--deep` runs phase I
again, a signature covers both (docs/reliability.md)."""


def finished_run(folder):
    """Return the run that is edited: two rounds of six images."""
    return madbal_ray.run(tiny_config(), run_dir=folder / "run", engine="local")


def cases(seed, count):
    """Yield (name, edit, chance) of a seed."""
    for index in range(count):
        chance = random.Random(f"edit {seed} {index}")
        yield f"edit-{seed}-{index}", EDITS[index % len(EDITS)], chance


def check(run, name, edit, chance, folder):
    """Edit a copy and look; return how the edit was met, or ``wrong``.

    ``noticed``: an error names it. ``told``: the lines say less than those of the whole run.
    ``harmless``: nothing changed that a result depends on. ``out of reach``: see above.
    """
    place = Path(folder) / name
    copy = Copy(run.run_dir, place)
    try:
        kind = edit(copy, chance)
        outcome = _verified(copy, kind)
        if int(name.rpartition("-")[2]) % RESUMED == 0:
            _resume(copy)
        return outcome
    finally:
        shutil.rmtree(place)


def _verified(copy, kind):
    try:
        lines = copy.verify()
    except MadbalError as error:
        return "wrong" if "\n" in str(error) and "configuration" not in str(error) else "noticed"
    whole = lines[-1].startswith("verified: 2 of 2 rounds") and "answered again" in "".join(lines)
    if not whole or any("not answered again" in line for line in lines):
        return "told"
    return kind if kind in ("harmless", "out of reach") else "wrong"


def _resume(copy):
    """Carry on with the settings that the run was started with: done, or refused in a sentence."""
    with contextlib.suppress(MadbalError):
        madbal_ray.run(tiny_config(), run_dir=copy.path, engine="local")


def stages(copy):
    """Return (stage, round) of every pointer."""
    found = [(path.stem, None) for path in sorted(copy.path.glob("pool/*.json"))]
    of_rounds = sorted(copy.path.glob("rounds/*/*/_CURRENT.json"))
    return found + [(path.parent.name, int(path.parent.parent.name)) for path in of_rounds]


def promised(copy, chance):
    """Return a file that a random marker names, or a marker, or a pointer."""
    stage, round_index = chance.choice(stages(copy))
    folder = copy.folder(stage, round_index)
    names = [one["path"] for one in json.loads((folder / MARKER_NAME).read_text())["files"]]
    return chance.choice([folder / chance.choice(names), folder / MARKER_NAME])


def flip_a_bit(copy, chance):
    path = promised(copy, chance)
    data = bytearray(path.read_bytes())
    before = _meaning(path)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return "harmless" if _meaning(path) == before else "promised"


def _meaning(path):
    if path.suffix != ".json":
        return path.read_bytes()
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def cut_a_file(copy, chance):
    path = promised(copy, chance)
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))].rstrip())
    return "promised"


def remove_a_file(copy, chance):
    promised(copy, chance).unlink()
    return "promised"


def remove_a_pointer(copy, chance):
    copy.pointer(*chance.choice(stages(copy))).unlink()
    return "promised"


def remove_a_stage(copy, chance):
    shutil.rmtree(copy.folder(*chance.choice(stages(copy))))
    return "promised"


def remove_a_round(copy, chance):
    shutil.rmtree(copy.path / f"rounds/{chance.randrange(2):03d}")
    return "promised"


def swap_pointers(copy, chance):
    name = chance.choice(("select", "labels", "phase1", "metrics", "phase2"))
    one, other = (copy.pointer(name, index) for index in (0, 1))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return "promised"


def change_a_setting(copy, chance):
    path = copy.path / "config.json"
    values = json.loads(path.read_text())
    before = stored_config(json.loads(path.read_text()))
    node, parents = values, []
    while True:
        key = chance.choice(sorted(node))
        if not isinstance(node[key], dict):
            break
        if not node[key]:
            node, parents = values, []
            continue
        node = node[key]
        parents.append(key)
    node[key] = _other(node[key], chance)
    path.write_text(json.dumps(values))
    try:
        after = stored_config(json.loads(path.read_text()))
    except MadbalError:
        return "promised"
    is_same = not changed_keys(before, after) and before.num_rounds == after.num_rounds
    return "harmless" if is_same else "promised"


def _other(value, chance):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + chance.choice((1, 2))
    if isinstance(value, float):
        return value * 0.5 + 0.125
    if isinstance(value, str):
        return chance.choice((value + "x", "random", "margin", "train"))
    return chance.choice((1, 0.5, "train", ["val"], None, True))


def forge_a_table(copy, chance):
    """Change a value of a table, and mend its hashes."""
    stage, round_index = chance.choice(stages(copy))
    marker = json.loads((copy.folder(stage, round_index) / MARKER_NAME).read_text())
    shards = [one["path"] for one in marker["files"] if one["rows"] > 0]
    names = [path for path in shards if Path(path).stem.isdigit()]  # else: named by its content
    if not names:
        return forge_weights(copy, chance)
    path = chance.choice(names)
    column = chance.choice(pq.read_schema(copy.folder(stage, round_index) / path).names)
    changed = []

    def change(rows):
        row = chance.choice(rows)
        before = row[column]
        row[column] = _forged(before)
        changed.append(row[column] != before)

    try:
        copy.change_table(stage, round_index, path.partition("/")[0], change, shard=_shard(path))
    except (pa.ArrowException, OverflowError, TypeError):
        return "harmless"  # the schema holds no such value: nothing was written
    if not all(changed):
        return "harmless"
    return "out of reach" if (stage, round_index) in OUT_OF_REACH else "promised"


def _shard(path):
    return int(path.rpartition("/")[2].partition(".")[0])


def _forged(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value < 2**30 else value - 1
    if isinstance(value, float):
        return value * 0.5 + 0.25
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
    if isinstance(value, list) and value:
        return [_forged(value[0]), *value[1:]]
    return value


def forge_weights(copy, chance):
    """Flip a bit of a network, and mend its hashes."""
    name, round_index = chance.choice(("phase1", "phase2")), chance.randrange(2)

    def flip(data):
        changed = bytearray(data)
        changed[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    copy.change_file(name, round_index, f"{name}.safetensors", flip)
    return "out of reach" if (name, round_index) in OUT_OF_REACH else "promised"


def forge_a_marker(copy, chance):
    """Change what a marker says, and mend the pointer to it."""
    stage, round_index = chance.choice(stages(copy))
    marker = json.loads((copy.folder(stage, round_index) / MARKER_NAME).read_text())
    part = chance.choice(("settings", "inputs", "summary", "files", "key", "stage"))
    value = marker[part]
    if part == "files":
        value = value[1:]
    elif isinstance(value, str):
        value = value[::-1]
    elif value:
        key = chance.choice(sorted(value))
        value = {name: one for name, one in value.items() if name != key}
    else:
        value = {"more": 1}
    try:
        copy.change_marker(stage, round_index, **{part: value})
    except MadbalError:
        return "promised"
    is_last = (stage, round_index) in OUT_OF_REACH and part in ("files", "summary")
    return "out of reach" if is_last else "promised"


def forge_a_stop(copy, chance):
    content = {"round": chance.randrange(2), "reason": "no better mIoU on val for 3 rounds"}
    (copy.path / "stopped.json").write_text(json.dumps(content))
    return "promised"


EDITS = (
    flip_a_bit,
    forge_a_table,
    change_a_setting,
    forge_a_marker,
    cut_a_file,
    forge_a_table,
    remove_a_file,
    change_a_setting,
    remove_a_pointer,
    forge_weights,
    remove_a_stage,
    forge_a_table,
    remove_a_round,
    swap_pointers,
    forge_a_marker,
    forge_a_stop,
)
