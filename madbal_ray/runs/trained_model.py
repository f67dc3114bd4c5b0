"""A trained network as one file: weights of both phases, and what is needed to score with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from madbal_ray.config.schema import Config
from madbal_ray.config.file import load_config
from madbal_ray.errors import ConfigError, RunDirError
from madbal_ray.models.trained import Phases
from madbal_ray.runs.run import Run
from madbal_ray.models.trained import PHASE1_WEIGHTS, PHASE2_WEIGHTS
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.registry import resolve

FORMAT = "madbal-model-1"
PHASES = ("phase1", "phase2")


@dataclass(frozen=True)
class TrainedModel:
    """A network to score with.

    Attributes:
        config: of the run that trained it.
        phases: its weights, as finished stages.
    """

    config: Config
    class_names: tuple[str, ...]
    phases: Phases


def of_run(run: Run, round_index: int | None = None) -> TrainedModel:
    """Return the network of a round of a run; None: of the last finished one.

    Raises:
        RunDirError: no such round is finished.
    """
    if round_index is None:
        round_index = run.num_rounds - 1
    if not 0 <= round_index < run.num_rounds:
        raise RunDirError(
            f"{run.run_dir}: round {round_index} is not finished; finished rounds: {run.num_rounds}"
        )
    has_phase2 = resolve(run.config.strategy).has_phase2
    phase2 = run.stage("phase2", round_index) if has_phase2 else None
    return TrainedModel(run.config, run.class_names, (run.stage("phase1", round_index), phase2))


def export_model(run: Run, round_index: int | None = None) -> bytes:
    """Return a round's network as one safetensors file, settings and class names within."""
    model = of_run(run, round_index)
    tensors = {}
    for phase, stage, name in zip(
        PHASES, model.phases, (PHASE1_WEIGHTS, PHASE2_WEIGHTS), strict=True
    ):
        if stage is not None:
            state = load_safetensors(stage.folder.read(name))
            tensors |= {f"{phase}/{key}": value for key, value in state.items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(model.config.model_dump(mode="json")),
        "class_names": json.dumps(model.class_names),
    }
    return save_safetensors(tensors, metadata=metadata)


def import_model(path: str, folder: Folder) -> TrainedModel:
    """Read what `export_model` wrote; its weights become stages below `folder`.

    Raises:
        ConfigError: the file is missing, damaged or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"--checkpoint {path}: cannot be read ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ConfigError(
            f"--checkpoint {path} holds no madbal model (format "
            f"{metadata.get('format', 'not given')}); write one with `madbal export RUN`, or give "
            "the run's folder"
        )
    config = load_config(json.loads(metadata["config"]))
    stages: list[StageDir | None] = []
    for phase, name in zip(PHASES, (PHASE1_WEIGHTS, PHASE2_WEIGHTS), strict=True):
        state = {
            key.partition("/")[2]: value
            for key, value in tensors.items()
            if key.partition("/")[0] == phase
        }
        if not state:
            stages.append(None)
            continue
        data = save_safetensors(state)
        stage = StageDir.plan(folder, phase, {"sha256": hashlib.sha256(data).hexdigest()}, {})
        if not stage.is_done:
            stage.commit([stage.write_file(name, data)], {})
        stages.append(stage)
    phase1, phase2 = stages
    if phase1 is None:
        raise ConfigError(f"--checkpoint {path} holds no weights of phase I")
    return TrainedModel(config, tuple(json.loads(metadata["class_names"])), (phase1, phase2))
