"""Which queries belong to a declared share: by identity alone, whoever asks and however often."""

from __future__ import annotations

import hashlib


def is_asked_twice(query_id: str, share: float) -> bool:
    """Return whether a second annotator is asked.

    >>> sum(is_asked_twice(f"q{i}", 0.1) for i in range(10_000))
    967
    """
    return _is_chosen("overlap", query_id, share)


def is_blind(query_id: str, share: float) -> bool:
    """Return whether a query is a control, asked without a prediction.

    >>> sum(is_blind(f"q{i}", 0.1) for i in range(10_000))
    989
    """
    return _is_chosen("blind", query_id, share)


def _is_chosen(purpose: str, query_id: str, share: float) -> bool:
    digest = hashlib.sha256(f"{purpose} {query_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
