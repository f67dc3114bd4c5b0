"""Queries as CSV: ``query_id, image_id, x, y, status, class``, for spreadsheets and scripts.

Answers go out a row a vote, with a further column ``annotator``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from madbal_ray.errors import DataError
from madbal_ray.labels.exchange import cut, finite, read_text, shown
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook, RequestFormat
from madbal_ray.report.spreadsheet import plain_cell, safe_cell
from madbal_ray.state.storage import Folder

COLUMNS = ("query_id", "image_id", "x", "y", "status", "class")
OPTIONAL = ("annotator", "seconds")
"""Columns that are read where there are any; others are left alone."""

NUMBERS = ("x", "y", "seconds")

SPELLINGS = {"labeled": "labelled"}

MOST_CHARACTERS = 10_000
"""Of a cell; more is no answer."""


def write(book: RequestBook, out: Path) -> None:
    """Write one row a query that waits, and one a vote of a settled one.

    Names beyond ASCII go out with a byte order mark: Excel takes the file for UTF-8 only then.
    """
    votes = book.votes()
    columns = (*COLUMNS, "annotator") if any(vote for _, vote in votes) else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for query, vote in votes:
        place = (f"{query.image_x + 0.5:.1f}", f"{query.image_y + 0.5:.1f}")
        said = ("", "", "")
        if vote is not None:
            said = (vote.status, safe_cell(vote.class_name or ""), safe_cell(vote.annotator))
        row = [query.query_id, safe_cell(query.image_id), *place, *said]
        writer.writerow(row[: len(columns)])
    encoding = "utf-8" if text.getvalue().isascii() else "utf-8-sig"
    Folder(out.absolute().parent).write(out.name, text.getvalue().encode(encoding))


def read(path: Path, book: RequestBook) -> Iterator[Reply | Refusal]:
    """Yield what every row says; rows are counted as a spreadsheet does, the header is row 1."""
    for where, row in read_cells(path, COLUMNS):
        yield row if isinstance(row, Refusal) else _reply(where, row)


def read_cells(
    path: Path, columns: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str] | Refusal]]:
    """Yield where a row is, and its cells by column name, or why it is none.

    Commas, semicolons and tabs are taken as separators, whichever the header has; with others than
    a comma, a comma in a number of `NUMBERS` is a point.

    Args:
        columns: that there must be.

    Raises:
        DataError: unreadable, no UTF-8, or a column is missing or there twice.
    """
    text = read_text(path, instead="save it as UTF-8 (in Excel: save as CSV UTF-8)")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name.strip().lower() for name in next(_tolerant(rows), [])]
    missing = [name for name in columns if names.count(name) != 1]
    if missing:
        raise DataError(
            f"{path}: the first row must name {', '.join(columns)} once each; not so: "
            f"{', '.join(missing)}"
        )
    for number, cells in enumerate(_tolerant(rows), 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"row {number}"
        if len(cells) != len(names):
            got = f"{len(cells)} cells: {shown(separator.join(cells))}"
            yield where, Refusal(where, got, f"{len(names)}")
        elif any(len(cell) > MOST_CHARACTERS for cell in cells):
            got = f"at most {MOST_CHARACTERS} characters"
            yield where, Refusal(where, "a cell without end", got)
        else:
            row = dict(zip(names, (plain_cell(cell.strip()) for cell in cells), strict=True))
            for name in NUMBERS if separator != "," else ():
                row |= {name: row[name].replace(",", ".")} if name in row else {}
            yield where, row


def _tolerant(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield rows; one that is no CSV at all comes as a single cell that says so."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield [f"({error})"]


def _reply(where: str, row: Mapping[str, str]) -> Reply | Refusal:
    """Return what a row says; who fills in the class alone has labelled it."""
    numbers = {name: finite(row.get(name, "")) for name in NUMBERS}
    for name, value in numbers.items():
        if value is None and (row.get(name) or name != "seconds"):
            return Refusal(where, f"{name} {cut(row.get(name, ''))!r}", "a number")
    status = row["status"].lower() or ("labelled" if row["class"] else "")
    return Reply(
        where=where,
        query_id=row["query_id"],
        image_id=row["image_id"],
        x=numbers["x"],
        y=numbers["y"],
        status=SPELLINGS.get(status, status),
        class_name=row["class"],
        annotator=row.get("annotator") or None,
        seconds=numbers["seconds"],
    )


CSV = RequestFormat(name="csv", names_annotators=True, write=write, read=read)
