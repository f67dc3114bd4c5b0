"""What lies below a folder of somebody's data, in words: findings, and problems for a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from madbal_ray.arrays import IGNORE_INDEX, Mask, RGBImage
from madbal_ray.config.data import DataConfig
from madbal_ray.data.class_file import CLASS_FILE, CLASS_LIST
from madbal_ray.data.dataset import Dataset, ImageRecord
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.storage import Folder
from madbal_ray.survey.class_names import ClassNames
from madbal_ray.survey.duplicates import Look
from madbal_ray.survey.layout import Layout
from madbal_ray.vision.decode import decode_image, decode_mask
from madbal_ray.vision.mask_values import MANY_COLORS, MaskContents, color_text

SHOWN = 3
MOST_CLASSES = 255
SHOWN_COLORS = 12
LARGE = 0.01
"""Share of the pixels from which a colour is more than a blend at an edge."""

OVERLAYS = 6


@dataclass(frozen=True)
class Examined:
    """One image and its mask.

    Attributes:
        problem, mask_problem: why they cannot be used.
        is_turned: its EXIF orientation says so.
        classes: pixels by class id, where the class map is known.
    """

    record: ImageRecord
    height: int = 0
    width: int = 0
    look: Look | None = None
    problem: str | None = None
    contents: MaskContents | None = None
    mask_problem: str | None = None
    classes: Mapping[int, int] | None = None
    is_turned: bool = False


@dataclass(frozen=True)
class Survey:
    """What lies below a folder.

    Attributes:
        examined: in image_id order; all images, or as many as were asked for, evenly spaced.
        strays: masks that are no image's.
        duplicates: pairs of images of different splits that show the same.
        skipped: files among the images whose format is not read.
        names: of classes, that another program left beside the masks; none beside a class file.
    """

    root: Folder
    config: DataConfig
    layout: Layout
    dataset: Dataset
    examined: list[Examined]
    strays: list[str]
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    names: ClassNames = field(default_factory=ClassNames)

    @property
    def good(self) -> list[Examined]:
        """Return the images that can be read."""
        return [one for one in self.examined if one.problem is None]

    @property
    def has_masks(self) -> bool:
        """Tell whether there is any mask."""
        return any(one.record.mask_uri is not None for one in self.examined)

    @property
    def problems(self) -> list[str]:
        """Return what keeps a simulation from running on this data, a line each."""
        if self.layout.has_classes or not self.has_masks:
            return self.lasting_problems
        return [
            f"no {CLASS_FILE}: nothing says what mask values mean; --out drafts one from those "
            "that were found",
            *self.lasting_problems,
        ]

    @property
    def lasting_problems(self) -> list[str]:
        """Return those of them that a drafted class file does not mend."""
        masks = [one for one in self.good if one.mask_problem]
        lines = []
        if masks:
            shown = "; ".join(f"{one.record.mask_uri}: {one.mask_problem}" for one in masks[:SHOWN])
            lines.append(f"{len(masks)} masks cannot be used: {shown}")
        if self.layout.unmatched:
            lines.append(
                f"{len(self.layout.unmatched)} files in a folder for masks have no image's name, "
                f"the first is {self.layout.unmatched[0]}: name them after the images, set "
                "data.folder.mask_name, or move them away"
            )
        if self.has_masks:
            lines += [*self._split_problems(), *self._class_problems()]
        return lines

    def _split_problems(self) -> Iterator[str]:
        pool, splits = self.config.pool_split, self.dataset.splits
        with_masks = {one.split for one in self.dataset.records if one.mask_uri is not None}
        others = [split for split in splits if split != pool]
        if pool not in splits:
            yield f"no image is of split {pool}, which labels are asked of: {', '.join(splits)}"
        elif pool not in with_masks:
            yield f"no image of split {pool} has a mask, so nothing could answer for it"
        if not others:
            yield (
                f"one split, {', '.join(splits)}: nothing to measure on; expected another beside "
                "it, such as val"
            )
        elif not with_masks & set(others):
            yield f"no image of {', '.join(others)} has a mask: nothing to measure on"

    def _class_problems(self) -> Iterator[str]:
        if self.layout.has_classes or not any(one.contents for one in self.good):
            return
        coding, held = self.held()
        if len(held) < 2:
            yield f"masks hold one of {coding} alone, and a class is told from another"
        elif coding == "values" and len(held) > MOST_CLASSES:
            yield (
                f"masks hold {len(held)} values, and {MOST_CLASSES} classes are the most: depths "
                "or numbers of objects are no classes"
            )
        elif coding == "colors" and len(held) > MANY_COLORS:
            whole, most = sum(held.values()), sorted(held, key=lambda key: -held[key])
            large = [color_text(key) for key in most if held[key] >= LARGE * whole]
            yield (
                f"masks hold {len(held)} colours, as smoothed edges have: {len(large)} of them "
                f"cover {LARGE:.0%} or more each ({', '.join(large[:SHOWN_COLORS])}); export the "
                "masks without smoothing (antialiasing), and not through JPEG"
            )

    def lines(self) -> Iterator[str]:
        """Yield what was found, in words."""
        sizes = {split: self.dataset.size_of(split) for split in self.dataset.splits}
        total, looked = sum(sizes.values()), len(self.examined)
        of = "" if looked == total else f"; {looked} of them looked at, evenly spaced"
        yield f"data      {self.root}: {total} images{of}"
        yield "splits    " + ", ".join(f"{split} {count}" for split, count in sizes.items())
        for option, value in self.layout.options.items():
            yield f"layout    data.folder.{option}: {value} ({self.layout.reasons[option]})"
        shapes = Counter((one.height, one.width) for one in self.good)
        shown = ", ".join(f"{h} x {w} ({n})" for (h, w), n in shapes.most_common(SHOWN))
        yield f"sizes     {shown}" + (f", {len(shapes)} in all" if len(shapes) > SHOWN else "")
        yield from self._mask_lines()
        yield from self.findings()

    def _mask_lines(self) -> Iterator[str]:
        contents = [one.contents for one in self.good if one.contents is not None]
        if not contents:
            yield "masks     none"
            return
        modes = Counter(one.mode for one in contents)
        yield "masks     " + ", ".join(f"{mode} ({count})" for mode, count in modes.most_common())
        classes = self.class_pixels()
        if classes is None:
            for name, share in self.shares_by_name():
                yield f"holds     {name} {share:.2%}"
            return
        whole = max(1, sum(classes.values()))
        for class_id, name in enumerate(self.dataset.class_names):
            share = classes.get(class_id, 0) / whole
            yield f"class     {name} {share:.2%}" + ("" if share else " (never)")
        yield f"void      {classes.get(IGNORE_INDEX, 0) / whole:.2%}"

    def findings(self) -> Iterator[str]:
        """Yield what somebody should look at, a line each."""
        bare = [one.record.image_id for one in self.examined if one.record.mask_uri is None]
        bad = [one for one in self.examined if one.problem]
        if bare and self.has_masks:
            yield f"finding   {len(bare)} images have no mask{self.dataset.mask_sought}"
        if self.strays:
            first = self.strays[0]
            yield f"finding   {len(self.strays)} masks are no image's, the first is {first}"
        if bad:
            shown = "; ".join(f"{one.record.image_id}: {one.problem}" for one in bad[:SHOWN])
            yield f"finding   {len(bad)} images cannot be used: {shown}"
        if self.duplicates:
            first, second = self.duplicates[0]
            yield (
                f"finding   {len(self.duplicates)} pairs show the same in two splits, which "
                f"flatters every number: {first} and {second}"
            )
        turned = sum(one.is_turned for one in self.examined if one.record.mask_uri is not None)
        if turned:
            yield (
                f"finding   {turned} images with masks are turned by their EXIF orientation, as "
                "programs show them; their masks must be upright, too"
            )
        if self.skipped:
            kinds = Counter(PurePosixPath(path).suffix.lower() for path in self.skipped)
            shown = ", ".join(f"{suffix} {count}" for suffix, count in kinds.most_common())
            yield (
                f"finding   {len(self.skipped)} files among the images are of formats that are not "
                f"read ({shown}), the first is {self.skipped[0]}"
            )
        if self.names.unread:
            yield (
                f"finding   {self.names.unread[0]} seems to name classes and is not read: expected "
                f"{CLASS_LIST} (a name a line, in order of mask value) or {CLASS_FILE}, spelt so"
            )
        if len(self.dataset.splits) < 2 and not self.has_masks:
            only = ", ".join(self.dataset.splits)
            yield (
                f"finding   one split, {only}: nothing to measure on; expected "
                "another beside it, such as val"
            )
        yield from (f"problem   {line}" for line in self.problems)

    def class_pixels(self) -> dict[int, int] | None:
        """Return pixels by class id, void at `IGNORE_INDEX`; None: no class map is known."""
        if not self.layout.has_classes:
            return None
        total: Counter[int] = Counter()
        for one in self.good:
            total.update(one.classes or {})
        return dict(total)

    def held(self) -> tuple[str, dict[int, int]]:
        """Return what masks are told apart by, values or colours, and pixels of each found."""
        contents = [one.contents for one in self.good if one.contents is not None]
        coding = "values" if all(one.values is not None for one in contents) else "colors"
        total: Counter[int] = Counter()
        for one in contents:
            total.update((one.values if coding == "values" else one.colors) or {})
        return coding, dict(sorted(total.items()))

    def shares_by_name(self) -> Iterator[tuple[str, float]]:
        """Yield what masks hold where nobody has named it, the most frequent first."""
        coding, held = self.held()
        names = self.names.of(coding)
        whole = max(1, sum(held.values()))
        most = sorted(held, key=lambda key: -held[key])
        for key in most[:30]:
            shown = f"value {key}" if coding == "values" else f"colour {color_text(key)}"
            yield shown + (f", {names[key]}" if key in names else ""), held[key] / whole

    def overlays(self) -> Iterator[tuple[str, RGBImage, Mask | None]]:
        """Yield a few images with their masks, evenly spaced, decoded again."""
        reader = ImageReader.of(self.dataset, self.root, self.config)
        step = max(1, len(self.good) // OVERLAYS)
        for one in self.good[::step][:OVERLAYS]:
            image = decode_image(reader.encoded(one.record.image_uri), max_pixels=reader.max_pixels)
            mask = None
            if one.classes is not None and one.record.mask_uri is not None:
                data = reader.encoded(one.record.mask_uri)
                mask = decode_mask(data, reader.mask_lookup, max_pixels=reader.max_pixels)
            yield one.record.image_id, image, mask
