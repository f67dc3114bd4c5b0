"""A forecast multiplies: known seconds of one step, image and pass make known seconds of a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from madbal_ray.config.file import load_config
from madbal_ray.loop import forecast as module
from madbal_ray.loop import probe as probe_module
from madbal_ray.loop.forecast import Forecast, StageForecast, forecast_stages
from madbal_ray.loop.probe import Probe, timed
from madbal_ray.models.network import build_network
from madbal_ray.models.trained import PHASE1, PHASE2
from madbal_ray.state.storage import Folder
from madbal_ray.training.phase import PhaseTrainer
from tests.conftest import tiny_config
from tests.hand_made import ByHand, colours_are_logits
from tests.training.test_phase import trainer_of

STEP = {"phase1": 0.5, "phase2": 0.25}
DECODE, MASK, READ, FORWARD, SCORE = 2.0, 0.5, 0.25, 3.0, 5.0


def settings(epochs, batch_size):
    return {"epochs": epochs, "batch_size": batch_size}


def probe_of(tmp_path, monkeypatch, **changes):
    """Return a probe of 7 pool and 4 evaluation images, whose every measurement is known."""

    def probe_decode(self):
        return DECODE, [np.zeros((48, 64, 3), np.uint8)] * 2

    class Embedder:
        def __init__(self, config, *, weights, device):
            pass

        def embed(self, image, label_map):
            return np.zeros((10, 8), np.float16)  # 160 bytes

    class Segmenter:
        def __init__(self, config):
            pass

        def segment(self, image):
            label_map = np.zeros((48, 64), np.uint16)
            label_map[0, 0] = 9  # ten superpixels
            return label_map

    def known(work):
        return FORWARD, work()

    network = ByHand(colours_are_logits)
    monkeypatch.setattr(module, "build_network", lambda *args, **options: network)
    monkeypatch.setattr(module, "EmbedSuperpixels", Embedder)
    monkeypatch.setattr(module, "SegmentImages", Segmenter)
    monkeypatch.setattr(module, "timed", known)
    monkeypatch.setattr(Probe, "decode", probe_decode)
    monkeypatch.setattr(Probe, "decode_masks", lambda self: MASK)
    monkeypatch.setattr(Probe, "read_taps", lambda self, taps, works: READ)
    monkeypatch.setattr(Probe, "score", lambda self, *args: SCORE)
    monkeypatch.setattr(PhaseTrainer, "step_seconds", lambda self, network: STEP[self.phase.name])
    options = {
        "num_rounds": 3,
        "data__synthetic": {"num_train": 7, "num_val": 4, "height": 48, "width": 64},
        "train__phase1": settings(11, 4),
        "train__phase2": settings(5, 2),
        "resources": {"scoring_workers": 2, "decode_threads": 2},
    }
    config = load_config(tiny_config(**(options | changes)))
    return Probe(config, Folder(tmp_path), torch.device("cpu"))


def seconds_of(found):
    return {one.stage: one.seconds for one in found}


def test_training_takes_epochs_times_steps_times_rounds(tmp_path, monkeypatch):
    found = seconds_of(forecast_stages(probe_of(tmp_path, monkeypatch)))
    assert found["train phase I"] == 3 * 11 * 2 * 0.5  # 7 images make 2 batches of 4
    assert found["train phase II"] == 3 * 5 * 4 * 0.25  # and 4 of 2


def test_training_workers_share_a_step(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch, train__num_workers=2)
    network = ByHand(colours_are_logits)
    inputs, works = probe.resize(probe.decode()[1])
    maker = probe.batch_maker(ByHand(None), inputs, works, inputs)
    assert probe.train(network, maker, PHASE1) == 3 * 11 * 2 * 0.5 / 2
    assert probe.train(network, maker, PHASE2) == 3 * 5 * 4 * 0.25 / 2


def test_the_pool_is_prepared_once_and_scored_in_every_round_but_the_first(tmp_path, monkeypatch):
    found = forecast_stages(probe_of(tmp_path, monkeypatch))
    seconds = seconds_of(found)
    assert seconds["images"] == 7 * DECODE / 2 / 2
    assert seconds["superpixels"] == 7 * (DECODE + FORWARD) / 2
    assert seconds["superpixel_features"] == 7 * FORWARD / 2  # of the image decoded before
    assert seconds["labels"] == 3 * 7 * MASK / 2 / 2
    assert seconds["evaluate"] == 3 * 4 * (DECODE + MASK + FORWARD)
    assert seconds["score"] == 2 * 7 * SCORE / 2
    num_bytes = {one.stage: one.num_bytes for one in found}
    assert num_bytes["superpixels"] == 7 * 48 * 64 * 2 / 8
    assert num_bytes["superpixel_features"] == 7 * 160
    assert num_bytes["score"] == 2 * 7 * 10 * 40


def test_decoding_that_is_slower_than_the_network_decides(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch)
    monkeypatch.setattr(Probe, "score", lambda self, *args: 0.5)
    assert seconds_of(forecast_stages(probe))["score"] == 2 * 7 * DECODE / 2


def test_comparing_images_takes_thumbnails_and_its_steps_in_every_round_but_the_first(
    tmp_path, monkeypatch
):
    vaal = {"name": "vaal", "options": {"steps": 20}}
    stages = forecast_stages(probe_of(tmp_path, monkeypatch, strategy=vaal))
    found = {one.stage: one for one in stages}
    assert "score" not in found
    assert found["thumbnails"].seconds == 2 * 7 * DECODE / 2 / 2
    assert found["thumbnails"].num_bytes == 2 * 7 * 64 * 64 * 3
    assert found["familiarity"].seconds == 2 * 20 * FORWARD
    assert (found["thumbnails"].rounds, found["familiarity"].rounds) == (2, 2)
    alone = probe_of(tmp_path, monkeypatch, strategy=vaal, num_rounds=1)
    assert not {"thumbnails", "familiarity"} & set(seconds_of(forecast_stages(alone)))


def test_a_single_round_scores_nothing(tmp_path, monkeypatch):
    found = seconds_of(forecast_stages(probe_of(tmp_path, monkeypatch, num_rounds=1)))
    assert "score" not in found
    assert found["train phase I"] == 11 * 2 * 0.5


FROZEN = {"model": {"train_backbone": False, "head": "hypercolumn", "hidden": 8}}
TAPS = 2 * (12 * 16 * 24 + 6 * 8 * 32 + 3 * 4 * 96 + 3 * 4 * 320)


def frozen_stages(tmp_path, monkeypatch, **changes):
    probe = probe_of(tmp_path, monkeypatch, **(FROZEN | changes))
    network = build_network(probe.config.model, 11, weights=None, seed=0)
    monkeypatch.setattr(module, "build_network", lambda *args, **options: network)
    return {one.stage: one for one in forecast_stages(probe)}


def test_features_of_a_frozen_backbone_are_computed_once_and_spare_decoding(tmp_path, monkeypatch):
    found = frozen_stages(tmp_path, monkeypatch)
    assert found["backbone_features"].seconds == 11 * (DECODE + FORWARD) / 2
    assert found["backbone_features"].num_bytes == 11 * (TAPS + 48 * 64 / 8)
    assert found["point_features"].seconds == 3 * 7 * READ / 2
    assert found["evaluate"].seconds == 3 * 4 * (READ + MASK + FORWARD)
    assert found["score"].seconds == 2 * 7 * SCORE / 2


def test_mirrored_features_are_of_the_pool_and_read_beside_the_others(tmp_path, monkeypatch):
    mirrored = {"train__mirrored_points": True}
    found = frozen_stages(tmp_path, monkeypatch, **mirrored)
    assert found["backbone_features"].num_bytes == 11 * (TAPS + 48 * 64 / 8)
    assert found["mirrored_features"].num_bytes == 7 * (TAPS + 48 * 64 / 8)
    assert found["mirrored_features"].seconds == pytest.approx(7 * (DECODE + FORWARD) / 2)
    assert found["point_features"].seconds == 3 * 7 * 2 * READ / 2
    never = {"pool": {"shard_images": 2, "features_cache": "never"}}
    again = frozen_stages(tmp_path, monkeypatch, **(mirrored | never))
    assert "mirrored_features" not in again
    assert again["point_features"].seconds == 3 * 7 * (DECODE + 2 * FORWARD) / 2


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 7 * 5 + 2 * 7 * 4),
        ({"train__mirrored_points": True}, 2 * (7 * 5 + 2 * 7 * 4)),
        ({"train__points_per_image": 3}, 7 * 3 + 2 * 7 * 3),
        ({"strategy": {"name": "cereals"}}, 7 * 5 + 2 * 7 * 4 * 20),
        ({"strategy": {"name": "cereals"}, "train__points_per_image": 50}, 7 * 5 + 2 * 7 * 50),
        ({"strategy": {"name": "core_set"}}, 7 * 5 + 2 * 3 * 1500),
        ({"num_rounds": 1, "budget": {"initial_pixels_per_image": "all"}}, 7 * 1500),
    ],
)
def test_points_of_regions_and_images_take_their_room(tmp_path, monkeypatch, changes, points):
    budget = {"initial_pixels_per_image": 5, "pixels_per_image": 4, "images_per_round": 3}
    options = {"budget": budget, "superpixels": {"method": "slic", "pixels": 20}}
    found = frozen_stages(tmp_path, monkeypatch, **(options | changes))
    assert found["point_features"].num_bytes == points * 2 * (24 + 32 + 96 + 320)


def test_only_chosen_images_cost_answers(tmp_path, monkeypatch):
    whole = {"strategy": {"name": "core_set"}, "budget": {"images_per_round": 3}}
    found = seconds_of(forecast_stages(probe_of(tmp_path, monkeypatch, **whole)))
    assert found["labels"] == (7 + 2 * 3) * MASK / 2 / 2


def test_features_that_do_not_fit_cost_nothing_and_spare_nothing(tmp_path, monkeypatch):
    never = {"pool": {"shard_images": 2, "features_cache": "never"}}
    found = frozen_stages(tmp_path, monkeypatch, **never)
    assert found["backbone_features"].seconds == found["backbone_features"].num_bytes == 0
    assert found["point_features"].seconds == 3 * 7 * (DECODE + FORWARD) / 2
    assert found["evaluate"].seconds == 3 * 4 * (DECODE + MASK + FORWARD)


def test_only_images_in_which_something_is_asked_cost_answers(tmp_path, monkeypatch):
    few = {"initial_images": 2, "initial_pixels_per_image": 5, "scope": "pool", "total_pixels": 3}
    found = seconds_of(forecast_stages(probe_of(tmp_path, monkeypatch, budget=few)))
    assert found["labels"] == (2 + 3 + 3) * MASK / 2 / 2


def test_reading_kept_features_and_masks_is_timed(tmp_path):
    probe = Probe(load_config(tiny_config(**FROZEN)), Folder(tmp_path), torch.device("cpu"))
    works = [np.zeros((48, 64, 3), np.uint8)] * 2
    taps = [tuple(np.zeros((3, 4, channels), np.float16) for channels in (2, 3))] * 2
    assert 0 < probe.read_taps(taps, works) < 10
    assert 0 < probe.decode_masks() < 10


def test_steps_over_points_are_counted_as_given_or_by_epochs(tmp_path, monkeypatch):
    given = {"train__phase1": {"steps": 30}, "train__phase2": settings(5, 2) | {"batch_points": 10}}
    found = frozen_stages(tmp_path, monkeypatch, **given)
    assert found["train phase I"].seconds == 3 * 30 * 0.5
    # 7 images x (5, 10, 15) points make 4, 7 and 11 batches of 10
    assert found["train phase II"].seconds == 5 * (4 + 7 + 11) * 0.25


def test_every_probed_image_has_as_many_points_as_a_round_asks_for(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch)
    inputs, works = probe.resize(probe.decode()[1])
    points = probe.batch_maker(ByHand(None), inputs, works, inputs).points
    assert points.start.tolist() == [0, 5, 10]
    assert len({(int(y), int(x)) for y, x in zip(points.y[:5], points.x[:5], strict=True)}) == 5
    assert [image.work_height for image in points.images] == [48, 48]


def test_seconds_are_those_of_one_result(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(probe_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert timed(lambda: ["a", "b", "c"]) == (2.0, ["a", "b", "c"])


def test_the_whole_is_the_sum_in_words():
    found = Forecast(
        [
            StageForecast("images", 60.0, 2**20),
            StageForecast("evaluate", 240.0, rounds=4),
            StageForecast("score", 3600.0, 2**21, 3),
        ],
        7,
        "cpu",
        2**30,
    )
    assert found.round_seconds == 60 + 1200
    assert found.lines()[-5:] == [
        "  images               60 s, 1.0 MiB",
        "  evaluate             4 min",
        "  score                1 h 00 min, 2.0 MiB",
        "  a round              21 min",
        "  together             1 h 05 min, 3.0 MiB; the probe took 1.0 GiB of memory",
    ]


@pytest.mark.parametrize("phase", [PHASE1, PHASE2])
def test_a_step_is_timed_after_one_to_warm_up(tmp_path, monkeypatch, phase):
    trainer, network, objective = trainer_of(tmp_path, monkeypatch, phase=phase)
    clock = iter([0.0, 100.0, 200.0, 203.0])
    stub = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr("madbal_ray.training.phase.time", stub)
    assert trainer.step_seconds(network) == 3.0
    assert len(objective.steps) == 2
    assert network.phases == [phase.name]
