"""One run's labelling desk: queue, sign-in and pictures, behind one lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from madbal_ray.annotate.correction import Correction
from madbal_ray.annotate.dashboard import dashboard
from madbal_ray.annotate.messages import AnswersMessage
from madbal_ray.annotate.outline import Segment, outline
from madbal_ray.annotate.pictures import Pictures
from madbal_ray.annotate.sign_in import SignIn
from madbal_ray.annotate.work_queue import OVERLAP, TTL_SECONDS, WorkQueue
from madbal_ray.arrays import BoolMap
from madbal_ray.errors import BadImageError, DataError
from madbal_ray.labels.answer_rows import NewAnswer, StoredQuery
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.settle import Vote

DASHBOARD_SECONDS = 5.0
"""Age at which the numbers are counted again."""


class Desk:
    """What the server's endpoints do; any number of threads.

    Args:
        store: for this object alone.
        colors: [classes] RGB, 0..255.
        image_sizes: image_id -> (height, width).
        title: of the run.
        regions: query -> its superpixel on the working grid; None: there is none.
        correction: shows predictions; None: nobody sees one.
    """

    def __init__(
        self,
        store: AnswerStore,
        pictures: Pictures,
        *,
        annotators: Sequence[str],
        colors: Sequence[Sequence[int]],
        image_sizes: Mapping[str, tuple[int, int]],
        title: str,
        regions: Callable[[StoredQuery], BoolMap | None],
        overlap: float = OVERLAP,
        correction: Correction | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._store = store
        self._queue = WorkQueue(store, overlap=overlap)
        self._sign_in = SignIn(store, annotators)
        self._pictures = pictures
        self._sizes = image_sizes
        self._title = title
        self._regions = regions
        self._correction = correction
        self._classes = [
            {"name": name, "color": [int(value) for value in color]}
            for name, color in zip(store.class_names, colors, strict=True)
        ]
        self._numbers: tuple[float, dict[str, Any]] | None = None
        self._counting = threading.Lock()
        self.run_id = store.run_id
        self.tokens = self._sign_in.tokens

    def exchange(self, token: str) -> str | None:
        """Return a session for a token, or None."""
        with self._lock:
            return self._sign_in.exchange(token)

    def annotator(self, session: str | None) -> str | None:
        """Return whose session it is, or None."""
        return self._sign_in.annotator(session)

    def introduction(self, annotator: str) -> dict[str, Any]:
        """Return what a page needs to begin: classes, and the annotator's latest answers."""
        with self._lock:
            answered, history = self._queue.answered(annotator), self._queue.history(annotator)
        return {
            "annotator": annotator,
            "run_id": self.run_id,
            "title": self._title,
            "classes": self._classes,
            "ttl_seconds": TTL_SECONDS,
            "answered": answered,
            "history": [self._query(query) | _vote(vote) for query, vote in history],
        }

    def lease(self, annotator: str, have: Sequence[str]) -> dict[str, Any]:
        """Return queries for an annotator, how many wait in all and for a third opinion."""
        with self._lock:
            given = self._queue.lease(annotator, frozenset(have))
            counts = {"waiting": self._queue.waiting, "disputed": self._queue.disputed}
        return {"queries": [self._query(query) for query in given], **counts}

    def renew(self, annotator: str) -> dict[str, Any]:
        """Keep the annotator's leases."""
        with self._lock:
            self._queue.renew(annotator)
            return {"waiting": self._queue.waiting}

    def record(self, annotator: str, message: AnswersMessage) -> dict[str, Any]:
        """Store answers.

        Raises:
            LabelError: one of them cannot be; none was.
        """
        answers = [
            NewAnswer(
                query_id=one.query_id,
                annotator=annotator,
                status=one.status,
                class_name=one.class_name,
                milliseconds=one.known_milliseconds,
                prediction=one.prediction,
                source="page",
                uuid=str(one.uuid),
            )
            for one in message.answers
        ]
        with self._lock:
            revisions = self._queue.record(annotator, answers)
            return {"revisions": revisions, "waiting": self._queue.waiting}

    def picture(self, annotator: str, query_id: str, kind: str) -> tuple[bytes, str] | None:
        """Return a picture and its media type; None: the annotator was given no such query.

        Raises:
            DataError: the image cannot be read, or is not the one that the run asks about.
        """
        with self._lock:
            query = self._queue.query(query_id, annotator)
        if query is None:
            return None
        try:
            if kind == "crop":
                return self._pictures.crop(query), "image/png"
            return self._pictures.whole(query), "image/jpeg"
        except (OSError, BadImageError) as error:
            raise DataError(f"{query.image_id}: {error}") from None

    def outline(self, annotator: str, query_id: str) -> list[Segment] | None:
        """Return the border of a query's superpixel on the image; None: the annotator has no such.

        Empty where the query has no superpixel.
        """
        with self._lock:
            query = self._queue.query(query_id, annotator)
        if query is None:
            return None
        region = self._regions(query)
        height, width = self._sizes[query.image_id]
        return [] if region is None else outline(region, height=height, width=width)

    def numbers(self) -> dict[str, Any]:
        """Return the dashboard, at most `DASHBOARD_SECONDS` old."""
        with self._counting:
            if self._numbers is None or time.monotonic() - self._numbers[0] > DASHBOARD_SECONDS:
                with AnswerStore(self._store.path) as store:  # a reader of its own: nobody waits
                    counted = dashboard(store)
                    if self._correction is not None:
                        counted["correction"] = self._correction.numbers(store.answers())
                self._numbers = (time.monotonic(), counted)
            return self._numbers[1]

    def _query(self, query: StoredQuery) -> dict[str, Any]:
        height, width = self._sizes[query.image_id]
        return {
            "query_id": query.query_id,
            "image_id": query.image_id,
            "round": query.round,
            "y": query.image_y,
            "x": query.image_x,
            "height": height,
            "width": width,
            "unit": query.unit,
            "prediction": None
            if self._correction is None
            else self._correction.prediction(query.query_id, query.round),
        }


def _vote(vote: Vote) -> dict[str, Any]:
    return {"status": vote.status, "class_name": vote.class_name}
