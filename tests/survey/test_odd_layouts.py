"""What is silently wrong with somebody's files is said before anything is learned from them."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from madbal_ray.cli import main
from madbal_ray.config.data import DataConfig
from madbal_ray.data.folder import open_dataset
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder
from madbal_ray.survey.examine import survey
from madbal_ray.survey.layout import find_layout
from tests.survey.test_survey import save, scene, touch

MASK = np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 48, 0).repeat(16, 1)


def looked_at(root):
    return survey(Folder(root), most=100, threads=1)


def opened(root, **options):
    config = DataConfig.model_validate({"name": "folder", "root": str(root), "folder": options})
    return open_dataset(config, Folder(root))


def files(root, *, images="images/{}.jpg", masks="masks/{}.png", count=8):
    for index in range(count):
        save(root / images.format(index), scene(index))
        save(root / masks.format(index), MASK)
    return root


def test_masks_in_folders_below_the_splits_are_refused_with_where_they_belong(tmp_path):
    root = touch(tmp_path, "train/images/a.jpg", "train/masks/a.png", "val/images/b.jpg")
    with pytest.raises(DataError, match=r"masks seem to lie in train/masks/, as a.png"):
        find_layout(root)
    labels = touch(tmp_path / "jars", "shop/front/1.jpg", "shop/label/2.png", "shop/label/3.jpg")
    assert find_layout(labels).options["images"] == "shop"  # photographs of labels


@pytest.mark.parametrize(
    ("images", "masks"),
    [("color", "semantic"), ("images", "segmentation_masks"), ("my photos", "gt")],
)
def test_a_folder_of_masks_is_known_by_its_files_names(tmp_path, images, masks):
    root = files(tmp_path, images=images + "/{}.jpg", masks=masks + "/{}.png")
    found = looked_at(root)
    assert [one.record.mask_uri for one in found.examined] == [f"{masks}/{i}.png" for i in range(8)]
    assert len(found.dataset.records) == 8


def test_a_mask_whose_image_is_gone_is_no_image(tmp_path):
    files(tmp_path, images="{}.jpg", masks="{}.png")
    (tmp_path / "3.jpg").unlink()
    found = looked_at(tmp_path)
    assert sorted(one.record.image_id for one in found.examined) == [
        f"./{i}.jpg" for i in range(8) if i != 3
    ]
    assert found.strays == ["./3.png"]
    assert "finding   1 masks are no image's, the first is ./3.png" in list(found.lines())


def test_files_that_would_all_be_their_own_masks_are_refused(tmp_path):
    save(tmp_path / "a.png", scene(0))
    save(tmp_path / "b.png", scene(1))
    with pytest.raises(DataError, match=r"every file there is a mask by its name, as 'a.png'"):
        opened(tmp_path, images=".", masks=".", classes=["a", "b"])


def test_files_for_masks_that_are_no_images_are_a_problem(tmp_path):
    root = files(tmp_path, images="images/img_{}.jpg", masks="masks/lbl_{}.png")
    result = CliRunner().invoke(main, ["data", "check", str(root)])
    assert result.exit_code == 1
    assert (
        "problem   8 files in a folder for masks have no image's name, the first is "
        "masks/lbl_0.png: name them after the images"
    ) in result.output


def test_two_images_never_share_a_mask(tmp_path):
    files(tmp_path, count=2)
    save(tmp_path / "images/1.png", scene(9))
    with pytest.raises(DataError, match=r"images/1.jpg and images/1.png would share one mask, mas"):
        opened(tmp_path, classes=["a", "b"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sky\nroad\nsky\n", "classes.txt: class 'sky' is listed more than once"),
        ("sky\n\nroad\n", "classes.txt, line 2 is empty: a name's line is its mask value"),
    ],
)
def test_a_list_of_names_has_each_once_and_no_gap(tmp_path, text, says):
    files(tmp_path, count=2)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=says):
        opened(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\nhouse\ngrass\n\n \n")
    assert opened(tmp_path).class_names == ("sky", "road", "house", "grass")
    with pytest.raises(DataError, match=r"data.folder.classes: class 'a' is listed more than once"):
        opened(tmp_path, classes=["a", "b", "a"])


def test_names_alone_in_a_class_file_are_told_what_a_class_is(tmp_path):
    files(tmp_path, count=2)
    (tmp_path / "classes.yaml").write_text("classes: [sky, road]\n")
    with pytest.raises(DataError, match=r"classes.0: Input should be a valid dictionary, as in \{"):
        opened(tmp_path)


def test_a_palette_with_a_transparent_entry_holds_values(tmp_path):
    for index in range(8):
        save(tmp_path / f"images/{index}.jpg", scene(index))
        image = Image.fromarray(MASK, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 756)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / f"masks/{index}.png", transparency=0)
    (tmp_path / "classes.txt").write_text("sky\nroad\nhouse\ngrass\n")
    found = looked_at(tmp_path)
    assert found.problems == []
    assert found.class_pixels() == dict.fromkeys(range(4), 8 * 48 * 16)


def test_a_mask_that_is_to_be_turned_is_refused_and_turned_images_are_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    for index in range(2):
        for split in ("train", "val"):
            path = tmp_path / f"images/{split}/{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene(index + 2 * (split == "val"))).save(path, exif=exif)
            save(tmp_path / f"masks/{split}/{index}.png", MASK)
    (tmp_path / "classes.txt").write_text("sky\nroad\nhouse\ngrass\n")
    lines = list(looked_at(tmp_path).lines())
    assert [line for line in lines if line.startswith("problem")] == []
    assert lines[-1].startswith(
        "finding   4 images with masks are turned by their EXIF orientation"
    )
    Image.fromarray(MASK).save(tmp_path / "masks/val/1.png", exif=exif)
    (problem,) = looked_at(tmp_path).problems
    assert "masks/val/1.png: it has an EXIF orientation of 3" in problem
    exif[0x0112] = 6  # a quarter turn: another size
    Image.fromarray(scene(7)).save(tmp_path / "images/val/1.jpg", exif=exif)
    save(tmp_path / "masks/val/1.png", MASK)
    (problem,) = looked_at(tmp_path).problems
    assert problem.endswith("48 x 64, its image is 64 x 48, turned as its EXIF orientation says: "
                            "turn the mask, too")  # fmt: skip


def test_smoothed_colours_and_a_single_value_are_problems_before_a_class_is_drafted(tmp_path):
    palette = np.array([[80, 120, 220], [100, 90, 80], [210, 60, 50], [60, 180, 70]], np.uint8)
    slanted = np.add.outer(np.arange(48), np.arange(64)) // 28
    for index in range(8):
        save(tmp_path / f"blends/images/{index}.jpg", scene(index))
        small = Image.fromarray(palette[slanted]).resize((23, 17), Image.Resampling.BICUBIC)
        smooth = small.resize((64, 48), Image.Resampling.BICUBIC)
        save(tmp_path / f"blends/masks/{index}.png", np.array(smooth))
        save(tmp_path / f"one/images/{index}.jpg", scene(index))
        save(tmp_path / f"one/masks/{index}.png", np.zeros((48, 64), np.uint8))
        save(tmp_path / f"depth/rgb/{index}.jpg", scene(index))
        ramp = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
        save(tmp_path / f"depth/depth/{index}.png", ramp)
    _, problem = looked_at(tmp_path / "blends").problems
    assert "colours, as smoothed edges have" in problem
    assert all(f"[{', '.join(map(str, color))}]" in problem for color in palette.tolist())
    assert looked_at(tmp_path / "one").problems[1].startswith("masks hold one of values alone")
    depth = looked_at(tmp_path / "depth")
    assert depth.layout.reasons["masks"] == "its files are named like the images"
    assert depth.problems[1].startswith("masks hold 3072 values, and 255 classes are the most")


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("images/train", "no image is of split train, which labels are asked of: val"),
        ("masks/train", "no image of split train has a mask, so nothing could answer for it"),
        ("masks/val", "no image of val has a mask: nothing to measure on"),
    ],
)
def test_what_a_run_would_refuse_is_a_problem_with_and_without_a_draft(tmp_path, gone, says):
    root = tmp_path / "data"
    for split in ("train", "val"):
        files(root, images=f"images/{split}/{{}}.jpg", masks=f"masks/{split}/{{}}.png", count=3)
    for path in (root / gone).iterdir():
        path.unlink()
    (root / "classes.txt").write_text("sky\nroad\nhouse\ngrass\n")
    assert says in looked_at(root).problems
    result = CliRunner().invoke(
        main, ["data", "check", str(root), "--out", str(tmp_path / "x.yaml")]
    )
    assert result.exit_code == 1
    assert "mend what is called a problem above, then: madbal run" in result.output


def test_pictures_of_formats_that_are_not_read_are_told(tmp_path):
    files(tmp_path)
    for name in ("a.gif", "b.HEIC", "c.heic", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"x")
    assert (
        "finding   3 files among the images are of formats that are not read (.heic 2, .gif 1), "
        "the first is a.gif"
    ) in list(looked_at(tmp_path).lines())
