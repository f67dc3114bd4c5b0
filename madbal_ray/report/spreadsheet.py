"""Tables as CSV that a spreadsheet opens without computing anything."""

from __future__ import annotations

from typing import Any

import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to spreadsheets; an apostrophe in front makes it text."""


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
    is_formula = isinstance(value, str) and value.startswith(FORMULA_STARTS)
    return f"'{value}" if is_formula else value
