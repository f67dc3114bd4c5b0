"""`madbal score`: the same rows from a folder, Parquet and tars; bad input in one sentence."""

import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from madbal_ray.errors import ConfigError, DataError, MadbalError, PoolError
from madbal_ray.runs.status import read_status
from madbal_ray.vision.grids import nearest_pixel

TABLES = ("superpixel_scores", "cluster_budgets", "queries")


@pytest.fixture(scope="module")
def pools(tiny_run, tmp_path_factory):
    """The tiny run's images without masks, as a folder, Parquet and tars."""
    root = tmp_path_factory.mktemp("pools")
    source = next(Path(str(tiny_run.run_dir)).parent.glob("pool/synthetic/*/images"), None)
    source = source or next(Path(str(tiny_run.run_dir)).parent.glob("pool/synthetic/*"))
    files = sorted(source.rglob("train/*.png"))
    files = [path for path in files if "mask" not in str(path)][:6]
    assert len(files) == 6
    (root / "folder" / "a").mkdir(parents=True)
    names = [f"a/{path.name}" for path in files]
    for path, name in zip(files, names, strict=True):
        (root / "folder" / name).write_bytes(path.read_bytes())
    (root / "folder" / "broken.png").write_bytes(b"not an image")
    names, files = [*names, "broken.png"], [*files, root / "folder" / "broken.png"]
    (root / "tars").mkdir()
    for part in range(2):
        with tarfile.open(root / "tars" / f"{part}.tar", "w") as archive:
            for path, name in list(zip(files, names, strict=True))[part::2]:
                archive.add(path, name)
    (root / "parquet").mkdir()
    table = pa.table({"image_id": names, "image": [path.read_bytes() for path in files]})
    pq.write_table(table, root / "parquet" / "a.parquet", row_group_size=3)
    (root / "addresses").mkdir()
    table = pa.table({"image_id": names, "uri": [str(path) for path in files]})
    pq.write_table(table, root / "addresses" / "a.parquet")
    return root


