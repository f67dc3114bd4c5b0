"""Who may: a token in a link, exchanged for a cookie.

Tokens are drawn at each start and live in memory; a session outlives the server, so that a browser
with answers in its outbox can hand them in after a crash, as long as its annotator is named at each
start. The store's file holds a session's hash.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence

from madbal_ray.errors import ConfigError
from madbal_ray.labels.answer_rows import name_problem
from madbal_ray.labels.answer_store import AnswerStore

TOKEN_BYTES = 16
SESSION_SECONDS = 30 * 24 * 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY,
    annotator TEXT NOT NULL,
    time REAL NOT NULL
) STRICT, WITHOUT ROWID
"""


class SignIn:
    """Tokens and sessions of one server; one thread at a time."""

    def __init__(self, store: AnswerStore, annotators: Sequence[str]) -> None:
        for name in annotators:
            problem = name_problem(name)
            if problem is not None:
                raise ConfigError(problem)
        self._store = store
        self.tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in annotators}
        self._by_token = {_digest(token): name for name, token in self.tokens.items()}
        with store.transaction() as connection:
            connection.execute(_SCHEMA)
            connection.execute(
                "DELETE FROM sessions WHERE time < ?", (time.time() - SESSION_SECONDS,)
            )
            rows = connection.execute("SELECT digest, annotator FROM sessions").fetchall()
        self._sessions: dict[str, str] = {
            digest: name for digest, name in rows if name in self.tokens
        }

    def exchange(self, token: str) -> str | None:
        """Return a new session for a link's token; None: it is no token of this server."""
        annotator = self._by_token.get(_digest(token))
        if annotator is None:
            return None
        session = secrets.token_urlsafe(TOKEN_BYTES)
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", (_digest(session), annotator, time.time())
            )
        self._sessions[_digest(session)] = annotator
        return session

    def annotator(self, session: str | None) -> str | None:
        """Return whose session it is; None: nobody's."""
        return None if session is None else self._sessions.get(_digest(session))


def _digest(secret: str) -> str:
    """Return what is compared and stored in place of a secret: it tells nothing by its time."""
    return hashlib.sha256(secret.encode()).hexdigest()
