"""A trained network as one file: weights of both phases, and what is needed to score with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from madbal_ray.config.file import stored_config
from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, IntegrityError, RunDirError
from madbal_ray.models.trained import PHASES, TrainedPhases, load_network
from madbal_ray.runs.run import Run
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve

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
        state = load_safetensors(stage.read_file(phase.weights))
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
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"--checkpoint {path}: cannot be read ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ConfigError(
            f"--checkpoint {path} holds no madbal model (format "
            f"{metadata.get('format', 'not given')}); write one with `madbal export RUN`, or give "
            "the run's folder"
        )
    config, class_names = _described(path, metadata)
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
    phases = TrainedPhases(phase1, phase2)
    strategy = resolve(config.strategy)
    if strategy.has_phase2 != (phase2 is not None):
        raise ConfigError(
            f"--checkpoint {path}: strategy {strategy.name} trains {1 + strategy.has_phase2} "
            f"phases, the file holds the weights of {1 + (phase2 is not None)}"
        )
    try:
        load_network(config.model, len(class_names), phases, strategy.supports)
    except IntegrityError as error:
        raise ConfigError(f"--checkpoint {path}: {error}") from None
    return TrainedModel(config, class_names, phases)


def _described(path: str, metadata: Mapping[str, str]) -> tuple[Config, tuple[str, ...]]:
    """Return the settings and class names that stand in a model file.

    Raises:
        ConfigError: they are missing or damaged.
    """
    try:
        settings, names = (json.loads(metadata[key]) for key in ("config", "class_names"))
        if not isinstance(settings, dict) or not isinstance(names, list):
            raise ValueError("no settings, or no list of class names")
        return stored_config(settings), tuple(str(name) for name in names)
    except KeyError as error:
        raise ConfigError(
            f"--checkpoint {path} lacks {error}; write it again with `madbal export RUN`"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--checkpoint {path}: its description is damaged: {error}") from None
