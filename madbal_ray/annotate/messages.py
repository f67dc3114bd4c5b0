"""What the page may send, checked before anything is done with it."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

MOST_ANSWERS = 50
MOST_HELD = 500
DAY_MILLISECONDS = 24 * 3600 * 1000

QueryId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LeaseMessage(_Message):
    """Asks for queries.

    Attributes:
        have: what the page has or has answered.
    """

    have: list[QueryId] = Field(default=[], max_length=MOST_HELD)


class AnswerMessage(_Message):
    """One answer.

    Attributes:
        uuid: drawn by the page when the key was pressed.
        milliseconds: that the query was visible, time away left out; more than a day is no time
            that anybody looked, and is stored as unknown.
        prediction: class that the annotator was shown.
    """

    uuid: Annotated[UUID, Field(strict=False)]
    query_id: QueryId
    status: Literal["labelled", "void", "skipped", "unsure", "undone"]
    class_name: Annotated[str, Field(max_length=1000)] | None = None
    prediction: Annotated[str, Field(max_length=1000)] | None = None
    milliseconds: Annotated[int, Field(ge=0)] | None = None

    @property
    def known_milliseconds(self) -> int | None:
        """Return the time that counts."""
        spent = self.milliseconds
        return spent if spent is not None and spent <= DAY_MILLISECONDS else None


class AnswersMessage(_Message):
    """Hands answers in, all or none."""

    answers: list[AnswerMessage] = Field(min_length=1, max_length=MOST_ANSWERS)
