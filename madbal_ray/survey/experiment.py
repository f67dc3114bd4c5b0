"""An experiment for the data that was looked at, on this machine; every line with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from madbal_ray.config.file import load_config
from madbal_ray.config.section import folder_name
from madbal_ray.data.dataset import spread_colors
from madbal_ray.engine.threads import free_cores
from madbal_ray.state.storage import Folder
from madbal_ray.survey.found import Survey
from madbal_ray.vision.mask_values import color_text

CLUSTERS = 9
BUDGET = 20
PEOPLES_BUDGET = 5
LONG_SIDE = 480
SHARD_IMAGES = 32
BINARY = 2
VOID_VALUE = 255


def write_experiment(found: Survey, out: Path) -> list[Path]:
    """Write an experiment, and where there is none a draft of the class file; return both.

    Raises:
        ConfigError: what was found cannot be run; the message says why.
    """
    out, written = out.absolute(), []
    class_file = out.with_name(f"{out.stem}.classes.yaml")
    drafts = found.has_masks and not found.layout.has_classes
    lines = list(experiment_lines(found, out.stem, class_file if drafts else None))
    text = "\n".join(lines) + "\n"
    if drafts:
        Folder(out.parent).write(class_file.name, class_draft(found).encode())
        written.append(class_file)
    Folder(out.parent).write(out.name, text.encode())
    load_config(out)
    return [out, *written]


def experiment_lines(found: Survey, name: str, class_file: Path | None) -> Iterator[str]:
    """Yield the YAML of an experiment."""
    cores = free_cores()
    longest = int(np.median([max(one.height, one.width) for one in found.good] or [LONG_SIDE]))
    side = min(LONG_SIDE, longest)
    options = {
        key: (value, found.layout.reasons[key]) for key, value in found.layout.options.items()
    }
    if class_file is not None:
        options["class_file"] = (str(class_file), "a draft: write the names of your classes there")
    bare = sum(one.record.mask_uri is None for one in found.examined)
    if bare and found.has_masks:
        options["only_with_masks"] = (True, f"{bare} images have no mask to answer from")
    bad = len(found.examined) - len(found.good)
    yield f"# {found.root}, as `madbal data check` found it; each line with its reason."
    yield "#"
    yield f"# command   madbal run {name}.yaml"
    yield f"name: {folder_name(name)}"
    yield "num_rounds: 4  # a start and three that ask; it may grow later"
    if not found.has_masks:
        yield "oracle: people  # there are no masks that could answer: `madbal annotate`"
    yield "data:"
    yield "  name: folder"
    yield f"  root: {_plain(str(found.root))}"
    if bad:
        fraction = min(1.0, max(0.01, round(2 * bad / len(found.examined), 2)))
        yield f"  max_bad_fraction: {fraction}  # {bad} of {len(found.examined)} cannot be read"
    if options:
        yield "  folder:"
    for key, (value, reason) in options.items():
        yield f"    {key}: {_plain(value)}  # {reason}"
    why = f"the images' median longer side is {longest}"
    why += "; labels keep this grid" if side == longest else f", and {side} is enough for a start"
    yield f"grids: {{input: {{long_side: {side}}}, working: {{long_side: {side}}}}}  # {why}"
    yield f"pool: {{shard_images: {SHARD_IMAGES}}}  # what a worker does at once"
    if found.has_masks:
        yield (
            f"clustering: {{num_clusters: {CLUSTERS}}}  # K of the reference code; B below is more "
            "than twice that, so that there is something to share out"
        )
    yield "model:"
    yield "  backbone: mobilenet_v2  # small: it runs on any machine"
    yield "  train_backbone: false  # frozen: features are computed once, rounds take seconds"
    yield "  head: hypercolumn  # learns from points alone, which is all that is asked"
    yield "  weights: none  # random; a file of pretrained ones (torchvision's) sees far more"
    yield "  dropout: 0.5  # of the head; 0.7 with pretrained weights: docs/choosing.md"
    yield "train:"
    yield f"  threads_per_worker: {cores}  # cores that were free when this was written"
    yield "  mirrored_points: true  # the images' mirror images, too: docs/choosing.md"
    optimizer = "optimizer: adamw, learning_rate: 0.002, weight_decay: 0.01, schedule: one_cycle"
    weighted = "objective: weighted_cross_entropy"
    yield f"  phase1: {{epochs: 40, {optimizer}, {weighted}}}  # both of docs/choosing.md, too"
    yield f"  phase2: {{epochs: 20, {optimizer}}}  # where it is needed; of people-cpu.yaml"
    yield f"score: {{threads_per_worker: {cores}}}  # the same"
    yield f"resources: {{decode_threads: {cores}}}  # the same"
    yield "strategy: {name: herded_margin}  # ahead on two data sets: docs/choosing.md"
    budget, why = BUDGET, f"B: the paper's {BUDGET}, more than 2 K = {2 * CLUSTERS}"
    if not found.has_masks:
        budget, why = PEOPLES_BUDGET, "people's time is dear: docs/choosing.md"
    yield f"budget: {{initial_pixels_per_image: {budget}, pixels_per_image: {budget}}}  # {why}"
    if not found.has_masks:
        yield "evaluation: {points: 500}  # answered once: without masks, what else to measure on"


def class_draft(found: Survey) -> str:
    """Return a class file of what the masks hold, to be given names by whoever knows them."""
    coding, held = found.held()
    names = found.names.of(coding)
    held = dict(sorted((dict.fromkeys(names, 0) | held).items()))  # a name may not have been seen
    whole = max(1, sum(held.values()))
    is_void = coding == "values" and len(held) > BINARY and VOID_VALUE in held.keys() - names.keys()
    void = [VOID_VALUE] if is_void else []
    lines = [
        f"# Drafted from {len(found.good)} images by `madbal data check`: give the classes names,",
        "# and move what is no class of yours below `void`.",
    ]
    if names:
        lines.append(f"# Names are those of {', '.join(found.names.files)}.")
    if coding == "colors":
        lines.append("masks: colors")
    lines.append("classes:")
    spread = spread_colors(len(held))
    given = Counter(names.values())
    for place, (key, pixels) in enumerate(held.items()):
        if key in void:
            continue
        name = names.get(key, "")
        if given[name] != 1:  # none, or one that two have
            name = f"color_{key:06x}" if coding == "colors" else f"value_{key}"
        what = f"name: {_plain(name)}, "
        if coding == "colors":
            what += f"color: {color_text(key)}"
        else:
            what += f"value: {key}, color: {list(spread[place])}"
        lines.append(f"  - {{{what}}}  # {pixels / whole:.2%} of the pixels")
    if coding == "values":
        share = held.get(VOID_VALUE, 0) / whole
        lines.append(f"void: {json.dumps(void)}" + (f"  # {share:.2%}; by custom" if void else ""))
    return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    """Return a value as YAML in one line; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)
