"""Tables as CSV that a spreadsheet opens without computing anything."""

from __future__ import annotations

from typing import Any

import pandas as pd

STARTS = tuple("=+-@\t\r\n'")
"""What a spreadsheet may take for a formula when a cell begins with it, and the mark against it."""


def safe_cell(text: str) -> str:
    """Mark a cell that a spreadsheet would run as a formula: an apostrophe makes it text.

    >>> safe_cell("=1+1"), plain_cell("'=1+1")
    ("'=1+1", '=1+1')
    """
    return f"'{text}" if text.startswith(STARTS) else text


def plain_cell(text: str) -> str:
    """Return a cell without the mark against formulas."""
    return text.removeprefix("'")


def csv_bytes(table: pd.DataFrame) -> bytes:
    r"""Return a table as CSV; names of runs, members and classes come from users.

    >>> csv_bytes(pd.DataFrame({"member": ["=1+1", "a"], "miou": [-0.5, 1.0]})).decode()
    "member,miou\n'=1+1,-0.5\na,1.0\n"
    """
    safe = table.rename(columns=_as_text)
    for position, dtype in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(position, [_as_text(value) for value in safe.iloc[:, position]])
    return safe.to_csv(index=False).encode()


def _as_text(value: Any) -> Any:
    return safe_cell(value) if isinstance(value, str) else value
