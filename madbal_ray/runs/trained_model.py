"""A trained network as one file: weights of both phases, and what is needed to score with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, RunDirError
from madbal_ray.models.trained import PHASES, TrainedPhases
from madbal_ray.runs.run import Run
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

FORMAT = "madbal-model-1"


@dataclass(frozen=True)
class TrainedModel:
    """A network to score with.

    Attributes:
        config: of the run that trained it.
        phases: its weights, as finished stages.
    """

    config: Config
    class_names: tuple[str, ...]
    phases: TrainedPhases


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
    return TrainedModel(run.config, run.class_names, run.network(round_index))


def export_model(run: Run, round_index: int | None = None) -> bytes:
    """Return a round's network as one safetensors file, settings and class names within."""
    model = of_run(run, round_index)
    tensors = {}
    for phase, stage in model.phases:
        state = load_safetensors(stage.folder.read(phase.weights))
        tensors |= {f"{phase.name}/{key}": value for key, value in state.items()}
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
    for phase in PHASES:
        state = {
            key.partition("/")[2]: value
            for key, value in tensors.items()
            if key.partition("/")[0] == phase.name
        }
        if not state:
            stages.append(None)
            continue
        data = save_safetensors(state)
        settings = {"sha256": hashlib.sha256(data).hexdigest()}
        stage = StageDir.plan(folder, phase.name, settings, {})
        if not stage.is_done:
            stage.commit([stage.write_file(phase.weights, data)], {})
        stages.append(stage)
    phase1, phase2 = stages
    if phase1 is None:
        raise ConfigError(f"--checkpoint {path} holds no weights of phase I")
    class_names = tuple(json.loads(metadata["class_names"]))
    return TrainedModel(config, class_names, TrainedPhases(phase1, phase2))
