"""Queries as CSV: ``query_id, image_id, x, y, status, class``, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from madbal_ray.errors import DataError
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook, RequestFormat
from madbal_ray.state.storage import Folder

COLUMNS = ("query_id", "image_id", "x", "y", "status", "class")
OPTIONAL = ("annotator", "seconds")
"""Columns that are read where there are any; others are left alone."""

FORMULA = tuple("=+-@\t\r\n'")
"""What a spreadsheet may take for a formula when a cell begins with it, and the mark against it."""

MOST_CHARACTERS = 10_000
"""Of a cell; more is no answer."""


def write(book: RequestBook, out: Path) -> None:
    """Write one row a query; a settled one with its answer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for query in book.queries:
        settled = book.states[query.query_id].settled
        status = "" if settled is None else settled.status
        class_name = "" if settled is None else settled.class_name or ""
        place = (f"{query.image_x + 0.5:.1f}", f"{query.image_y + 0.5:.1f}")
        writer.writerow([query.query_id, _safe(query.image_id), *place, status, _safe(class_name)])
    Folder(out.absolute().parent).write(out.name, text.getvalue().encode())


def read(path: Path, book: RequestBook) -> Iterator[Reply | Refusal]:
    """Yield what every row says; rows are counted as a spreadsheet does, the header is row 1.

    Commas, semicolons and tabs are taken as separators, whichever the header has.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save it as CSV UTF-8") from None
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name.strip().lower() for name in next(_tolerant(rows), [])]
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise DataError(
            f"{path}: the first row must name {', '.join(COLUMNS)} once each; not so: "
            f"{', '.join(missing)}"
        )
    for number, cells in enumerate(_tolerant(rows), 2):
        if any(cell.strip() for cell in cells):
            yield _reply(f"row {number}", names, cells, separator)


def _tolerant(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield rows; one that is no CSV at all comes as a single cell that says so."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield [f"({error})"]


def _reply(where: str, names: list[str], cells: list[str], separator: str) -> Reply | Refusal:
    if len(cells) != len(names):
        return Refusal(
            where, f"{len(cells)} cells: {_short(separator.join(cells))}", f"{len(names)}"
        )
    if any(len(cell) > MOST_CHARACTERS for cell in cells):
        return Refusal(where, "a cell without end", f"at most {MOST_CHARACTERS} characters")
    row = dict(zip(names, (plain_cell(cell.strip()) for cell in cells), strict=True))
    numbers: dict[str, float | None] = {}
    for name in ("x", "y", "seconds"):
        value = row.get(name, "")
        numbers[name] = _number(value if separator == "," else value.replace(",", "."))
        if numbers[name] is None and (value or name != "seconds"):
            return Refusal(where, f"{name} {_short(value)!r}", "a number")
    return Reply(
        where=where,
        query_id=row["query_id"],
        image_id=row["image_id"],
        x=numbers["x"],
        y=numbers["y"],
        status=row["status"].lower(),
        class_name=row["class"],
        annotator=row.get("annotator") or None,
        seconds=numbers["seconds"],
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _safe(text: str) -> str:
    """Mark a cell that a spreadsheet would run as a formula.

    >>> _safe("=1+1"), plain_cell("'=1+1")
    ("'=1+1", '=1+1')
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def plain_cell(text: str) -> str:
    """Return a cell without the mark against formulas."""
    return text.removeprefix("'")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


CSV = RequestFormat(name="csv", write=write, read=read)
