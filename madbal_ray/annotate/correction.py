"""Correction mode: the network's prediction is shown and may be accepted; a share is asked blind.

People accept what they are shown more often than they would have said it. The controls tell by how
much: the share of predictions that an answer agrees with, shown beside blind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from madbal_ray.annotate.shares import is_blind
from madbal_ray.errors import ConfigError
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.settle import OPINIONS

BLIND = 0.1
"""Share of queries that are asked without showing the prediction."""


class Correction:
    """Which prediction goes with a query.

    Args:
        predict: round -> query_id -> class name; asked once a round.
        blind: share (0..1) of controls.
    """

    def __init__(
        self, predict: Callable[[int], Mapping[str, str]], *, blind: float = BLIND
    ) -> None:
        if not 0 <= blind <= 1:
            raise ConfigError(f"blind controls of {blind}; expected a share from 0 to 1")
        self._predict = predict
        self._blind = blind
        self._known: dict[int, Mapping[str, str]] = {}

    def prediction(self, query_id: str, round_index: int) -> str | None:
        """Return what to show; None: there is none, or the query is a control."""
        if round_index not in self._known:
            self._known[round_index] = self._predict(round_index)
        if is_blind(query_id, self._blind):
            return None
        return self._known[round_index].get(query_id)

    def numbers(self, answers: Iterable[NewAnswer]) -> dict[str, float | int | None]:
        """Return how many answers came with and without a prediction, and how many agree with it.

        Only rounds that were asked for since the server started are known blind.
        """
        predictions = {
            query_id: name for known in self._known.values() for query_id, name in known.items()
        }
        agrees: dict[bool, list[bool]] = {True: [], False: []}
        for answer in answers:
            name = answer.prediction or predictions.get(answer.query_id)
            if answer.status in OPINIONS and name is not None:
                agrees[answer.prediction is not None].append(answer.class_name == name)
        return {
            "shown": len(agrees[True]),
            "shown_agrees": _share(agrees[True]),
            "blind": len(agrees[False]),
            "blind_agrees": _share(agrees[False]),
        }


def _share(agrees: list[bool]) -> float | None:
    return sum(agrees) / len(agrees) if agrees else None
