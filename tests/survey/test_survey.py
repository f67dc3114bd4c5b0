"""What `madbal data check` finds in trees that people have, and that what it writes can be run."""

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from madbal_ray.cli import main
from madbal_ray.config.file import load_config
from madbal_ray.data.dataset import spread_colors
from madbal_ray.data.registry import open_dataset
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder
from madbal_ray.survey.duplicates import Look, across_splits, look_at
from madbal_ray.survey.examine import survey
from madbal_ray.survey.experiment import write_experiment
from madbal_ray.survey.layout import data_set_below, find_layout
from madbal_ray.survey.page import page

LISTS = "ImageSets/Segmentation"


def scene(seed, height=48, width=64):
    """Return an image of smooth blots, which no other seed resembles."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path, array, *, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image = Image.fromarray(array, "P")
        image.putpalette(np.array(spread_colors(256), np.uint8).tobytes())
    image.save(path)


def voc_mask(index):
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 20 + index : 40] = 1 + index % 2
    mask[:4] = 255
    return mask


def voc(root, count=8, lists=()):
    for index in range(count):
        save(root / f"JPEGImages/{index:03d}.jpg", scene(index))
        save(root / f"SegmentationClass/{index:03d}.png", voc_mask(index), palette=True)
    for split, names in lists:
        (root / LISTS).mkdir(parents=True, exist_ok=True)
        (root / LISTS / f"{split}.txt").write_text("".join(f"{i:03d}\n" for i in names))
    return root


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return Folder(root)


# ---- layouts ----


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["images/train/a.jpg", "images/val/b.jpg", "masks/train/a.png", "masks/val/b.png"], {}),
        (["images/a.jpg", "masks/a.png"], {"val_fraction": 0.2}),
        (
            ["Photos/a.jpg", "Photos/b.jpg", "GT/gt_a.png", "GT/gt_b.png"],
            {"images": "Photos", "masks": "GT", "mask_name": "gt_{stem}.png", "val_fraction": 0.2},
        ),
        (
            ["images/a.jpg", "images/a_mask.png", "images/b.jpg", "images/b_mask.png"],
            {"masks": "images", "mask_name": "{stem}_mask.png", "val_fraction": 0.2},
        ),
        (["a.jpg", "a.png"], {"images": ".", "masks": ".", "val_fraction": 0.2}),
        (["pictures/a.jpg"], {"images": "pictures", "masks": None, "val_fraction": 0.2}),
        (
            ["images/img.png", *(f"images/img_{i}.png" for i in range(9))],
            {"masks": None, "val_fraction": 0.2},
        ),
    ],
)
def test_layouts(tmp_path, names, options):
    layout = find_layout(touch(tmp_path, *names))
    assert layout.options == options
    assert layout.reasons.keys() == options.keys()
    assert not layout.has_classes


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (["VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/SegmentationClass/a.png"],
         "VOCdevkit/VOC2012"),
        (["unpacked/train/a.jpg", "unpacked/val/b.jpg"], "unpacked"),
        (["unpacked/train/a.jpg", "classes.yaml"], ""),
        (["unpacked/a/b.jpg", "train.txt"], ""),
        (["images/train/a.jpg"], ""),
        (["pictures/a.jpg"], ""),
        (["images/a.jpg", "masks/a.png"], ""),
        (["a.jpg", "deep/b/c.jpg"], ""),
    ],
)  # fmt: skip
def test_a_data_set_is_found_below_the_folders_that_wrap_it(tmp_path, names, below):
    found = data_set_below(touch(tmp_path, *names))
    assert found.uri == (Folder(tmp_path) / below if below else Folder(tmp_path)).uri


def test_no_image_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="it does not exist"):
        find_layout(Folder(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="it holds other files"):
        find_layout(touch(tmp_path, "notes.txt"))


# ---- duplicates ----


def test_copies_across_splits_are_found_and_others_are_not():
    images = [scene(seed) for seed in range(12)]
    looks = [(f"t{i}", "train", look_at(image)) for i, image in enumerate(images)]
    smaller = np.array(Image.fromarray(images[3]).resize((32, 24)))
    looks += [("v3", "val", look_at(smaller)), ("v99", "val", look_at(scene(99)))]
    assert list(across_splits(looks)) == [("t3", "v3")]
    assert list(across_splits([*looks[:12], ("t12", "train", look_at(images[5]))])) == []


@pytest.mark.parametrize(
    ("bits", "is_found"), [([0, 20, 40, 63], True), ([0, 9, 20, 40, 63], False)]
)
def test_hashes_may_differ_in_four_bits_wherever_they_are(bits, is_found):
    thumbnail = np.zeros((32, 32), np.uint8)
    other = Look(sum(1 << bit for bit in bits), thumbnail)
    looks = [("a", "train", Look(0, thumbnail)), ("b", "val", other)]
    assert bool(list(across_splits(looks))) == is_found
    flat = Look(0, np.full((32, 32), 7, np.uint8))  # one hash, another grey
    assert list(across_splits([looks[0], ("c", "val", flat)])) == []


# ---- what is told ----


def test_everything_that_is_wrong_is_told(tmp_path):
    root = tmp_path
    for index in range(6):
        split = "train" if index < 4 else "val"
        save(root / f"images/{split}/{index}.png", scene(index))
        save(root / f"masks/{split}/{index}.png", voc_mask(index) % 254)
    save(root / "images/val/again.png", scene(0))
    save(root / "masks/val/other.png", voc_mask(0))
    (root / "images/train/broken.png").write_bytes(b"\x89PNG junk")
    (root / "classes.txt").write_text("road\ncar\ntree\nbus\n")
    lines = list(survey(Folder(root), most=100, threads=1).lines())
    text = "\n".join(lines)
    assert "8 images" in lines[0]
    assert lines[1] == "splits    train 5, val 3"
    assert "sizes     48 x 64 (7)" in lines
    assert "masks     L (6)" in lines
    assert "class     bus 0.00% (never)" in lines
    assert (
        "finding   2 images have no mask (for images/train/broken.png, masks/train/broken.png was "
        "looked for)" in lines
    )
    assert "finding   1 masks are no image's, the first is masks/val/other.png" in lines
    assert "finding   1 images cannot be used: images/train/broken.png" in text
    assert "1 pairs show the same in two splits" in text
    assert "images/train/0.png and images/val/again.png" in text
    assert "problem" not in text


def test_shares_of_classes_and_void(tmp_path):
    save(tmp_path / "images/a.png", scene(0))
    mask = np.zeros((48, 64), np.uint8)
    mask[:12] = 1
    mask[12:18] = 255
    save(tmp_path / "masks/a.png", mask)
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    found = survey(Folder(tmp_path), most=100, threads=1)
    assert found.class_pixels() == {0: 30 * 64, 1: 12 * 64, 255: 6 * 64}
    lines = list(found.lines())
    assert {"class     road 62.50%", "class     car 25.00%", "void      12.50%"} <= set(lines)
    assert "problem   one split, train: nothing to measure on" in "\n".join(lines)


def test_masks_that_do_not_fit_the_class_file_are_a_problem(tmp_path):
    save(tmp_path / "images/a.png", scene(0))
    save(tmp_path / "masks/a.png", np.full((48, 64), 9, np.uint8))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    problem, _ = survey(Folder(tmp_path), most=100, threads=1).problems
    assert "1 masks cannot be used: masks/a.png: mask values outside the class map: 9" in problem
    result = CliRunner().invoke(main, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1
    assert "problem   1 masks cannot be used" in result.output


def test_many_images_are_sampled_and_that_is_said(tmp_path):
    root = voc(tmp_path)
    found = survey(Folder(root), most=3, threads=1)
    assert [one.record.image_id[-7:] for one in found.examined] == ["000.jpg", "003.jpg", "006.jpg"]
    assert next(found.lines()).endswith("8 images; 3 of them looked at, evenly spaced")


def test_the_page_shows_images_under_their_masks(tmp_path):
    save(tmp_path / "images/a<b.png", np.zeros((48, 64, 3), np.uint8))
    save(tmp_path / "masks/a<b.png", np.ones((48, 64), np.uint8))
    (tmp_path / "classes.yaml").write_text(
        "classes: [{name: road}, {name: <car>, color: [9, 8, 7]}]"
    )
    text = page(survey(Folder(tmp_path), most=100, threads=1))
    assert "a&lt;b.png under its mask" in text
    assert "&lt;car&gt;" in text
    assert "<b.png" not in text.replace("&lt;b.png", "")
    assert "rgb(9, 8, 7)" in text
    assert text.count("data:image/jpeg;base64,") == 1


# ---- what is written ----


def follows_the_guidance(config):
    """docs/choosing.md's advice is what is written for a folder of the user's own."""
    assert config.strategy.name == "herded_margin"
    assert config.train.phase1.objective == "weighted_cross_entropy"
    assert config.train.phase1.objective_options == {}
    assert (config.train.phase1.steps, config.train.phase1.epochs) == (None, 40)
    assert config.train.mirrored_points
    assert config.model.learns_from_points
    assert config.model.dropout == 0.5


def test_an_experiment_of_a_voc_tree_without_lists(tmp_path):
    root, out = voc(tmp_path / "voc"), tmp_path / "mine.yaml"
    result = CliRunner().invoke(
        main, ["data", "check", str(root), "--out", str(out), "--page", str(tmp_path / "p.html")]
    )
    assert result.exit_code == 0, result.output
    config = load_config(out)
    folder = config.data.folder
    assert (folder.images, folder.masks, folder.val_fraction) == (
        "JPEGImages",
        "SegmentationClass",
        0.2,
    )
    assert config.budget.pixels_per_image > 2 * config.clustering.num_clusters
    follows_the_guidance(config)
    drafted = yaml.safe_load((tmp_path / "mine.classes.yaml").read_text())
    assert [one["value"] for one in drafted["classes"]] == [0, 1, 2]
    assert drafted["void"] == [255]
    dataset = open_dataset(config.data, Folder(tmp_path))
    assert dataset.mask_values == {0: 0, 1: 1, 2: 2, 255: 255}
    assert {split: dataset.size_of(split) for split in dataset.splits} == {"train": 6, "val": 2}
    bare = [line for line in out.read_text().splitlines() if line[0] == " " and "#" not in line]
    assert [line.strip().partition(":")[0] for line in bare] == [
        "name",
        "root",
        "folder",
    ]
    again = CliRunner().invoke(main, ["data", "check", str(root), "--out", str(out)])
    assert again.exit_code == 2
    assert "exists; choose another name" in again.output


def test_an_experiment_of_a_voc_tree_with_lists(tmp_path):
    root = voc(tmp_path / "voc", lists=[("train", range(5)), ("val", range(5, 7))])
    write_experiment(survey(Folder(root), most=100, threads=1), tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert config.data.folder.splits == {s: f"{LISTS}/{s}.txt" for s in ("train", "val")}
    dataset = open_dataset(config.data, Folder(tmp_path))
    assert {split: dataset.size_of(split) for split in dataset.splits} == {"train": 5, "val": 2}


def test_two_values_are_two_classes_whatever_they_are(tmp_path):
    for index in range(3):
        save(tmp_path / f"images/{index}.png", scene(index))
        save(
            tmp_path / f"masks/{index}.png", np.where(voc_mask(index) == 1, 255, 0).astype(np.uint8)
        )
    write_experiment(survey(Folder(tmp_path), most=100, threads=1), tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert open_dataset(config.data, Folder(tmp_path)).mask_values == {0: 0, 255: 1}


def test_colors_are_drafted(tmp_path):
    save(tmp_path / "images/a.png", scene(0))
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[:24] = 128, 64, 0
    save(tmp_path / "masks/a.png", mask)
    write_experiment(survey(Folder(tmp_path), most=100, threads=1), tmp_path / "mine.yaml")
    drafted = yaml.safe_load((tmp_path / "mine.classes.yaml").read_text())
    assert drafted == {
        "masks": "colors",
        "classes": [
            {"name": "color_000000", "color": [0, 0, 0]},
            {"name": "color_804000", "color": [128, 64, 0]},
        ],
    }


def drafted(root, out):
    write_experiment(survey(Folder(root), most=100, threads=1), out / "mine.yaml")
    config = load_config(out / "mine.yaml")
    return open_dataset(config.data, Folder(root)), (out / "mine.classes.yaml").read_text()


def test_names_that_cvat_left_beside_colours_are_taken_over(tmp_path):
    root = tmp_path / "data"
    for index in range(4):
        save(root / f"images/{index}.png", scene(index))
        mask = np.zeros((48, 64, 3), np.uint8)
        mask[:24] = 128, 64, 0
        mask[:12] = 9, 9, 9
        save(root / f"masks/{index}.png", mask)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad, wet:128,64,0::\n"
        "rare:1,2,3::\ntwin:9,9,9::\ntwin:8,8,8::\n"
    )
    dataset, text = drafted(root, tmp_path)
    names = ("background", "rare", "color_080808", "color_090909", "road, wet")
    assert dataset.class_names == names
    assert dataset.colors[4] == (128, 64, 0)
    assert "# Names are those of labelmap.txt." in text
    lines = list(survey(Folder(root), most=100, threads=1).lines())
    assert "holds     colour [128, 64, 0], road, wet 25.00%" in lines


def test_names_that_roboflow_left_beside_values_are_taken_over(tmp_path):
    root = tmp_path / "data"
    for index, split in enumerate(["train", "train", "valid"]):
        save(root / f"{split}/{index}.jpg", scene(index))
        mask = np.zeros((48, 64), np.uint8)
        mask[:24] = 7
        mask[0] = 255
        save(root / f"{split}/{index}_mask.png", mask)
        (root / split / "_classes.csv").write_text(
            "Pixel Value, Class\n0, background\n7, a crack\n255, sky\n"
        )
    dataset, _ = drafted(root, tmp_path)
    assert dataset.class_names == ("background", "a crack", "sky")
    assert dataset.mask_values == {0: 0, 7: 1, 255: 2}  # 255 has a name, so it is not void
    (root / "valid/_classes.csv").write_text("Pixel Value, Class\n7, crack\n")
    with pytest.raises(DataError, match=r"_classes.csv disagree on what 7 is called: 'a crack'"):
        survey(Folder(root), most=100, threads=1)


def test_names_without_a_heading_and_names_that_a_class_file_replaces(tmp_path):
    root = tmp_path / "data"
    for index in range(4):
        save(root / f"images/{index}.jpg", scene(index))
        save(root / f"masks/{index}.png", np.full((48, 64), index % 2, np.uint8))
    (root / "_classes.csv").write_text("0, wall\n1, crack\n")
    dataset, _ = drafted(root, tmp_path)
    assert dataset.class_names == ("wall", "crack")
    (root / "_classes.csv").unlink()
    for split, text in (("a", "road:1,2,3::\n"), ("b", "road:4,5,6::\nsky:1,2,3::\n")):
        (root / split).mkdir()
        (root / split / "labelmap.txt").write_text(text)
    with pytest.raises(DataError, match=r"on what \[1, 2, 3\] is called: 'road' and 'sky'"):
        survey(Folder(root), most=100, threads=1)
    (root / "classes.txt").write_text("a\nb\n")
    found = survey(Folder(root), most=100, threads=1)
    assert found.dataset.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Classes.txt", "road\ncar\n"),
        ("classes.yml", "classes: [{name: road}]\n"),
        ("labelmap.txt", "item {\n  id: 1\n}\n"),
        ("labelmap.txt", "road:300,0,0::\n"),
        ("labelmap.txt", "road:0,0,0::\ncar 1,1,1\n"),
    ],
)
def test_files_that_seem_to_name_classes_and_are_not_read_are_told(tmp_path, name, text):
    save(tmp_path / "images/a.png", scene(0))
    save(tmp_path / "masks/a.png", np.arange(3, dtype=np.uint8).repeat(1024).reshape(48, 64))
    (tmp_path / name).write_text(text)
    (tmp_path / "readme.txt").write_text("road")
    (found,) = [
        line
        for line in survey(Folder(tmp_path), most=100, threads=1).findings()
        if "seems to name classes" in line
    ]
    assert found.startswith(f"finding   {name} seems")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    lines = list(survey(Folder(tmp_path), most=100, threads=1).findings())
    assert not [line for line in lines if "seems to name classes" in line]


def test_a_list_of_one_split_alone_is_told(tmp_path):
    root = voc(tmp_path / "voc", lists=[("train", range(5))])
    found = survey(Folder(root), most=100, threads=1)
    assert found.layout.options["val_fraction"] == 0.2
    (line,) = [line for line in found.lines() if "val_fraction" in line]
    assert f"{LISTS}/train.txt says not what to measure on" in line


def test_a_link_to_a_folder_of_images_is_followed(tmp_path):
    for index in range(3):
        save(tmp_path / f"disk/{index}.png", scene(index))
        save(tmp_path / f"root/masks/{index}.png", voc_mask(index))
    (tmp_path / "root/images").symlink_to(tmp_path / "disk")
    found = survey(Folder(tmp_path / "root"), most=100, threads=1)
    assert [one.record.mask_uri for one in found.examined] == [f"masks/{i}.png" for i in range(3)]


def test_pictures_without_masks_are_for_people(tmp_path):
    for index in range(3):
        save(tmp_path / f"images/{index}.png", scene(index))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    write_experiment(survey(Folder(tmp_path), most=100, threads=1), tmp_path / "mine.yaml")
    config = load_config(tmp_path / "mine.yaml")
    assert config.oracle.kind == "people"
    assert config.evaluation.points == 500
    assert config.data.folder.masks is None
    budget = config.budget
    assert (budget.initial_pixels_per_image, budget.pixels_per_image) == (5, 5)
    follows_the_guidance(config)


@pytest.mark.parametrize("lists", [(), [("train", range(6)), ("val", range(6, 8))]])
def test_what_was_written_runs(tmp_path, lists, monkeypatch):
    """A VOC tree with nothing but its folders, and one with lists: two commands to a report."""
    voc(tmp_path / "voc", lists=lists)
    monkeypatch.chdir(tmp_path)
    checked = CliRunner().invoke(main, ["data", "check", "voc", "--out", "mine.yaml"])
    assert checked.exit_code == 0, checked.output
    assert "next: madbal run mine.yaml" in checked.output
    short = ["num_rounds=2", "train.phase1.steps=5", "train.phase2.steps=5"]
    options = [word for one in short for word in ("--set", one)]
    result = CliRunner().invoke(main, ["run", "mine.yaml", "--engine", "local", *options])
    assert result.exit_code == 0, result.output
    assert "round 1: 40 labels per image, " in result.output
    assert "% of them void, mIoU on val 0." in result.output
    assert "warning" not in result.output
    assert (tmp_path / "runs/mine/report/index.html").exists()
