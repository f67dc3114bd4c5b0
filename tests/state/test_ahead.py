"""Work ahead: results in order, bytes asked for apart from the threads that decode them."""

import threading
import time

import pytest

from madbal_ray.state.ahead import at_once, begun, fetch_ahead, map_ahead


def test_results_come_in_order_whoever_is_ready_first():
    def fetch(item):
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * 10

    found = fetch_ahead(
        fetch, lambda item, got: (item, got), range(20), fetches=6, threads=2, ahead=3
    )
    assert list(found) == [(item, item * 10) for item in range(20)]


def test_bytes_are_asked_for_by_more_threads_than_decode():
    together = threading.Barrier(8)  # eight at once, or it breaks

    def fetch(item):
        together.wait(timeout=10)
        return item

    found = fetch_ahead(fetch, lambda item, got: got, range(8), fetches=8, threads=1, ahead=1)
    assert list(found) == list(range(8))


def test_a_late_answer_holds_up_nobody_who_has_decoded_images_to_take():
    late = threading.Event()

    def fetch(item):
        assert item < 5 or late.wait(timeout=10)
        return item

    found = fetch_ahead(fetch, lambda item, got: got, range(9), fetches=2, threads=2, ahead=4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]  # 5 and 6 have not come
    late.set()
    assert list(found) == [3, 4, 5, 6, 7, 8]


def test_no_more_is_computed_than_may_wait():
    done = []
    found = map_ahead(done.append, range(50), threads=2, ahead=5)
    next(found)
    time.sleep(0.05)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    found.close()
    assert len(done) == 6


def test_begun_work_goes_on_before_it_is_asked_for():
    done = []
    found = begun(map_ahead(lambda item: done.append(item) or item, range(4), threads=1, ahead=2))
    ends = time.monotonic() + 5
    while len(done) < 3 and time.monotonic() < ends:
        time.sleep(0.001)
    assert done == [0, 1, 2]
    assert list(found) == [0, 1, 2, 3]
    assert list(begun(iter(()))) == []


def test_calls_at_once_wait_together_and_answer_in_order():
    together = threading.Barrier(2)
    assert at_once(lambda: together.wait(10) < 2, lambda: together.wait(10) + 5 > 4) == [True, True]
    with pytest.raises(ZeroDivisionError):
        at_once(lambda: 1 // 0, lambda: 3)
