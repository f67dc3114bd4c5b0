"""Own images as people have them: colours, patterns, lists, VOC trees; each with what it means."""

import io

import numpy as np
import pytest
from PIL import Image

from madbal_ray.config.data import DataConfig
from madbal_ray.config.file import load_config
from madbal_ray.data.dataset import color_lookup, mask_lookup
from madbal_ray.data.folder import open_dataset
from madbal_ray.errors import BadImageError, ConfigError, DataError
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_mask

VOID = 255
LIMIT = 10**6
RED, BLUE, BLACK = (200, 0, 0), (0, 0, 200), (0, 0, 0)
KEY = {RED: 200 << 16, BLUE: 200, BLACK: 0}


def tree(root, *names, classes="classes: [{name: a}, {name: b}]", lists=None):
    """Write empty files, a class file and lists; only names are read here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "classes.yaml").write_text(classes)
    for name, text in (lists or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def opened(root, **options):
    config = DataConfig.model_validate({"name": "folder", "root": str(root), "folder": options})
    return open_dataset(config, Folder(root))


def paired(dataset):
    return {r.image_uri: (r.split, r.mask_uri) for r in dataset.records}


def encode(array, mode=None, form="PNG", **options):
    sink = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array), mode)
    image.save(sink, form, **options)
    return sink.getvalue()


# ---- where masks lie ----


def test_masks_beside_their_images(tmp_path):
    root = tree(
        tmp_path, "images/a.jpg", "images/a_mask.png", "images/b.c.png", "images/b.c_mask.png"
    )
    assert paired(opened(root, masks="images", mask_name="{stem}_mask.png")) == {
        "images/a.jpg": ("train", "images/a_mask.png"),
        "images/b.c.png": ("train", "images/b.c_mask.png"),
    }


def test_a_mask_of_the_images_own_name_beside_it(tmp_path):
    root = tree(tmp_path, "images/a.jpg", "images/a.png")
    assert paired(opened(root, masks="images")) == {"images/a.jpg": ("train", "images/a.png")}


def test_no_mask_that_fits_says_what_was_looked_for_and_what_is_there(tmp_path):
    root = tree(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a_gt.png", "masks/b_gt.png")
    text = (
        r"none of 2 images has a mask \(for images/a\.jpg, masks/a\.png was looked for\), and "
        r"masks/ holds 2 others, the first is 'a_gt\.png': set data\.folder\.mask_name"
    )
    with pytest.raises(DataError, match=text):
        opened(root)
    assert paired(opened(root, mask_name="{stem}_gt.png"))["images/b.jpg"][1] == "masks/b_gt.png"
    assert paired(opened(root, masks=None))["images/b.jpg"][1] is None


def test_images_without_a_mask_are_kept_or_left_out(tmp_path):
    root = tree(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png")
    kept = opened(root)
    assert paired(kept) == {
        "images/a.jpg": ("train", "masks/a.png"),
        "images/b.jpg": ("train", None),
    }
    assert kept.mask_sought == " (for images/b.jpg, masks/b.png was looked for)"
    assert list(paired(opened(root, only_with_masks=True))) == ["images/a.jpg"]


@pytest.mark.parametrize("pattern", ["{stem}", "mask.png", "{stem}{stem}.png", "../{stem}.png"])
def test_a_mask_name_that_names_no_mask_is_refused(pattern):
    with pytest.raises(ConfigError, match="expected the name of a mask with"):
        load_config({"data": {"name": "folder", "root": ".", "folder": {"mask_name": pattern}}})


# ---- splits ----


def test_voc_lists_of_stems(tmp_path):
    root = tree(
        tmp_path,
        *(f"JPEGImages/{name}.jpg" for name in "abcd"),
        *(f"SegmentationClass/{name}.png" for name in "abc"),
        lists={
            "ImageSets/Segmentation/train.txt": "b\na\n",
            "ImageSets/Segmentation/val.txt": "c\n",
        },
    )
    splits = {s: f"ImageSets/Segmentation/{s}.txt" for s in ("train", "val")}
    dataset = opened(root, images="JPEGImages", masks="SegmentationClass", splits=splits)
    assert paired(dataset) == {
        "JPEGImages/a.jpg": ("train", "SegmentationClass/a.png"),
        "JPEGImages/b.jpg": ("train", "SegmentationClass/b.png"),
        "JPEGImages/c.jpg": ("val", "SegmentationClass/c.png"),
    }  # d is in no list


def test_lines_of_lists_may_be_paths(tmp_path):
    root = tree(
        tmp_path,
        "images/x/a.jpg",
        "images/x/b.jpg",
        lists={"t.txt": "./images/x/a.jpg\n\nx/b.jpg\n"},
    )
    assert [r.split for r in opened(root, splits={"train": "t.txt"}).records] == ["train", "train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nz\n", r"t\.txt, line 2: 'z' is no image below images/; expected .* as in 'a\.jpg'"),
        ("v\n", r"v\.txt, line 1: 'v' is of split 'train' already"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, message):
    root = tree(tmp_path, "images/a.jpg", "images/v.jpg", lists={"t.txt": text, "v.txt": "v\n"})
    with pytest.raises(DataError, match=message):
        opened(root, splits={"train": "t.txt", "val": "v.txt"})


def test_a_share_is_held_out_by_name_alone(tmp_path):
    root = tree(tmp_path, *(f"images/{i}.jpg" for i in range(10)))
    dataset = opened(root, val_fraction=0.3)
    assert {split: dataset.size_of(split) for split in dataset.splits} == {"train": 7, "val": 3}
    again = opened(
        tree(tmp_path / "copy", *(f"images/{i}.jpg" for i in range(10))), val_fraction=0.3
    )
    assert again.of_split("val") == dataset.of_split("val")
    few = opened(tree(tmp_path / "few", "images/a.jpg", "images/b.jpg"), val_fraction=0.1)
    assert few.size_of("val") == 1


# ---- what masks mean ----


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        ("classes: [{name: a}, {name: b}]", {0: 0, 1: 1, 255: VOID}),
        ("classes: [{name: a, value: 0}, {name: b, value: 255}]", {0: 0, 255: 1}),
        ("classes: [{name: a, value: 3}, {name: b, value: [7, 8]}]", {3: 0, 7: 1, 8: 1, 255: VOID}),
        ("{classes: [{name: a}, {name: b}], void: [9, 200]}", {0: 0, 1: 1, 9: VOID, 200: VOID}),
    ],
)
def test_values_of_classes(tmp_path, classes, values):
    assert opened(tree(tmp_path, "images/a.jpg", classes=classes)).mask_values == values


COLORS = (
    "{masks: colors, classes: [{name: a, color: [200, 0, 0]}, {name: b, color: [0, 0, 200]}]%s}"
)


@pytest.mark.parametrize("void", [", void: [0, 0, 0]", ", void: [[0, 0, 0]]"])
def test_colors_of_classes(tmp_path, void):
    dataset = opened(tree(tmp_path, "images/a.jpg", classes=COLORS % void))
    assert dataset.coding == "colors"
    assert dataset.mask_values == {KEY[RED]: 0, KEY[BLUE]: 1, KEY[BLACK]: VOID}
    assert dataset.colors == (RED, BLUE)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("classes: [{name: a, value: 1}, {name: b}]", "'a' has a value and 'b' has none"),
        ("classes: [{name: a, value: 1}, {name: b, value: 1}]", "1 stands for both 'a' and 'b'"),
        ("{classes: [{name: a}, {name: b}], void: 1}", "1 stands for both 'b' and 'void'"),
        ("{masks: colors, classes: [{name: a, color: [1, 1, 1]}, {name: b}]}", "'b' has no color"),
        (
            "{masks: colors, classes: [{name: a, color: [1, 1, 1]}, {name: b, color: [1, 1, 1]}]}",
            r"\[1, 1, 1\] stands for both 'a' and 'b'; a mask's color must mean one thing",
        ),
        ("{classes: [{name: a}, {name: b}], void: [[0, 0, 0]]}", "void holds colours"),
        (COLORS % ", void: 0", "void holds values"),
    ],
)
def test_class_files_that_leave_a_doubt_are_refused(tmp_path, classes, message):
    with pytest.raises(DataError, match=message):
        opened(tree(tmp_path, "images/a.jpg", classes=classes))


def test_void_is_said_in_one_place(tmp_path):
    classes = "{classes: [{name: a}, {name: b}], void: 9}"
    with pytest.raises(DataError, match=r"and so does data\.folder\.void_value: leave one"):
        opened(tree(tmp_path, "images/a.jpg", classes=classes), void_value=8)


# ---- masks of every mode ----

PIXELS = np.array([[RED, BLUE], [BLACK, RED]], np.uint8)
BY_COLOR = color_lookup({KEY[RED]: 0, KEY[BLUE]: 1, KEY[BLACK]: VOID})
EXPECTED = [[0, 1], [VOID, 0]]


def palette_image():
    image = Image.fromarray(np.array([[5, 2], [0, 5]], np.uint8), "P")
    palette = np.zeros((256, 3), np.uint8)
    palette[5], palette[2] = RED, BLUE
    image.putpalette(palette.tobytes())
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
        palette_image(),
    ],
    ids=["RGB", "RGBA", "palette"],
)
def test_colors_are_classes_whatever_the_mode(image):
    assert decode_mask(encode(image), BY_COLOR, max_pixels=LIMIT).tolist() == EXPECTED


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
def test_grey_in_several_channels_is_values(mode):
    image = Image.fromarray(np.array([[0, 7], [255, 0]], np.uint8)).convert(mode)
    lookup = mask_lookup({0: 0, 7: 1, 255: VOID})
    assert decode_mask(encode(image), lookup, max_pixels=LIMIT).tolist() == [[0, 1], [VOID, 0]]


def test_a_grey_mask_among_colored_ones_is_looked_up_by_color():
    lookup = color_lookup({0x808080: 3, 0: VOID, 0x800000: 1})
    mask = encode(np.array([[0, 128]], np.uint8))
    assert decode_mask(mask, lookup, max_pixels=LIMIT).tolist() == [[VOID, 3]]


def test_colors_of_no_class_are_named_most_frequent_first():
    pixels = np.array([[(1, 2, 3), (9, 9, 9), (9, 9, 9), RED]], np.uint8)
    text = (
        r"2 mask colours outside the class map, in 3 pixels: 9,9,9 · 1,2,3; "
        r"the map knows 0,0,0 · 0,0,200 · 200,0,0$"
    )
    with pytest.raises(BadImageError, match=text):
        decode_mask(encode(pixels), BY_COLOR, max_pixels=LIMIT)
    blended = np.zeros((1, 65, 3), np.uint8)
    blended[0, :, 1] = np.arange(1, 66)
    with pytest.raises(BadImageError, match="so many come of smoothed edges"):
        decode_mask(encode(blended), BY_COLOR, max_pixels=LIMIT)


def test_a_jpeg_mask_is_refused_with_the_reason_and_the_way_out():
    jpeg = encode(np.zeros((8, 8), np.uint8), form="JPEG")
    with pytest.raises(
        BadImageError, match=r"JPEG blends neighbouring values.*export the masks as"
    ):
        decode_mask(jpeg, mask_lookup({0: 0}), max_pixels=LIMIT)


def test_transparent_masks_are_refused():
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putalpha(Image.fromarray(np.array([[255, 255], [0, 255]], np.uint8)))
    with pytest.raises(BadImageError, match="transparent"):
        decode_mask(encode(image), BY_COLOR, max_pixels=LIMIT)


def test_labelmefacade_as_it_lies_on_the_disk(data_folder, tmp_path):
    classes = {
        **{"building": (128, 0, 0), "car": (128, 0, 128), "door": (128, 128, 0)},
        **{"pavement": (128, 128, 128), "road": (128, 64, 0), "sky": (0, 128, 128)},
        **{"vegetation": (0, 128, 0), "window": (0, 0, 128)},
    }
    lines = "".join(f"- {{name: {n}, color: {list(c)}}}\n" for n, c in classes.items())
    (tmp_path / "classes.yaml").write_text(f"masks: colors\nvoid: [0, 0, 0]\nclasses:\n{lines}")
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(data_folder / "labelmefacade" / name)
    dataset = opened(tmp_path)
    assert {split: dataset.size_of(split) for split in dataset.splits} == {
        "test": 150,
        "train": 250,
    }
    config = DataConfig.model_validate({"name": "folder", "root": str(tmp_path)})
    reader = ImageReader.of(dataset, Folder(tmp_path), config)
    record = dataset.of_split("train")[0]
    mask = decode_mask(reader.encoded(record.mask_uri), reader.mask_lookup, max_pixels=LIMIT)
    with Image.open(tmp_path / record.mask_uri) as image:
        colors = np.array(image.convert("RGB"))
    for class_id, color in enumerate(classes.values()):
        assert np.array_equal(mask == class_id, (colors == color).all(axis=-1))
    assert np.array_equal(mask == VOID, (colors == 0).all(axis=-1))
