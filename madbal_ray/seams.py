"""Every seam on one page: what can be added by name, and what there is.

Each kind of thing is one `Registry`: name -> where it is declared. Built-in things are a line
here and a file in their room; others come from plug-ins (``plugins: [my_package.my_module]``
in the configuration), which call `Registry.add`, or are named by a dotted path
(``my_package.my_module:MyThing``). A module is imported when its thing is first asked for, so
listing names costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from madbal_ray.errors import ConfigError


class Registry(Mapping[str, Any]):
    """Things of one kind by name.

    Args:
        kind: what one is called in messages.
        built_in: name -> dotted path ``module:attribute``, below ``madbal_ray``.
    """

    def __init__(self, kind: str, built_in: Mapping[str, str]) -> None:
        self.kind = kind
        self._places = {name: f"madbal_ray.{place}" for name, place in built_in.items()}
        self._things: dict[str, Any] = {}

    def add(self, name: str, thing: Any) -> None:
        """Register a thing of a plug-in; once more by the same module replaces it.

        Raises:
            ConfigError: the name is taken.
        """
        known = self._things.get(name)
        is_again = known is not None and _module(known) == _module(thing)
        if name in self and not is_again:
            raise ConfigError(
                f"{self.kind} {name!r} exists already; a plug-in must give its {self.kind} another "
                "name"
            )
        self._things[name] = thing

    def __getitem__(self, name: str) -> Any:
        """Return a thing by its name or dotted path.

        Raises:
            ConfigError: there is none; those that there are are listed.
        """
        if name not in self._things:
            place = self._places.get(name, name)
            if ":" not in place:
                raise ConfigError(self.unknown(name))
            self._things[name] = _load(place, self.kind)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things or name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._places, *self._things)))

    def __len__(self) -> int:
        return len(set(self._places) | set(self._things))

    def unknown(self, name: str) -> str:
        """Return the message for a name that stands for nothing."""
        return (
            f"{name!r} is no {self.kind}; there are: {', '.join(self)}. Others come from plug-ins: "
            "plugins: [module that registers it]"
        )


def _module(thing: Any) -> str:
    return str(getattr(thing, "__module__", type(thing).__module__))


def _load(place: str, kind: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} {place!r} cannot be loaded: {error}") from error


def load_plugins(modules: Iterable[str]) -> None:
    """Import plug-ins, which register their things; a folder's own modules are found too.

    Raises:
        ConfigError: a module cannot be imported.
    """
    names = list(modules)
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(name)
        except ConfigError:
            raise
        except Exception as error:  # whatever a foreign module raises
            raise ConfigError(
                f"plugins: {name} cannot be imported ({type(error).__name__}: {error}); install it "
                "where the driver and every worker run, or start from the folder that holds it"
            ) from error


STRATEGIES = Registry(
    "strategy",
    {
        "madbal": "strategies.madbal:MADBAL",
        "averaging": "strategies.madbal:AVERAGING",
        "no_maturity": "strategies.madbal:NO_MATURITY",
        "vanilla": "strategies.madbal:VANILLA",
        "random_clusters": "strategies.madbal:RANDOM_CLUSTERS",
        "no_breakdown": "strategies.pixels:NO_BREAKDOWN",
        "random": "strategies.chance:RANDOM",
        "class_aware_random": "strategies.pixels:CLASS_AWARE_RANDOM",
        "class_aware_margin": "strategies.pixels:CLASS_AWARE_MARGIN",
        "class_power": "strategies.pixels:CLASS_POWER",
        "entropy": "strategies.pixels:ENTROPY",
        "margin": "strategies.pixels:MARGIN",
        "power_margin": "strategies.pixels:POWER_MARGIN",
        "least_confidence": "strategies.pixels:LEAST_CONFIDENCE",
        "bald": "strategies.pixels:BALD",
        "balent": "strategies.pixels:BALENT",
        "bvsb_power": "strategies.superpixels:BVSB_POWER",
        "diverse_uncertain": "strategies.superpixels:DIVERSE_UNCERTAIN",
        "herded_margin": "strategies.superpixels:HERDED_MARGIN",
        "self_consistency": "strategies.pixels:SELF_CONSISTENCY",
        "class_balanced_superpixel": "strategies.madbal:CLASS_BALANCED_SUPERPIXEL",
        "cereals": "strategies.regions:CEREALS",
        "cpral": "strategies.regions:CPRAL",
        "core_set": "strategies.images:CORE_SET",
        "image_entropy": "strategies.images:IMAGE_ENTROPY",
        "deal": "strategies.images:DEAL",
        "vaal": "strategies.images:VAAL",
    },
)
"""Which pixels to ask for: `madbal_ray.strategies.strategy.Strategy`."""

SCORES = Registry(
    "pixel score",
    {
        "madbal": "scoring.registry:MADBAL",
        "entropy": "scoring.registry:ENTROPY",
        "margin": "scoring.registry:MARGIN",
        "least_confidence": "scoring.registry:LEAST_CONFIDENCE",
        "best_versus_second_best": "scoring.registry:BEST_VERSUS_SECOND_BEST",
        "bald": "scoring.registry:BALD",
        "balent": "scoring.registry:BALENT",
        "difficulty_entropy": "scoring.registry:DIFFICULTY_ENTROPY",
        "self_consistency": "scoring.registry:SELF_CONSISTENCY",
        "information_by_clicks": "scoring.registry:INFORMATION_BY_CLICKS",
        "attended_votes": "scoring.registry:ATTENDED_VOTES",
    },
)
"""How doubtful a pixel is: `madbal_ray.scoring.registry.ScoreSpec`."""

ORACLES = Registry(
    "oracle",
    {
        "simulated": "labels.simulated_oracle:SimulatedOracle",
        "people": "labels.people_oracle:PeopleOracle",
    },
)
"""Who answers: `madbal_ray.labels.oracle.Oracle`."""

REQUEST_FORMATS = Registry(
    "request format",
    {
        "csv": "labels.csv_format:CSV",
        "cvat": "labels.cvat_format:CVAT",
        "fiftyone": "labels.fiftyone_format:FIFTYONE",
        "coco": "labels.coco_format:COCO",
        "label-studio": "labels.label_studio_format:LABEL_STUDIO",
        "label-studio-keypoints": "labels.label_studio_format:LABEL_STUDIO_KEYPOINTS",
    },
)
"""How queries go to other tools and answers come back:
`madbal_ray.labels.request_format.RequestFormat`."""

OBJECTIVES = Registry(
    "objective",
    {
        "cross_entropy": "training.objectives:CrossEntropy",
        "loss_prediction": "training.objectives:LossPrediction",
        "weighted_cross_entropy": "training.objectives:WeightedCrossEntropy",
    },
)
"""What a phase minimises: `madbal_ray.training.objectives.Objective`."""

DATASETS = Registry(
    "data set",
    {
        "synthetic": "data.synthetic:open_dataset",
        "camvid": "data.camvid:open_dataset",
        "voc2012": "data.voc2012:open_dataset",
        "cityscapes": "data.cityscapes:open_dataset",
        "folder": "data.folder:open_dataset",
        "images": "data.images:open_dataset",
    },
)
"""Images, masks and classes: ``open_dataset(config, root) -> madbal_ray.data.dataset.Dataset``."""

BACKBONES = Registry(
    "backbone",
    {
        "mobilenet_v2": "models.backbones:MOBILENET_V2",
        "mobilenet_v3_large": "models.backbones:MOBILENET_V3_LARGE",
        "resnet50": "models.backbones:RESNET50",
    },
)
"""Four taps of rising depth: `madbal_ray.models.backbones.BackboneSpec`."""

HEADS = Registry(
    "head",
    {
        "lraspp": "models.heads:LRASPP",
        "hypercolumn": "models.hypercolumn:Hypercolumn",
        "deeplabv3": "models.heads:DeepLabV3",
        "deeplabv3plus": "models.heads:DeepLabV3Plus",
    },
)
"""From taps to logits: a module made by ``head(channels, num_classes, model_config)``."""

SUPERPIXELS = Registry(
    "superpixel method",
    {
        "seeds": "pool.superpixels.seeds:segment_seeds",
        "slic": "pool.superpixels.slic:segment_slic",
    },
)
"""Image -> label map: ``method(image, num_superpixels=…, max_levels=…)``."""

TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "tracking.tensorboard:TensorBoard",
        "mlflow": "tracking.mlflow_tracker:MLflow",
        "wandb": "tracking.wandb_tracker:WeightsAndBiases",
    },
)
"""Dashboards: a `madbal_ray.tracking.trackers.Tracker` made by ``tracker(target, run_dir,
settings)``."""
