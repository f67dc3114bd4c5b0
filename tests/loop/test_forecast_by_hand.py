"""A forecast multiplies: known seconds of one step, image and pass make known seconds of a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from madbal_ray.config.file import load_config
from madbal_ray.loop import forecast as module
from madbal_ray.loop.forecast import StageForecast, _Probe, _timed
from madbal_ray.models.trained import PHASE1, PHASE2
from madbal_ray.state.storage import Folder
from madbal_ray.training.phase import PhaseTrainer
from tests.conftest import tiny_config
from tests.hand_made import ByHand, colours_are_logits
from tests.training.test_phase import trainer_of

STEP = {"phase1": 0.5, "phase2": 0.25}
DECODE, FORWARD, SCORE = 2.0, 3.0, 5.0


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

    def timed(work):
        return FORWARD, work()

    network = ByHand(colours_are_logits)
    monkeypatch.setattr(module, "build_network", lambda *args, **options: network)
    monkeypatch.setattr(module, "EmbedSuperpixels", Embedder)
    monkeypatch.setattr(module, "SegmentImages", Segmenter)
    monkeypatch.setattr(module, "_timed", timed)
    monkeypatch.setattr(_Probe, "_decode", probe_decode)
    monkeypatch.setattr(_Probe, "_score", lambda self, *args: SCORE)
    monkeypatch.setattr(PhaseTrainer, "step_seconds", lambda self, network: STEP[self.phase.name])
    options = {
        "num_rounds": 3,
        "data__synthetic": {"num_train": 7, "num_val": 4, "height": 48, "width": 64},
        "train__phase1": settings(11, 4),
        "train__phase2": settings(5, 2),
        "resources": {"scoring_workers": 2, "decode_threads": 2},
    }
    config = load_config(tiny_config(**(options | changes)))
    return _Probe(config, Folder(tmp_path), torch.device("cpu"))


def seconds_of(found):
    return {one.stage: one.seconds for one in found.stages}


def test_training_takes_epochs_times_steps_times_rounds(tmp_path, monkeypatch):
    found = seconds_of(probe_of(tmp_path, monkeypatch).forecast())
    assert found["train phase I"] == 3 * 11 * 2 * 0.5  # 7 images make 2 batches of 4
    assert found["train phase II"] == 3 * 5 * 4 * 0.25  # and 4 of 2


def test_training_workers_share_a_step(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch, train__num_workers=2)
    network = ByHand(colours_are_logits)
    inputs, works = probe._resize(probe._decode()[1])
    maker = probe._batch_maker(inputs, works)
    assert probe._train(network, maker, PHASE1) == 3 * 11 * 2 * 0.5 / 2
    assert probe._train(network, maker, PHASE2) == 3 * 5 * 4 * 0.25 / 2


def test_the_pool_is_prepared_once_and_scored_in_every_round_but_the_first(tmp_path, monkeypatch):
    found = probe_of(tmp_path, monkeypatch).forecast()
    seconds = seconds_of(found)
    assert seconds["images"] == 7 * DECODE / 2 / 2
    assert seconds["superpixels"] == 7 * (DECODE + FORWARD) / 2
    assert seconds["superpixel_features"] == 7 * (DECODE + FORWARD) / 2
    assert seconds["evaluate"] == 3 * 4 * (DECODE + FORWARD)
    assert seconds["score"] == 2 * 7 * SCORE / 2
    num_bytes = {one.stage: one.num_bytes for one in found.stages}
    assert num_bytes["superpixels"] == 7 * 48 * 64 * 2 / 8
    assert num_bytes["superpixel_features"] == 7 * 160
    assert num_bytes["score"] == 2 * 7 * 10 * 40
    assert found.num_images == 7


def test_decoding_that_is_slower_than_the_network_decides(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch)
    monkeypatch.setattr(_Probe, "_score", lambda self, *args: 0.5)
    assert seconds_of(probe.forecast())["score"] == 2 * 7 * DECODE / 2


def test_a_single_round_scores_nothing(tmp_path, monkeypatch):
    found = seconds_of(probe_of(tmp_path, monkeypatch, num_rounds=1).forecast())
    assert "score" not in found
    assert found["train phase I"] == 11 * 2 * 0.5


def test_every_probed_image_has_as_many_points_as_a_round_asks_for(tmp_path, monkeypatch):
    probe = probe_of(tmp_path, monkeypatch)
    inputs, works = probe._resize(probe._decode()[1])
    points = probe._batch_maker(inputs, works).points
    assert points.start.tolist() == [0, 5, 10]
    assert len({(int(y), int(x)) for y, x in zip(points.y[:5], points.x[:5], strict=True)}) == 5
    assert [image.work_height for image in points.images] == [48, 48]


def test_seconds_are_those_of_one_result(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert _timed(lambda: ["a", "b", "c"]) == (2.0, ["a", "b", "c"])


def test_the_whole_is_the_sum_in_words():
    found = module.Forecast(
        [StageForecast("images", 60.0, 2**20), StageForecast("score", 3600.0, 2**21)],
        7,
        "cpu",
        2**30,
    )
    assert found.lines()[-3:] == [
        "  images               1 min, 1.0 MiB",
        "  score                1 h 00 min, 2.0 MiB",
        "  together             1 h 01 min, 3.0 MiB; the probe took 1.0 GiB of memory",
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
