"""Names of classes that other programs leave beside masks, and files that seem to hold some.

CVAT writes ``labelmap.txt`` (``road:128,64,128::``, a class a line, in order of mask value),
Roboflow ``_classes.csv`` (``7, crack``) into each split. A draft of the class file takes both over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from madbal_ray.data.class_file import CLASS_FILE, CLASS_LIST
from madbal_ray.data.members import read_lines
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder
from madbal_ray.vision.mask_values import color_text

LABEL_MAP = "labelmap.txt"
VALUE_LIST = "_classes.csv"
SEEMS_ONE = re.compile(
    r"_?(class|classes|label|labels|labelmap|(class|label)[_-](names?|map|list))"
    r"\.(ya?ml|txt|json|csv|names|pbtxt)",
    re.IGNORECASE,
)
_BYTE = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
_LABEL = re.compile(rf"(?P<name>[^:]+):(?P<red>{_BYTE}),(?P<green>{_BYTE}),(?P<blue>{_BYTE}):.*:.*")
_VALUE = re.compile(r"\s*(?P<value>\d{1,5})\s*,\s*(?P<name>.*\S)\s*")


@dataclass(frozen=True)
class ClassNames:
    """Names by what stands for them in a mask.

    Attributes:
        files: that say so.
        by_value: name by mask value.
        by_color: name by colour, packed as in `madbal_ray.vision.mask_values`.
        unread: files that seem to name classes, and are of no form that is read.
    """

    files: tuple[str, ...] = ()
    by_value: Mapping[int, str] = field(default_factory=dict)
    by_color: Mapping[int, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def of(self, coding: str) -> Mapping[int, str]:
        """Return name by value or by colour (`coding`: values or colors)."""
        return self.by_value if coding == "values" else self.by_color


def find_names(root: Folder, files: Iterable[str]) -> ClassNames:
    """Read the class names that lie beside masks.

    Args:
        files: below `root`.

    Raises:
        DataError: two files give a value or a colour different names.
    """
    read: list[str] = []
    unread: list[str] = []
    by_value: dict[int, str] = {}
    by_color: dict[int, str] = {}
    for path in sorted(files):
        name = PurePosixPath(path).name
        if not SEEMS_ONE.fullmatch(name) or path in {CLASS_FILE, CLASS_LIST}:
            continue
        values, colors = _names_in(root, path)
        (read if values else unread).append(path)
        for found, new in ((by_value, values), (by_color, colors)):
            for key, label in new.items():
                if found.setdefault(key, label) != label:
                    what = key if found is by_value else color_text(key)
                    raise DataError(
                        f"{root}: {' and '.join(read)} disagree on what {what} is called: "
                        f"{found[key]!r} and {label!r}; correct or remove one of them"
                    )
    return ClassNames(tuple(read), by_value, by_color, tuple(unread))


def _names_in(root: Folder, path: str) -> tuple[dict[int, str], dict[int, str]]:
    """Return name by value and by colour; both empty: the file has no known form."""
    name = PurePosixPath(path).name
    form = {LABEL_MAP: _LABEL, VALUE_LIST: _VALUE}.get(name)
    if form is None:
        return {}, {}
    lines = [line for line in read_lines(root, path) if line.strip()]
    if name == VALUE_LIST and lines and not form.fullmatch(lines[0]):  # a heading
        lines = lines[1:]
    found = [form.fullmatch(line) for line in lines if not line.startswith("#")]
    matched = [match for match in found if match is not None]
    if len(matched) != len(found):
        return {}, {}
    if name == VALUE_LIST:
        return {int(match["value"]): match["name"] for match in matched}, {}
    colors = {}
    for match in matched:
        red, green, blue = (int(match[part]) for part in ("red", "green", "blue"))
        colors[red << 16 | green << 8 | blue] = match["name"].strip()
    return dict(enumerate(match["name"].strip() for match in matched)), colors
