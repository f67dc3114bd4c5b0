"""A lease on a store without kernel locks: races, take-overs, hiccups (a store in memory)."""

import errno
import fcntl
import json
import os
import threading
import time

import pytest

from madbal_ray.errors import LockedError, RunDirError
from madbal_ray.state import lock
from madbal_ray.state.lock import LEASE_NAME
from madbal_ray.state.storage import Folder

OTHER = {"host": "elsewhere", "pid": 4711, "since": 0, "token": "other"}


class Store(Folder):
    """Files in memory; `after_write` stands for what other processes do."""

    def __init__(self):
        super().__init__("memory://bucket/run")
        self.files, self.after_write, self.written = {}, None, threading.Event()

    def read(self, name):
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def write(self, name, data):
        self.files[name] = data
        if self.after_write is not None:
            self.after_write()
        self.written.set()

    def delete(self, name):
        del self.files[name]

    def take(self, expires_in=60.0):
        lease = OTHER | {"expires": time.time() + expires_in}
        self.files[LEASE_NAME] = json.dumps(lease).encode()

    @property
    def token(self):
        return json.loads(self.files[LEASE_NAME])["token"]

    def wait_for_write(self):
        self.written.clear()
        assert self.written.wait(10)


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(lock, "RACE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.01)
    return Store()


def test_a_disk_without_locks_is_not_one_that_somebody_holds(tmp_path, monkeypatch):
    def refuse(handle, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    says = r"a file system that has no locks \(No locks available\), .*Lustre: -o flock"
    with pytest.raises(RunDirError, match=says), lock.hold(Folder(tmp_path)):
        pass
    (tmp_path / lock.LOCK_NAME).touch()
    assert lock.holder(Folder(tmp_path)) is None


def test_a_lease_names_its_holder_and_is_given_back(store):
    with lock.hold(store):
        assert lock.holder(store)["expires"] == pytest.approx(time.time() + 90, abs=5)
        with pytest.raises(LockedError, match="wait 90 s or add --take-over"), lock.hold(store):
            pass
    assert store.files == {}
    assert lock.holder(store) is None


def test_of_two_that_write_at_once_the_last_one_has_it(store):
    store.after_write = store.take
    entered = False
    with pytest.raises(LockedError, match="held by process 4711 on elsewhere"), lock.hold(store):
        entered = True
    assert not entered
    assert store.token == "other"


def test_the_lease_is_read_back_only_after_a_pause(store, monkeypatch):
    pauses = []
    monkeypatch.setattr(lock, "RACE_SECONDS", 0.625)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: (pauses.append(seconds), store.take()))
    with pytest.raises(LockedError, match="4711"), lock.hold(store):
        pass
    assert pauses == [0.625]


def test_who_was_taken_over_neither_renews_nor_deletes(store):
    with lock.hold(store):
        store.wait_for_write()
        store.take()
        time.sleep(0.1)  # one renewal may have been under way
        store.take()
        store.written.clear()
        assert not store.written.wait(0.2)
        assert store.token == "other"
    assert store.token == "other"


def test_a_lease_is_renewed_while_it_is_held(store):
    with lock.hold(store):
        first = lock.holder(store)["expires"]
        store.wait_for_write()
        store.wait_for_write()
        assert lock.holder(store)["expires"] > first


def test_a_store_that_hiccups_is_asked_again(store):
    fails = iter([True, True])

    def hiccup():
        if next(fails, False):
            raise RunDirError("the store is away")

    with lock.hold(store):
        store.after_write = hiccup
        store.wait_for_write()
    assert next(fails, None) is None
    assert store.files == {}


def test_a_lease_may_be_taken_over_or_waited_for(store):
    store.take()
    with pytest.raises(LockedError, match="4711"), lock.hold(store):
        pass
    with lock.hold(store, take_over=True):
        assert store.token != "other"
    store.take(expires_in=-1)
    assert lock.holder(store) is None
    with lock.hold(store):
        assert store.token != "other"


def test_a_damaged_lease_is_nobodys(store):
    store.files[LEASE_NAME] = b"{torn"
    assert lock.holder(store) is None
    with lock.hold(store):
        pass


def test_asking_who_holds_a_folder_keeps_nobody_out(tmp_path):
    """As `madbal status` in a loop does, while a run starts."""
    folder, ended = Folder(tmp_path), threading.Event()
    with lock.hold(folder):
        pass

    def ask():
        while not ended.is_set():
            lock.holder(folder)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with lock.hold(folder):
                pass
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_folder_that_is_only_asked_about_is_free(tmp_path):
    folder = Folder(tmp_path)
    with lock.hold(folder):
        held = lock.holder(folder)
        assert held is not None
        assert held["pid"] == os.getpid()
    assert lock.holder(folder) is None
    with open(tmp_path / lock.LOCK_NAME, "ab") as another:
        fcntl.flock(another, fcntl.LOCK_SH)  # somebody else asks at this moment
        assert lock.holder(folder) is None
