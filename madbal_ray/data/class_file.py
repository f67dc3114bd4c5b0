"""Classes of a user's own images: names, what of a mask stands for each, and what is void.

``classes.txt`` is a name a line, in order of mask value. ``classes.yaml``::

    masks: colors                          # left out: values
    classes:
      - {name: road, color: [128, 64, 128]}
      - {name: crack, value: 255}          # or several: [7, 8]; left out: its place in the list
    void: [[0, 0, 0]]                      # values or colours; left out: data.folder.void_value

Under ``masks: values`` colours are for pictures alone, and optional.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.documents import parse_yaml
from madbal_ray.data.dataset import MaskCoding, identity_values, spread_colors
from madbal_ray.data.members import read_lines
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.state.storage import Folder

CLASS_FILE = "classes.yaml"
CLASS_LIST = "classes.txt"
VOID_VALUE = 255
MOST_FINDINGS = 3

Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]
Value = Annotated[int, Field(ge=0, le=65_535)]


class _NamedClass(BaseModel, extra="forbid"):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    color: Color | None = None
    value: Value | list[Value] | None = None


class _ClassFile(BaseModel, extra="forbid"):
    masks: MaskCoding = "values"
    classes: list[_NamedClass]
    void: Value | list[Value] | list[Color] | None = None


@dataclass(frozen=True)
class Classes:
    """What `madbal_ray.data.dataset.Dataset` holds of the same names.

    Attributes:
        is_mapped: the file says what masks hold, so that an edit of it is another data set.
    """

    names: tuple[str, ...]
    mask_values: dict[int, int]
    colors: tuple[tuple[int, int, int], ...]
    coding: MaskCoding = "values"
    is_mapped: bool = False


def listed(names: tuple[str, ...], void_value: int, where: str) -> Classes:
    """Return classes whose mask value is their place in a list.

    Args:
        where: the list stands, for messages.

    Raises:
        DataError: a name stands twice, or the void value is a class.
    """
    _check_once(names, where)
    return Classes(names, identity_values(len(names), void_value), spread_colors(len(names)))


def read_classes(root: Folder, void_value: int, elsewhere: str | None = None) -> Classes:
    """Read the class file of a data set.

    Args:
        void_value: mask value that means void where the file says nothing of it.
        elsewhere: path of a ``classes.yaml`` that does not lie in the data set.

    Raises:
        DataError: there is none, or both, or it does not say for each value what it means.
    """
    if elsewhere is not None:
        place, _, name = elsewhere.rpartition("/")
        return _read_yaml(Folder(place or "."), name, void_value)
    found = [name for name in (CLASS_FILE, CLASS_LIST) if root.exists(name)]
    if len(found) != 1:
        raise DataError(
            f"{root} must hold {CLASS_FILE} (classes: [{{name: sky, color: [70, 130, 180]}}, …]) "
            f"or {CLASS_LIST} (a name a line), in order of mask value; found: "
            f"{' and '.join(found) or 'neither'}. Or set data.folder.classes"
        )
    if found == [CLASS_LIST]:
        lines = [line.strip() for line in read_lines(root, CLASS_LIST)]
        while lines and not lines[-1]:
            lines.pop()
        if "" in lines:
            raise DataError(
                f"{root}/{CLASS_LIST}, line {lines.index('') + 1} is empty: a name's line is its "
                "mask value, so give the class a name, or remove the line if no mask has its value"
            )
        return listed(tuple(lines), void_value, f"{root}/{CLASS_LIST}")
    return _read_yaml(root, CLASS_FILE, void_value)


def _check_once(names: tuple[str, ...], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: class {twice[0]!r} is listed more than once")


def _read_yaml(root: Folder, name: str, void_value: int) -> Classes:
    where = f"{root}/{name}"
    try:
        text = "\n".join(read_lines(root, name))
        file = _ClassFile.model_validate(parse_yaml(text, where))
    except (ConfigError, ValidationError) as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[:MOST_FINDINGS]
            problem = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in first)
            problem = problem.replace(" or instance of _NamedClass", ", as in {name: sky}")
        raise DataError(
            f"{where} cannot be used: {problem}; expected classes: [{{name: sky, "
            "color: [70, 130, 180]}, …], colours (0..255) and mask values (value: 7) optional"
        ) from None
    names = tuple(one.name for one in file.classes)
    _check_once(names, where)
    spread = spread_colors(len(names))
    colors = tuple(one.color or spread[i] for i, one in enumerate(file.classes))
    is_plain = file.masks == "values" and file.void is None
    if is_plain and all(one.value is None for one in file.classes):
        return Classes(names, identity_values(len(names), void_value), colors)
    return Classes(names, _mask_values(file, void_value, where), colors, file.masks, True)


def _mask_values(file: _ClassFile, void_value: int, where: str) -> dict[int, int]:
    """Return value, or colour, -> class id or `IGNORE_INDEX`."""
    owners: dict[int, str] = {}
    values: dict[int, int] = {}

    def take(key: int, class_id: int, owner: str) -> None:
        if key in values:
            shown = key if file.masks == "values" else [key >> 16, key >> 8 & 255, key & 255]
            raise DataError(
                f"{where}: {shown} stands for both {owners[key]!r} and {owner!r}; a mask's "
                f"{file.masks[:-1]} must mean one thing"
            )
        values[key], owners[key] = class_id, owner

    for class_id, one in enumerate(file.classes):
        for key in _keys_of(file, one, class_id, where):
            take(key, class_id, one.name)
    for key in _void_keys(file, void_value, values, where):
        take(key, IGNORE_INDEX, "void")
    return values


def _keys_of(file: _ClassFile, one: _NamedClass, place: int, where: str) -> list[int]:
    if file.masks == "colors":
        if one.color is None or one.value is not None:
            raise DataError(
                f"{where}: under `masks: colors` every class has its color and no value; "
                f"{one.name!r} has {'a value' if one.color is not None else 'no color'}"
            )
        return [_key(one.color)]
    with_value = [other.name for other in file.classes if other.value is not None]
    if one.value is None and with_value:
        raise DataError(
            f"{where}: {with_value[0]!r} has a value and {one.name!r} has none; give all of them, "
            "or leave all out (then it is the place in the list)"
        )
    if one.value is None:
        return [place]
    return one.value if isinstance(one.value, list) else [one.value]


def _void_keys(file: _ClassFile, void_value: int, known: dict[int, int], where: str) -> list[int]:
    if file.void is None:
        # 255 unless somebody said so: a class that has this value is meant.
        is_said = void_value != VOID_VALUE
        return (
            [void_value] if file.masks == "values" and (is_said or void_value not in known) else []
        )
    if void_value != VOID_VALUE:
        raise DataError(f"{where} says what is void, and so does data.folder.void_value: leave one")
    void = file.void if isinstance(file.void, list) else [file.void]
    if file.masks == "values":
        if any(not isinstance(one, int) for one in void):
            raise DataError(f"{where}: void holds colours; under `masks: values`, give values")
        return [one for one in void if isinstance(one, int)]
    whole = [one for one in void if isinstance(one, int)]
    if len(whole) == len(void) == 3 and max(whole) <= 255:  # one colour, not in a list
        return [_key((whole[0], whole[1], whole[2]))]
    if whole:
        raise DataError(f"{where}: void holds values; under `masks: colors`, give colours")
    return [_key(one) for one in void if not isinstance(one, int)]


def _key(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
