"""A run on pictures without masks, and people with a browser each who answer it to its end."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import cohen_kappa_score

import madbal_ray
from madbal_ray.errors import RunDirError
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.settle import Vote, settle
from tests.annotate.test_page import DESKTOP, PHONE, press, shown, wait_sent
from tests.people import truth

ROOT = Path(__file__).parents[2]
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
          "pedestrian", "bicyclist")  # fmt: skip
NUM_IMAGES, EACH, ROUNDS = 12, 5, 2
PATIENCE = 900


def pictures_without_masks(data_folder, root):
    """Copy 12 images of CamVid; return image_id -> hidden mask."""
    rows = (data_folder / "camvid" / "train.txt").read_text().split("\n")
    pairs = [row.split() for row in rows if row][:: 367 // NUM_IMAGES][:NUM_IMAGES]
    (root / "images").mkdir(parents=True)
    masks = {}
    for image, mask in pairs:
        name = f"images/{Path(image).name}"
        (root / name).write_bytes((data_folder / "camvid" / image).read_bytes())
        masks[name] = np.asarray(Image.open(data_folder / "camvid" / mask))
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": [{"name": n} for n in CAMVID]}))
    return masks


def madbal(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "madbal_ray", *map(str, words)],
        cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, text=True, **options,
    )  # fmt: skip


class Person:
    """Someone before a page, who remembers what they typed."""

    def __init__(self, browser, name, link, run, viewport, *, errs=False):
        self.name, self.run, self.errs = name, run, errs
        self.page = browser.new_context(viewport=viewport).new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.typed, self.answered = {}, 0
        self.page.goto(link)
        self.page.wait_for_url("**/")
        self.page.wait_for_selector(".key")
        keys = self.page.eval_on_selector_all(".key", "all => all.map(one => one.textContent)")
        self.keys = dict(zip(CAMVID, keys, strict=True)) | {None: "0"}

    def opinion(self, query):
        status, name = truth(query, self.run.masks, CAMVID)
        if self.errs and status == "labelled" and int(query.query_id[1:], 16) % 4 == 0:
            return status, CAMVID[(CAMVID.index(name) + 1) % len(CAMVID)]
        return status, name

    def answer(self):
        """Answer what is shown; return whether anything is."""
        query_id = shown(self.page)
        if not query_id:
            return False
        word = self.opinion(self.run.query(query_id))
        assert press(self.page, self.keys[word[1]]) == query_id
        self.typed[query_id] = word
        self.answered += 1
        return True

    def skip(self):
        self.typed[press(self.page, ".")] = ("skipped", None)

    def mistype_and_undo(self):
        wrong = press(self.page, "0")
        assert press(self.page, "Backspace") != wrong
        assert shown(self.page) == wrong

    def reload(self):
        wait_sent(self.page)
        waiting = shown(self.page)
        self.page.reload()
        self.page.wait_for_selector("canvas[data-query^=q]")
        assert shown(self.page) == waiting

    def answer_without_network(self, count):
        self.page.context.set_offline(True)
        for _ in range(count):
            assert self.answer()
        self.page.wait_for_function(
            "n => document.getElementById('unsent').textContent === `${n} not sent`", arg=count
        )
        self.page.context.set_offline(False)
        wait_sent(self.page)

    def picture(self, name):
        if folder := os.environ.get("MADBAL_SCREENSHOTS"):
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)


class Asked:
    """What the run asks, and what is hidden from people."""

    def __init__(self, path, masks):
        self.path, self.masks, self.known = path, masks, {}

    def query(self, query_id):
        if query_id not in self.known:
            with AnswerStore.open(str(self.path)) as store:
                self.known = {query.query_id: query for query in store.queries()}
        return self.known[query_id]

    def states(self, round_index):
        try:
            with AnswerStore.open(str(self.path)) as store:
                return store.states(round_index)
        except RunDirError:  # not made yet, or being made
            return {}


def wait_until(is_so, what, *processes):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what
        assert all(process.poll() is None for process in processes), what
        time.sleep(0.2)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_people_see_two_rounds_through(browser, data_folder, tmp_path):
    root, folder = tmp_path / "pictures", tmp_path / "run"
    asked = Asked(folder / "answers.sqlite", pictures_without_masks(data_folder, root))
    run = madbal(
        "run", "experiments/people-cpu.yaml", "--engine", "local", "--run-dir", folder, "--follow",
        *(word for change in (f"data.root={root}", f"num_rounds={ROUNDS}",
                              f"budget.pixels_per_image={EACH}",
                              "train.phase1.steps=20", "train.phase2.steps=10", "model.hidden=32")
          for word in ("--set", change)),
    )  # fmt: skip
    everything = NUM_IMAGES * EACH
    wait_until(lambda: len(asked.states(0)) == everything, "round 0 asks nothing", run)
    server = madbal(
        "annotate", folder, "--port", 0, "--overlap", 0.25,
        "--annotator", "ada", "--annotator", "bob", "--annotator", "eve", stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        links = dict(
            re.fullmatch(r"(\w+): (http\S+)\n", server.stdout.readline()).groups() for _ in range(3)
        )
        ada = Person(browser, "ada", links["ada"], asked, DESKTOP)
        bob = Person(browser, "bob", links["bob"], asked, PHONE, errs=True)
        third = {}
        for index in range(ROUNDS):
            see_a_round_through(ada, bob, index, asked, everything, run)
            eve = Person(browser, "eve", links["eve"], asked, DESKTOP)  # for what the two dispute
            eve.typed = third
            wait_until(
                lambda eve=eve, index=index: (
                    not eve.answer() and settled(asked, index) == everything
                ),
                "the round is not settled",
            )
            eve.page.context.close()
        assert run.wait(PATIENCE) == 0  # it carried on by itself, and is done
        check_labels(folder, asked, {"ada": ada.typed, "bob": bob.typed, "eve": third})
    finally:
        server.kill()
        run.kill()
    ada.page.context.close()
    bob.page.context.close()


def settled(asked, round_index):
    return sum(state.settled is not None for state in asked.states(round_index).values())


def see_a_round_through(ada, bob, index, asked, everything, run):
    for person in (ada, bob):  # the page that was left open finds the new round by itself
        person.page.wait_for_selector("canvas[data-query^=q]")
    if index == 0:
        ada.picture("people-desktop")
        bob.picture("people-phone")
        assert all(person.answer() for person in (ada, bob) for _ in range(3))
        ada.mistype_and_undo()
        bob.skip()
        ada.reload()
        bob.answer_without_network(3)
    wait_until(
        lambda: (
            not (ada.answer() | bob.answer())
            and all(
                state.settled is not None or len(state.votes) == 2
                for state in asked.states(index).values()
            )
        ),
        "the round is not answered",
        run,
    )
    for person in (ada, bob):
        wait_sent(person.page)


def check_labels(folder, asked, typed):
    """The run's labels are what was typed, and so is κ."""
    labels = madbal_ray.open_run(folder).table("labels").to_pandas()
    assert len(labels) == ROUNDS * NUM_IMAGES * EACH
    place = {(q.round, q.image_id, q.y, q.x): q.query_id for q in asked.known.values()}
    for row in labels.to_dict("records"):
        query_id = place[row["round"], row["image_id"], row["y"], row["x"]]
        said = {who: words[query_id] for who, words in typed.items() if query_id in words}
        expected = settle([Vote(who, *word) for who, word in said.items()])
        assert (row["status"], row["annotator"]) == (
            expected.status,
            ", ".join(expected.annotators),
        )
        assert np.isnan(row["class_id"]) == (expected.class_name is None)
        if expected.class_name is not None:
            assert CAMVID[int(row["class_id"])] == expected.class_name
        assert row["seconds"] > 0
    both = [
        (words, typed["bob"][query_id])
        for query_id, words in typed["ada"].items()
        if query_id in typed["bob"] and "skipped" not in (words[0], typed["bob"][query_id][0])
    ]
    assert len(both) >= 10
    kappa = cohen_kappa_score(
        *([word or "void" for _, word in side] for side in zip(*both, strict=True))
    )
    status = madbal_ray.api.status(folder).lines()
    assert f"         ada and bob: {len(both)} pixels in common, Cohen's κ {kappa:.2f}" in status
    print("\n".join(status))
