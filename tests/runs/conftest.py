"""A run that waits for people, and a store of hand-made queries."""

import pytest

from tests.people import waiting_run
from tests.runs.hand_made import six_queries


@pytest.fixture(scope="package")
def waiting(tmp_path_factory):
    """A run that waits for 30 answers; do not change it. Returns it, masks and class names."""
    return waiting_run(tmp_path_factory.mktemp("waiting"))


@pytest.fixture
def asked(tmp_path):
    """`six_queries`, open."""
    with six_queries(tmp_path / "a.sqlite") as store:
        yield store
