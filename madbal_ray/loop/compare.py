"""Stored rows beside rows that were computed again: equal, or as close as another machine comes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from madbal_ray.errors import IntegrityError

CLOSE = 1e-3
MOST_APART = 0.01
"""Share of values that may differ by more than `CLOSE` (relative) where a network ran on another
machine, and of pixels that it may class otherwise."""


def compare(stored: pa.Table, replayed: pa.Table, what: str) -> None:
    """See that two tables hold the same rows.

    Raises:
        IntegrityError: names the first column and row that differ.
    """
    if stored.num_rows != replayed.num_rows:
        raise IntegrityError(
            f"{what}: {stored.num_rows} rows are stored, the replay gives {replayed.num_rows}"
        )
    for name in stored.column_names:
        if stored[name].equals(replayed[name]):
            continue
        pairs = zip(stored[name].to_pylist(), replayed[name].to_pylist(), strict=True)
        # repr: a NaN, which stands where a score is not known, is no other than itself
        differing = (
            i for i, (old, new) in enumerate(pairs) if old != new and repr(old) != repr(new)
        )
        row = next(differing, None)
        if row is not None:
            raise IntegrityError(
                f"{what}: column {name} differs from the replay, first in row {row}"
            )


def compare_closely(stored: pa.Table, replayed: pa.Table, what: str) -> float:
    """See that two tables hold nearly the same rows; return the largest share of a column apart.

    Raises:
        IntegrityError: more than `MOST_APART` of a column's values are more than `CLOSE` apart.
    """
    if stored.num_rows != replayed.num_rows:
        raise IntegrityError(
            f"{what}: {stored.num_rows} rows are stored, computed again there are "
            f"{replayed.num_rows}"
        )
    most = 0.0
    for name in stored.column_names:
        old, new = (_values(table[name]) for table in (stored, replayed))
        if old.shape != new.shape:
            apart = 1.0
        elif old.dtype == object:
            apart = float(np.mean(old != new)) if old.size else 0.0
        else:
            with np.errstate(invalid="ignore"):
                is_far = np.abs(old - new) > CLOSE * (1 + np.abs(old))
            is_far |= np.isfinite(old) != np.isfinite(new)
            apart = float(is_far.mean()) if old.size else 0.0
            is_other = (old != new) & ~(np.isnan(old) & np.isnan(new))
            most = max(most, float(is_other.mean()) if old.size else 0.0)
        if apart > MOST_APART:
            raise IntegrityError(
                f"{what}: {apart:.1%} of column {name} differ from what is computed again"
            )
        most = max(most, apart)
    return most


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column flat: float64 where it holds numbers or lists of them, else objects."""
    flat = column.combine_chunks()
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = flat.flatten()
    if pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type):
        return flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(flat.to_pylist(), object)
