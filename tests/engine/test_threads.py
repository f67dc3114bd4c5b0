"""A worker's threads shared out."""

import threading

import pytest
import torch
from torch import nn

from madbal_ray.engine.threads import shared_threads
from madbal_ray.state.ahead import map_ahead


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "at_once", "each"), [(1, 1, 1), (2, 2, 1), (9, 4, 2)])
def test_each_caller_has_its_share(threads, at_once, each):
    torch.set_num_threads(threads)
    with shared_threads(nn.Identity(), torch.device("cpu")) as callers:
        assert callers == at_once
        together = threading.Barrier(callers)  # all of them at the same time

        def look(_):
            together.wait(timeout=10)
            return torch.get_num_threads()

        seen = map_ahead(look, range(callers), threads=callers, ahead=callers)
        assert list(seen) == [each] * callers
    assert torch.get_num_threads() == threads


def test_one_caller_on_another_device_or_with_a_compiled_network():
    torch.set_num_threads(3)
    network = nn.Identity()
    with shared_threads(network, torch.device("meta")) as callers:
        assert (callers, torch.get_num_threads()) == (1, 3)
    network.compile()
    with shared_threads(network, torch.device("cpu")) as callers:
        assert (callers, torch.get_num_threads()) == (1, 3)
