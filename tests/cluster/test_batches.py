"""The example of docs/cluster.md: a run's scorer in Ray Data; and what it gives, by itself."""

import re
from pathlib import Path

import numpy as np
import pytest

from madbal_ray.errors import ShapeError
from madbal_ray.runs.batch_scorer import BatchScorer

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


@pytest.fixture(scope="module")
def images(tiny_run):
    reader = tiny_run.reader()
    return np.stack([reader.original(image) for _, image in tiny_run.pool_sample(6)])


def test_scores_are_those_of_the_run(tiny_run, images):
    found = BatchScorer(tiny_run.run_dir.folder.uri, round_index=0)(
        {"image": images, "id": "abcdef"}
    )
    rows = tiny_run.table("superpixel_scores", 1).to_pandas()
    # of a superpixel the run keeps the mean over pixels that were not asked, and its best pixel
    best = rows.assign(top=rows["top_score"].map(max)).sort_values("top").groupby("image_id").last()
    names = [image.image_id for _, image in tiny_run.pool_sample(6)]
    for index, name in enumerate(names):
        y, x = found["most_doubtful"][index]
        assert (y, x) == (best.loc[name, "top_y"][0], best.loc[name, "top_x"][0])
    assert found["id"] == "abcdef"
    assert found["mean_score"].shape == (6,)


def test_images_of_another_kind_are_a_sentence(tiny_run, images):
    scorer = BatchScorer(tiny_run.run_dir.folder.uri)
    with pytest.raises(ShapeError, match=r"column image is float64 \(6, 48, 64, 3\); expected"):
        scorer({"image": images / 255})


def test_the_example_of_the_page(ray_session, tiny_run, images, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", images)
    (text,) = re.findall(r"<!-- map_batches -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = text.replace("s3://my-bucket/runs/camvid", tiny_run.run_dir.folder.uri)
    text = text.replace('ray.data.read_images("s3://my-bucket/images")', "given")
    text = re.sub(r"num_gpus=1,\s*", "", text.replace('"cuda"', '"cpu"'))
    import ray

    names = {"given": ray.data.from_items([{"image": image} for image in images])}
    exec(text, names)
    assert len(names["doubtful"]) == 3
    scores = [row["mean_score"] for row in names["doubtful"]]
    assert scores == sorted(scores, reverse=True)