@pytest.fixture(scope="module")
def scored(tiny_run, pools, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "folder"
    api.score(
        pools / "folder", checkpoint=tiny_run.run_dir.folder.uri, out=out, budget=4, engine="local"
    )
    return madbal_ray.open_run(out)


@pytest.mark.parametrize("kind", ["parquet", "tars", "addresses"])
def test_the_same_rows_from_every_kind_of_pool(scored, tiny_run, pools, tmp_path, kind):
    checkpoint = tiny_run.run_dir.folder.uri
    out = tmp_path / "out"
    api.score(pools / kind, checkpoint=checkpoint, out=out, budget=4, engine="local")
    found = madbal_ray.open_run(out)
    for name in TABLES:
        assert found.table(name, 0).equals(scored.table(name, 0)), name
    wanted = ["image_id", "image_y", "image_x", "rank", "score"]
    assert (
        found.table("pixel_requests", 0)
        .select(wanted)
        .equals(scored.table("pixel_requests", 0).select(wanted))
    )


def test_requests_are_queries_on_the_original_grid(scored):
    requests = scored.table("pixel_requests", 0).to_pandas()
    queries = scored.table("queries", 0).to_pandas()
    assert requests.groupby("image_id").size().tolist() == [4] * 6
    assert requests["rank"].tolist() == queries["rank"].tolist()
    images = scored.table("images").to_pandas().set_index("image_id")
    sizes = images.loc[queries["image_id"]]
    expected = [
        nearest_pixel(np.int64(y), work, full)
        for y, work, full in zip(queries["y"], sizes["work_height"], sizes["height"], strict=True)
    ]
    assert requests["image_y"].tolist() == [int(value) for value in expected]
    bad = scored.table("quarantine").to_pylist()
    assert [row["image_id"] for row in bad] == ["broken.png"]


def test_an_exported_file_scores_like_its_run(scored, tiny_run, pools, tmp_path):
    file = tmp_path / "model.safetensors"
    result = CliRunner().invoke(main, ["export", tiny_run.run_dir.folder.uri, str(file)])
    assert result.exit_code == 0, result.output
    arguments = ["--pool", pools / "folder", "--checkpoint", file, "--out", tmp_path / "out"]
    command = ["score", *map(str, arguments), "--budget", "4", "--engine", "local"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "pixel_requests: " in result.output
    found = madbal_ray.open_run(tmp_path / "out")
    assert found.table("queries", 0).equals(scored.table("queries", 0))
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0
    assert "score:" not in again.output  # done before


def test_scores_and_queries_are_verified(scored):
    *_, selection, result = api.verify(scored.run_dir.folder.uri)
    assert selection == "round 0: selection replayed from the stored scores"
    assert result == (
        "verified: 1 of 1 rounds; taken as stored: index, images, superpixels, "
        "superpixel_features, centroids, score"
    )


def test_a_folder_of_scores_is_finished_when_they_are_there(scored):
    lines = read_status(scored.run_dir).lines()
    assert (lines[0], lines[-1]) == ("work     called from Python", "state    finished")


def test_scores_without_a_budget(tiny_run, pools, tmp_path):
    written = api.score(
        pools / "tars", checkpoint=tiny_run.run_dir.folder.uri, out=tmp_path / "o", engine="local"
    )
    assert list(written) == ["scores"]
    assert list(api.verify(tmp_path / "o"))[-1].startswith("verified: 1 of 1 rounds; taken as")


def test_ray_scores_like_the_local_engine(ray_session, scored, tiny_run, pools, tmp_path):
    api.score(
        pools / "parquet",
        checkpoint=tiny_run.run_dir.folder.uri,
        out=tmp_path / "out",
        budget=4,
        overrides=["resources.scoring_workers=2"],
    )
    found = madbal_ray.open_run(tmp_path / "out")
    assert found.table("queries", 0).equals(scored.table("queries", 0))


def test_a_hash_in_a_name_is_a_name(tiny_run, pools, tmp_path):
    (tmp_path / "pool").mkdir()
    for index, path in enumerate(sorted((pools / "folder" / "a").iterdir())[:3]):
        (tmp_path / "pool" / f"photo #{index}.png").write_bytes(path.read_bytes())
    out = tmp_path / "out"
    api.score(tmp_path / "pool", checkpoint=tiny_run.run_dir.folder.uri, out=out, engine="local")
    found = madbal_ray.open_run(out)
    assert found.table("images").num_rows == 3
    assert found.table("quarantine").num_rows == 0


def test_bytes_are_found_beside_a_text_column(tiny_run, pools, tmp_path):
    (tmp_path / "pool").mkdir()
    files = sorted((pools / "folder" / "a").iterdir())[:3]
    table = {"image": [path.name for path in files], "bytes": [path.read_bytes() for path in files]}
    pq.write_table(pa.table(table), tmp_path / "pool" / "p.parquet")
    out = tmp_path / "out"
    api.score(tmp_path / "pool", checkpoint=tiny_run.run_dir.folder.uri, out=out, engine="local")
    ids = madbal_ray.open_run(out).table("images")["image_id"].to_pylist()
    assert ids == [f"p.parquet/{row:09d}" for row in range(3)]


class TestBadInput:
    def score(self, tiny_run, pool, out, **options):
        options = {"checkpoint": tiny_run.run_dir.folder.uri} | options
        return api.score(pool, out=out, budget=4, engine="local", **options)

    def refused(self, message, error, tiny_run, pool, out, **options):
        with pytest.raises(error, match=message) as caught:
            self.score(tiny_run, pool, out, **options)
        assert isinstance(caught.value, MadbalError)
        assert not list(Path(out).rglob("score/*/_MARKER*"))

    def test_empty_pool(self, tiny_run, tmp_path):
        (tmp_path / "pool").mkdir()
        self.refused("holds no images", PoolError, tiny_run, tmp_path / "pool", tmp_path / "out")

    def test_parquet_without_images(self, tiny_run, tmp_path):
        (tmp_path / "pool").mkdir()
        pq.write_table(pa.table({"label": [1], "name": ["a"]}), tmp_path / "pool" / "a.parquet")
        message = "has columns label, name; expected image bytes in one of image, bytes"
        self.refused(message, DataError, tiny_run, tmp_path / "pool", tmp_path / "out")

    def test_parquet_cut_off(self, tiny_run, pools, tmp_path):
        (tmp_path / "pool").mkdir()
        data = (pools / "parquet" / "a.parquet").read_bytes()
        (tmp_path / "pool" / "a.parquet").write_bytes(data[: len(data) // 2])
        message = "no readable Parquet file"
        self.refused(message, DataError, tiny_run, tmp_path / "pool", tmp_path / "out")

    @pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
    def test_tar_cut_off_in_the_middle(self, tiny_run, pools, tmp_path, kept):
        (tmp_path / "pool").mkdir()
        with tarfile.open(pools / "tars" / "0.tar") as archive:
            end = archive.getmembers()[-1].offset_data + archive.getmembers()[-1].size
        data = (pools / "tars" / "0.tar").read_bytes()[: int(kept * end)]
        (tmp_path / "pool" / "0.tar").write_bytes(data)
        message = "cut off"
        self.refused(message, DataError, tiny_run, tmp_path / "pool", tmp_path / "out")

    def test_several_kinds_of_files(self, tiny_run, pools, tmp_path):
        (tmp_path / "pool").mkdir()
        for path in (pools / "tars" / "0.tar", pools / "parquet" / "a.parquet"):
            (tmp_path / "pool" / path.name).write_bytes(path.read_bytes())
        message = r"several kinds of files \(1 parquet, 1 tar\)"
        self.refused(message, DataError, tiny_run, tmp_path / "pool", tmp_path / "out")

    def test_checkpoint_of_another_kind(self, tiny_run, pools, tmp_path):
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(2, np.float32)}, tmp_path / "x.safetensors")
        self.refused(
            "holds no madbal model", ConfigError, tiny_run, pools / "tars", tmp_path / "out",
            checkpoint=tmp_path / "x.safetensors",
        )  # fmt: skip

    def test_no_checkpoint(self, tiny_run, pools, tmp_path):
        self.refused(
            "cannot be read", ConfigError, tiny_run, pools / "tars", tmp_path / "out",
            checkpoint=tmp_path / "none.safetensors",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("model.head=deeplabv3", "belongs to the checkpoint"),
            ("strategy.name=random", "nothing to score"),
            ("strategy.name=averaging", "trained without"),
        ],
    )
    def test_overrides_that_do_not_fit(self, tiny_run, pools, tmp_path, override, message):
        self.refused(
            message, ConfigError, tiny_run, pools / "tars", tmp_path / "out", overrides=[override]
        )

    def test_another_pool_into_the_same_folder(self, tiny_run, pools, tmp_path):
        self.score(tiny_run, pools / "tars", tmp_path / "out")
        (tmp_path / "less").mkdir()
        (tmp_path / "less" / "0.tar").write_bytes((pools / "tars" / "0.tar").read_bytes())
        with pytest.raises(ConfigError, match="choose another"):
            self.score(tiny_run, tmp_path / "less", tmp_path / "out")

    def test_no_such_round(self, tiny_run, pools, tmp_path):
        self.refused(
            "round 7 is not finished", MadbalError, tiny_run, pools / "tars", tmp_path / "out",
            round_index=7,
        )  # fmt: skip


def test_what_was_asked_elsewhere_is_not_asked_again(scored, tiny_run, pools, tmp_path):
    """A result of score, a CSV of two pixels: nothing of them among the new queries."""
    checkpoint = tiny_run.run_dir.folder.uri
    first = scored.table("pixel_requests", 0).to_pandas()
    pixels = ["image_id", "image_y", "image_x"]
    listed = first.iloc[:2][pixels].rename(columns={"image_x": "x", "image_y": "y"})
    listed[["x", "y"]] += 0.5
    listed.to_csv(tmp_path / "known.csv", index=False)
    # a result of score that nobody answered: its requests are known through its store
    api.export_requests(scored.run_dir.folder.uri, out=tmp_path / "ask.csv")
    for number, (source, known) in enumerate(
        [(tmp_path / "known.csv", first.iloc[:2]), (scored.run_dir.folder.uri, first)]
    ):
        out = tmp_path / str(number)
        api.score(
            pools / "folder", checkpoint=checkpoint, out=out, budget=4, engine="local",
            labels=[source],
        )  # fmt: skip
        found = madbal_ray.open_run(out).table("pixel_requests", 0).to_pandas()
        assert len(found) == len(first)
        assert found.merge(known[pixels]).empty
    (tmp_path / "other.csv").write_text("image_id,x,y\nnowhere.png,1,1\n")
    with pytest.raises(ConfigError, match=r"none of the 1 pixels .* 'nowhere.png'"):
        api.score(
            pools / "folder", checkpoint=checkpoint, out=tmp_path / "2", budget=4, engine="local",
            labels=[tmp_path / "other.csv"],
        )  # fmt: skip
    (tmp_path / "bad.csv").write_text(f"image_id,x,y\n{first['image_id'][0]},900,1\n")
    with pytest.raises(DataError, match="a label lies at y 1, x 900"):
        api.score(
            pools / "folder", checkpoint=checkpoint, out=tmp_path / "3", budget=4, engine="local",
            labels=[tmp_path / "bad.csv"],
        )  # fmt: skip
