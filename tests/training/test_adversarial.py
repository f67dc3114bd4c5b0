"""VAAL: which images look like none that is labelled."""

import numpy as np
import pytest
import torch

import madbal_ray
from madbal_ray.engine.progress import LogProgress
from madbal_ray.loop.verify import verify_run
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.training.adversarial import (
    LATENT,
    THUMBNAIL,
    AutoEncoder,
    Judge,
    _evidence_loss,
    learn_to_tell,
)
from madbal_ray.training.adversarial_job import LearnFamiliarity
from tests.conftest import tiny_config


def pictures(count, level, *, seed=0):
    """Return noise around one level of grey."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(-20, 21, (count, THUMBNAIL, THUMBNAIL, 3))
    return (level + noise).astype(np.uint8)


def test_images_of_another_kind_are_taken_for_unlabelled():
    unlabelled = np.concatenate([pictures(8, 60, seed=1), pictures(8, 190, seed=2)])
    judge = learn_to_tell(
        pictures(12, 60), unlabelled, steps=30, generator=np.random.default_rng(0)
    )
    score, code = judge.judged(unlabelled)
    assert score.shape == (16,)
    assert code.shape == (16, LATENT)
    assert score[:8].max() < score[8:].min()
    assert (score >= 0).all()
    assert (score <= 1).all()


def test_the_same_seed_gives_the_same_judge_and_torchs_own_chance_is_left_alone():
    images = pictures(4, 60), pictures(4, 190)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = learn_to_tell(*images, steps=2, generator=np.random.default_rng(3))
    assert torch.equal(torch.rand(1), expected)
    again = learn_to_tell(*images, steps=2, generator=np.random.default_rng(3))
    other = learn_to_tell(*images, steps=2, generator=np.random.default_rng(4))
    scores = [judge.judged(images[1])[0] for judge in (first, again, other)]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] != scores[2]).all()


def test_the_score_is_one_minus_what_the_judge_says_of_the_mean_code():
    class Constant(torch.nn.Module):
        def forward(self, code):
            return torch.full((len(code), 1), np.log(3.0))  # labelled: 3 to 1

    score, code = Judge(AutoEncoder(), Constant()).judged(pictures(300, 90))
    assert score == pytest.approx(np.full(300, 0.25))
    assert code.shape == (300, LATENT)
    assert len(Judge(AutoEncoder(), Constant()).judged(pictures(0, 90))[0]) == 0


def test_the_autoencoders_loss_is_error_and_divergence_for_each_value():
    images = torch.zeros(2, 3, 4, 4)
    mean, log_variance = torch.full((2, 5), 2.0), torch.full((2, 5), np.log(4.0))
    # of each code (4 + 4 - 1 - ln 4) / 2, ten codes, 96 values; an error of 0.25 each
    expected = 0.25 + 10 * 0.5 * (7 - np.log(4.0)) / 96
    found = _evidence_loss(torch.full_like(images, 0.5), images, mean, log_variance)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    perfect = _evidence_loss(images, images, torch.zeros(2, 5), torch.zeros(2, 5))
    assert float(perfect) == 0.0


class TestStage:
    """Six images in two shards."""

    def job(self, tmp_path, *answered, steps=1):
        folder = Folder(tmp_path)
        thumbnails = StageDir.plan(folder, "thumbnails", {}, {})
        names = [f"{letter}.png" for letter in "abcdef"]
        records = []
        for shard_id in (0, 1):
            mine = names[3 * shard_id : 3 * shard_id + 3]
            columns = {
                "image_id": mine,
                "pixels": [picture.tobytes() for picture in pictures(3, 60 + 120 * shard_id)],
            }
            table = tables.from_columns("thumbnails", columns)
            records.append(thumbnails.write_table("thumbnails", shard_id, table))
        thumbnails.commit(records, {})
        labels = []
        for round_index, rows in enumerate(answered):
            stage = StageDir.plan(folder, "labels", {"round": round_index}, {})
            written = []
            for shard_id in (0, 1):
                missing = dict.fromkeys(tables.schema("labels").names)
                of_shard = [
                    missing | {"round": round_index, "image_id": name, "y": 0, "x": 0, "unit": unit}
                    for name, unit in rows
                    if names.index(name) // 3 == shard_id
                ]
                table = tables.from_rows("labels", of_shard)
                written.append(stage.write_table("labels", shard_id, table))
            stage.commit(written, {})
            labels.append(stage)
        output = StageDir.plan(folder, "familiarity", {"steps": steps}, {})
        return LearnFamiliarity(
            output=output,
            thumbnails=thumbnails,
            labels=tuple(labels),
            shard_ids=[0, 1],
            steps=steps,
            round_index=2,
            seed=0,
        )

    def test_dark_images_were_answered_so_bright_ones_are_strange(self, tmp_path):
        job = self.job(tmp_path, [("a.png", "pixel"), ("c.png", "superpixel")], steps=30)
        job.run()
        assert job.output.marker().summary == {"labelled_images": 2, "is_learned": True}
        first, second = (job.output.read_table("image_scores", [i]) for i in (0, 1))
        assert first["image_id"].to_pylist() == ["a.png", "b.png", "c.png"]
        assert second["image_id"].to_pylist() == ["d.png", "e.png", "f.png"]
        assert max(first["score"].to_pylist()) < min(second["score"].to_pylist())
        assert len(first["feature"][0]) == LATENT

    def test_once_images_were_asked_as_a_whole_only_they_are_labelled(self, tmp_path):
        everywhere = [(f"{letter}.png", "pixel") for letter in "abcdef"]
        job = self.job(tmp_path, everywhere, [("e.png", "image")], steps=30)
        job.run()
        assert job.output.marker().summary == {"labelled_images": 1, "is_learned": True}
        first, second = (job.output.read_table("image_scores", [i])["score"] for i in (0, 1))
        assert min(first.to_pylist()) > max(second.to_pylist())

    @pytest.mark.parametrize("answered", ["abcdef", ""])
    def test_with_nothing_to_tell_apart_scores_are_lots(self, tmp_path, answered):
        job = self.job(tmp_path, [(f"{letter}.png", "pixel") for letter in answered])
        job.run()
        summary = job.output.marker().summary
        assert summary == {"labelled_images": len(answered), "is_learned": False}
        scores = [
            score
            for shard_id in (0, 1)
            for score in job.output.read_table("image_scores", [shard_id])["score"].to_pylist()
        ]
        assert len(set(scores)) == 6
        assert 0 <= min(scores) <= max(scores) <= 1

    def test_threads_are_given_back(self, tmp_path):
        torch.set_num_threads(2)
        try:
            self.job(tmp_path, [("a.png", "pixel")]).run()
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)


class Said(LogProgress):
    """Keeps what people are told."""

    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def say(self, text):
        self.lines.append(text)


def vaal(folder, **budget):
    config = tiny_config(
        num_rounds=3,
        strategy={"name": "vaal", "options": {"steps": 2}},
        budget={"images_per_round": 2} | budget,
    )
    said = []
    run = madbal_ray.run(config, run_dir=folder, engine="local", progress=Said(said))
    return run, [line for line in said if "nothing to tell apart" in line]


class TestRuns:
    def test_labels_everywhere_give_it_nothing_in_round_one_and_it_says_so(self, tmp_path):
        run, said = vaal(tmp_path / "run", initial_pixels_per_image=4)
        assert len(said) == 1
        assert said[0].startswith("round 1: vaal has nothing to tell apart")
        judged = [run.run_dir.find("familiarity", i).marker().summary for i in (1, 2)]
        assert judged == [
            {"labelled_images": 6, "is_learned": False},
            {"labelled_images": 2, "is_learned": True},
        ]

    def test_some_images_first_and_then_the_least_familiar(self, tmp_path):
        run, said = vaal(tmp_path / "run", initial_images=3, initial_pixels_per_image="all")
        assert said == []
        stage = run.run_dir.find("familiarity", 1)
        assert stage.marker().summary == {"labelled_images": 3, "is_learned": True}
        scores = stage.read_table("image_scores").to_pandas().set_index("image_id")["score"]
        first = set(run.table("queries", 0)["image_id"].to_pylist())
        asked = run.table("queries", 1).to_pandas()
        strangest = scores.drop(list(first)).nlargest(2).index
        assert asked["image_id"].tolist() == sorted(strangest)
        assert asked["score"].to_numpy() == pytest.approx(scores.loc[asked["image_id"]].to_numpy())
        assert run.run_dir.find("score", 1) is None
        said = list(verify_run(run.run_dir))
        assert "round 1: selection replayed from the stored scores" in said
        assert said[-1].endswith("thumbnails, familiarity")
