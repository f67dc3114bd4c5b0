"""Configurations: every finding at once, with key, given and allowed."""

import re
from pathlib import Path

import pytest

from madbal_ray import seams
from madbal_ray.config.file import load_config
from madbal_ray.errors import ConfigError
from madbal_ray.seams import SCORES, STRATEGIES, Registry

REGISTRIES = [thing for thing in vars(seams).values() if isinstance(thing, Registry)]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_all_findings_are_listed_at_once_with_key_given_and_allowed():
    with pytest.raises(ConfigError) as caught:
        load_config(
            {
                "sed": 1,
                "data": {"name": "camvid"},
                "grids": {"input": [3, "x"]},
                "train": {"phase1": {"epochs": -3}, "num_workers": 3},
                "pool": {"shard_images": 6},
                "score": {"batch_size": 4},
            }
        )
    text = str(caught.value)
    assert "sed: unknown key; allowed here: name, seed" in text
    assert "data.root is needed for camvid" in text
    assert "grids.input: expected original, [height, width] or {long_side: n}" in text
    assert "train.phase1.epochs: Input should be greater than or equal to 0; given: -3" in text
    assert "train.phase2.batch_size" not in text  # 12 images over 3 workers are fine
    assert "pool.shard_images = 6 is not a multiple of score.batch_size = 4" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"num_workers": 4}}, "train.phase1.batch_size = 10 is not a multiple"),
        (
            {"data": {"name": "voc2012", "root": "x"}},
            "images of different sizes cannot form a batch: set train.crop",
        ),
        (
            {"model": {"head": "deeplabv3plus"}, "train": {"phase1": {"batch_size": 1}}},
            "train.phase1.batch_size = 1 is too small for head deeplabv3plus",
        ),
        (
            {"model": {"head": "deeplabv3"}, "train": {"phase2": {"batch_size": 1}}},
            "train.phase2.batch_size = 1 is too small for head deeplabv3",
        ),
        (
            {"data": {"name": "folder", "root": "x"}, "model": {"train_backbone": False}},
            "images of different sizes cannot form a batch: set grids.input = [height, width], or "
            "model.head = hypercolumn",
        ),
        (
            {
                "model": {"train_backbone": False, "head": "hypercolumn"},
                "train": {"phase1": {"batch_points": 1}},
            },
            "train.phase1.batch_points = 1 is too small: head hypercolumn normalises",
        ),
        (
            {"train": {"phase2": {"objective": "cross_entropy"}}},
            "train.phase2.objective = cross_entropy reads logits; phase 2 trains head_logits",
        ),
        (
            {"train": {"phase1": {"objective": "loss_prediction"}}},
            "maturity_weights, error_logits; only phase 2 trains what is not logits",
        ),
        (
            {"train": {"phase1": {"objective_options": {"exponent": 0.5}}}},
            "train.phase1.objective_options: cross_entropy has none, given exponent",
        ),
        (
            {"train": {"phase2": {"objective_options": {"a": 1}}}},
            "train.phase2.objective_options: loss_prediction has none, given a",
        ),
        (
            {"strategy": {"name": "vanilla", "normalize_terms": True}},
            "normalize_terms",
        ),
        ({"evaluation": {"splits": ["train"]}}, "measured on pixels that it may have been trained"),
        ({"train": {"augment": {"scale": [2, 1]}}}, "must rise"),
        ({"seed": float("nan")}, "seed"),
        ({"budget": {"max_per_image": 30}}, "max_per_image is for budget.scope = pool"),
        ({"budget": {"scope": "pool", "max_per_image": 3}}, "could never be spent"),
        (
            {"budget": {"scope": "pool"}, "strategy": "margin"},
            "not for margin, which asks image by image",
        ),
    ],
)
def test_impossible_combinations(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(values)


def test_files_and_overrides(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("seed: 3\ntrain: {phase1: {epochs: 2}}\n")
    config = load_config(path, ["train.phase1.epochs=7", "grids.working={long_side: 64}"])
    assert (config.seed, config.train.phase1.epochs) == (3, 7)
    for override, message in (
        ("seed", "expected section.key=value"),
        ("seed.x=1", "seed is a value, not a section"),
        ("a: [=1", r"not valid|unknown key"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(path, [override])
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_everything_built_in_is_where_its_line_says(registry):
    for name in registry:
        assert registry[name] is not None
    with pytest.raises(ConfigError, match=f"'nothing' is no {registry.kind}; there are: "):
        registry["nothing"]


@pytest.mark.parametrize(
    ("key", "there_are"),
    [
        ("strategy.name", "madbal, averaging, no_maturity"),
        ("data.name", "synthetic, camvid, voc2012, cityscapes, folder, images"),
        ("model.backbone", "mobilenet_v2, mobilenet_v3_large, resnet50"),
        ("model.head", "lraspp, hypercolumn, deeplabv3, deeplabv3plus"),
        ("oracle.kind", "simulated"),
        ("superpixels.method", "seeds, slic"),
        ("train.phase1.objective", "cross_entropy, loss_prediction"),
    ],
)
def test_an_unknown_name_is_answered_by_those_that_there_are(key, there_are):
    with pytest.raises(ConfigError) as caught:
        load_config({}, [f"{key}=nothing"])
    assert f"{key}: 'nothing' is no " in str(caught.value)
    assert there_are in str(caught.value)


def test_strategies_name_scores_that_exist():
    assert {STRATEGIES[name].pixel_score for name in STRATEGIES} - {None} <= set(SCORES)


def test_an_option_that_the_strategy_does_not_read_is_refused():
    with pytest.raises(ConfigError) as caught:
        load_config({"strategy": {"name": "margin", "pixel_share": 0.5, "mc_samples": 3}})
    text = str(caught.value)
    assert "strategy.pixel_share is not read by margin; it is for madbal, averaging" in text
    assert "strategy.mc_samples is not read by margin; it is for bald" in text


@pytest.mark.parametrize("strategy", ["bald", "balent", "cpral"])
@pytest.mark.parametrize("head", ["lraspp", "hypercolumn", "deeplabv3plus"])
def test_passes_with_dropout_need_a_network_that_has_it(strategy, head):
    """Before anything is trained; the heads of DeepLab have dropout of their own."""
    phase = {"steps": 5} if head == "hypercolumn" else {}
    values = {
        "strategy": {"name": strategy},
        "model": {"head": head, "train_backbone": head != "hypercolumn"},
        "train": {"phase1": phase},
    }
    if head != "deeplabv3plus":
        with pytest.raises(
            ConfigError, match=f"strategy {strategy} needs dropout: set model.dropout"
        ):
            load_config(values)
    load_config(values, ["model.dropout=0.5"])
    if head == "deeplabv3plus":
        load_config(values)


def test_an_option_that_was_renamed_is_told_its_new_name():
    with pytest.raises(
        ConfigError, match=r"train\.select: this option is called train\.keep_epoch now"
    ):
        load_config({"train": {"select": "best"}})


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_loads_and_says_how_to_run_it(path):
    text = path.read_text()
    overrides = ["data.root=somewhere"] if "synthetic" not in text.split("data:")[1] else []
    config = load_config(path, overrides)
    assert config.name == path.stem
    head = text.split("\nname:")[0]
    assert f"madbal run experiments/{path.name}" in head
    if path.stem.endswith("-cpu"):
        assert config.model.weights == "none"
