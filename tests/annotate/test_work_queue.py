"""Leases: of one image, for two minutes, to nobody twice but where it is wanted."""

import random

import pytest

from madbal_ray.annotate.shares import is_asked_twice
from madbal_ray.annotate.work_queue import WorkQueue
from madbal_ray.errors import ConfigError, LabelError
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import CLASSES, made_queries, made_store


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    with made_store(tmp_path / "answers.sqlite") as store:
        yield store


def ids(queries):
    return [query.query_id for query in queries]


def say(queue, who, query_id, status="labelled", class_name="sky"):
    name = class_name if status == "labelled" else None
    answer = NewAnswer(
        query_id=query_id, annotator=who, status=status, class_name=name, source="page"
    )
    return queue.record(who, [answer])[0]


def test_a_lease_is_twelve_queries_of_one_image_and_the_rest_comes_next(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    first = queue.lease("ada")
    assert ids(first) == [f"q0i0n{rank}" for rank in range(12)]
    second = queue.lease("ada", have=ids(first))
    assert ids(second) == [f"q0i0n{rank}" for rank in range(12, 20)]
    assert ids(queue.lease("ada", have=ids(first)[:10])) == [
        *ids(first)[10:],
        *ids(second),
    ]  # what got lost on the way comes again


def test_disputes_are_counted_until_they_are_settled(tmp_path, clock):
    with made_store(tmp_path / "a.sqlite", images=1, each=1) as store:
        queue = WorkQueue(store, overlap=1.0, clock=clock)
        counts = []
        for who, name in (("ada", "sky"), ("bob", "road"), ("eve", "road"), ("eve", "sky")):
            queue.lease(who)
            say(queue, who, "q0i0n0", class_name=name)
            counts.append((queue.disputed, queue.waiting))
        say(queue, "eve", "q0i0n0", status="undone")
        counts.append((queue.disputed, queue.waiting))
        assert counts == [(0, 0), (1, 1), (0, 0), (0, 0), (1, 1)]
        assert [queue.answered(who) for who in ("ada", "bob", "eve")] == [1, 1, 0]
        assert WorkQueue(store, overlap=0, clock=clock).disputed == 1


def test_an_image_of_sixteen_is_given_whole(tmp_path, clock):
    with made_store(tmp_path / "a.sqlite", images=1, each=16) as store:
        assert len(WorkQueue(store, overlap=0, clock=clock).lease("ada")) == 16


def test_two_people_get_different_images_then_share_one(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    ada, bob = queue.lease("ada"), queue.lease("bob")
    assert {query.image_id for query in bob} == {"image-1"}
    queue.lease("eve")
    more = queue.lease("dan")
    assert ids(more) == [f"q0i0n{rank}" for rank in range(12, 20)]
    assert not set(ids(more)) & set(ids(ada))


def test_a_lease_ends_after_two_minutes_without_a_sign_of_life(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    mine = ids(queue.lease("ada"))
    clock.now += 119
    queue.renew("ada")
    clock.now += 119
    assert not set(mine) & set(ids(queue.lease("bob")))
    say(queue, "ada", mine[0])
    clock.now += 121
    assert ids(queue.lease("bob")) == [*mine[1:], "q0i0n12"]
    assert say(queue, "ada", mine[1]) == 1  # too late for the lease, yet her word: it is kept
    with pytest.raises(LabelError, match="was not given to 'bob'"):
        say(queue, "bob", "q0i0n19")


def test_asking_for_more_renews_nothing(store, clock):
    """A page that polls with nobody before it must not keep queries from others."""
    queue = WorkQueue(store, overlap=0, clock=clock)
    mine = ids(queue.lease("ada"))
    clock.now += 100
    assert ids(queue.lease("ada", have=mine)) == [f"q0i0n{rank}" for rank in range(12, 20)]
    clock.now += 21
    queue.renew("ada")  # keeps the second lease alone
    assert ids(queue.lease("bob"))[:12] == [f"q0i1n{rank}" for rank in range(12)]
    assert ids(queue.lease("eve")) == [f"q0i2n{rank}" for rank in range(12)]
    assert ids(queue.lease("dan")) == mine


def test_everything_is_answered_once_by_five_people(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    drawn = random.Random(3)
    held = {name: [] for name in "abcde"}
    while queue.waiting:
        name = drawn.choice("abcde")
        held[name] = held[name] or ids(queue.lease(name))
        if held[name]:
            say(queue, name, held[name].pop(0))
    answers = store.answers()
    assert len(answers) == 60
    assert len({answer.query_id for answer in answers}) == 60
    assert all(queue.lease(name) == [] for name in "abcde")


def test_a_share_goes_to_a_second_annotator_and_a_dispute_to_a_third(store, clock):
    queue = WorkQueue(store, overlap=0.2, clock=clock)
    twice = {q.query_id for q in made_queries(3, 20) if is_asked_twice(q.query_id, 0.2)}
    assert len(twice) == 11
    for name, word in (("ada", "sky"), ("bob", "road")):
        while given := queue.lease(name):
            for query in given:
                say(queue, name, query.query_id, class_name=word)
    answers = store.answers()
    by_bob = {answer.query_id for answer in answers if answer.annotator == "bob"}
    assert by_bob == twice
    assert len(answers) == 60 + 11
    assert queue.waiting == 11  # two opinions: they wait for a third
    third = set()
    while given := queue.lease("eve"):
        third |= set(ids(given))
        for query in given:
            say(queue, "eve", query.query_id)
    assert third == twice
    assert (queue.waiting, queue.lease("dan")) == (0, [])


def test_who_takes_it_back_is_asked_again(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    (first, second, *_) = mine = ids(queue.lease("ada"))
    assert say(queue, "ada", first) == 1
    assert queue.waiting == 59
    assert say(queue, "ada", first, "undone") == 2
    assert queue.waiting == 60
    assert first not in ids(queue.lease("bob"))
    assert ids(queue.lease("ada", have=mine[1:])) == [first]
    assert ids(queue.lease("ada"))[:2] == [first, second]  # a page that was opened anew
    assert say(queue, "ada", first, class_name="road") == 3
    assert say(queue, "ada", second, "unsure") == 1
    history = [(q.query_id, v.status, v.class_name) for q, v in queue.history("ada")]
    assert history == [(first, "labelled", "road"), (second, "unsure", None)]


def test_an_image_that_waits_for_others_is_passed_over_until_something_changes(store, clock):
    queue = WorkQueue(store, overlap=1, clock=clock)
    while (given := queue.lease("ada"))[0].image_id == "image-0":
        for query in given:
            say(queue, "ada", query.query_id)
    for query in given:
        say(queue, "ada", query.query_id)
    say(queue, "ada", "q0i0n7", "undone")
    clock.now += 121  # her hold on it has ended, and so has its right of way
    assert ids(queue.lease("ada")) == ["q0i0n7"]
    assert ids(queue.lease("bob"))[:3] == ["q0i1n0", "q0i1n1", "q0i1n2"]


def test_a_new_server_knows_who_has_what(store, clock):
    queue = WorkQueue(store, overlap=0, clock=clock)
    mine = ids(queue.lease("ada"))
    say(queue, "ada", mine[0])
    clock.now += 121
    taken = ids(queue.lease("bob"))  # ada's lease ended: bob has her queries
    assert set(mine[1:]) <= set(taken)
    again = WorkQueue(store, overlap=0, clock=clock)
    assert set(ids(again.lease("bob"))) == set(taken)
    assert not set(ids(again.lease("ada"))) & set(taken)
    assert say(again, "ada", mine[1]) == 1


def test_an_answer_waits_for_the_disk_and_a_lease_does_not(store, clock):
    queue, mode, written = WorkQueue(store, overlap=0, clock=clock), [], {}

    def note(statement):
        if statement.startswith("PRAGMA synchronous"):
            mode.append(statement)
        elif statement.startswith("INSERT"):
            table = "answers" if "INTO answers" in statement else "leases"
            written.setdefault(table, set()).add(mode[-1])

    store._connection.set_trace_callback(note)
    (first, *_) = queue.lease("ada")
    say(queue, "ada", first.query_id)
    queue.lease("bob")
    assert written == {
        "leases": {"PRAGMA synchronous=1"},  # NORMAL
        "answers": {"PRAGMA synchronous=2"},  # FULL
    }


def test_what_others_write_is_taken_up(store, clock, tmp_path):
    queue = WorkQueue(store, overlap=0, clock=clock)
    with AnswerStore.open(str(tmp_path / "answers.sqlite")) as other:
        other.append(
            [
                NewAnswer(query_id=f"q0i0n{rank}", annotator="csv", status="void", source="csv")
                for rank in range(20)
            ]
        )
        assert ids(queue.lease("ada"))[0] == "q0i1n0"
        other.post(made_queries(1, 3, round=-1))
    assert "q-1i0n0" in {q.query_id for q in _all(queue, "ada")}
    assert queue.waiting == 43


def test_what_is_posted_and_answered_elsewhere_comes_before_an_answer_here(store, clock, tmp_path):
    queue = WorkQueue(store, overlap=0, clock=clock)
    mine = ids(queue.lease("ada"))
    with AnswerStore.open(str(tmp_path / "answers.sqlite")) as other:
        other.post(made_queries(1, 2, round=1))
        other.append([NewAnswer(query_id="q1i0n0", annotator="csv", status="void", source="csv")])
    assert say(queue, "ada", mine[0]) == 1
    assert queue.waiting == 60
    assert queue.lease("bob")[0].query_id == "q0i1n0"
    (left,) = [q.query_id for q in _all(queue, "eve") if q.round == 1]
    assert left == "q1i0n1"


def test_what_is_posted_and_answered_between_two_looks_is_taken_up(store, clock, monkeypatch):
    """The queries were counted just before they were posted, the answers read just after."""
    queue = WorkQueue(store, overlap=0, clock=clock)
    store.post(made_queries(1, 2, round=1))
    store.append([NewAnswer(query_id="q1i0n0", annotator="csv", status="void", source="csv")])
    late = iter([60])
    count = AnswerStore.num_queries
    monkeypatch.setattr(AnswerStore, "num_queries", lambda own: next(late, None) or count(own))
    monkeypatch.setattr(queue, "_seen_version", -1)
    queue.lease("ada")
    assert queue.waiting == 61
    assert "q1i0n1" in {q.query_id for q in _all(queue, "eve")}


def _all(queue, name):
    have = []
    while given := queue.lease(name, have=[query.query_id for query in have]):
        have += given
    return have


def test_an_overlap_is_a_share(store):
    with pytest.raises(ConfigError, match=r"1\.5; expected a share from 0 to 1"):
        WorkQueue(store, overlap=1.5)
    assert CLASSES[0] == "sky"
