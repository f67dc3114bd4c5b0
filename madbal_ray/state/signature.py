"""A signature over all that a run's rounds came to: HMAC-SHA256 with a key that the run has not.

Hashes in markers show accidents, and edits of whoever does not mend the hashes too. Who does is
found by nobody without a secret: so a run may be signed after each round with a key kept elsewhere.
The root is a hash of the result settings and of every marker's digest, and through those of every
file. Events, reports, dashboards, runtime settings and the store of answers are not under it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from madbal_ray.errors import ConfigError, IntegrityError
from madbal_ray.state.marker import canonical_json, digest
from madbal_ray.state.run_dir import RunDir

SIGNATURE_NAME = "signature.json"
FEWEST_BYTES = 16
"""Of a key; 32 random ones are what `openssl rand -hex 32 > KEY` gives."""


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Return the key in a file, without white space at its ends.

    Raises:
        ConfigError: it cannot be read, or is too short to be a secret.
    """
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"--key-file {path}: cannot be read ({error.strerror})") from None
    if len(key) < FEWEST_BYTES:
        raise ConfigError(
            f"--key-file {path}: holds {len(key)} bytes, expected at least {FEWEST_BYTES}; make "
            "one with `openssl rand -hex 32`"
        )
    return key


def sign(run_dir: RunDir, key: bytes, rounds: int) -> None:
    """Sign the pool and the first `rounds` rounds."""
    signed = {"rounds": rounds, "root": _root(run_dir, rounds)}
    data = canonical_json(signed | {"hmac": _hmac(key, signed)}).encode()
    run_dir.folder.write(SIGNATURE_NAME, data)


def check_signature(run_dir: RunDir, key: bytes) -> int | None:
    """Return how many rounds are signed, None where nothing is.

    Raises:
        IntegrityError: they are not what was signed with this key.
    """
    if not run_dir.folder.exists(SIGNATURE_NAME):
        return None
    where = f"{run_dir.folder}/{SIGNATURE_NAME}"
    stored = run_dir.folder.read_json(SIGNATURE_NAME)
    rounds, root = stored.get("rounds"), stored.get("root")
    if not isinstance(rounds, int) or not isinstance(root, str):
        raise IntegrityError(f"{where} is damaged (no rounds, or no root)")
    expected = _hmac(key, {"rounds": rounds, "root": root})
    if not hmac.compare_digest(str(stored.get("hmac")), expected):
        raise IntegrityError(f"{where} was not written with this key, or was changed since")
    if root != _root(run_dir, rounds):
        raise IntegrityError(
            f"{where}: the settings, the pool or one of the first {rounds} rounds are not those "
            "that were signed"
        )
    return rounds


def _root(run_dir: RunDir, rounds: int) -> str:
    """Return the hash of the settings and of every marker of the pool and the first rounds."""
    stages = []
    for name, round_index in run_dir.pointers():
        if round_index is None or round_index < rounds:
            stage = run_dir.find(name, round_index)
            assert stage is not None
            stages.append([name, -1 if round_index is None else round_index, stage.digest()])
    return digest({"settings": run_dir.config().result_settings(), "stages": sorted(stages)})


def _hmac(key: bytes, signed: dict[str, object]) -> str:
    return hmac.new(key, canonical_json(signed).encode(), hashlib.sha256).hexdigest()
