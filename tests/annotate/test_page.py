"""The page in a real browser, driven by keys as an annotator does it."""

import json
import os

import pytest

from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import made_store, picture
from tests.annotate.light_server import LightServer

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture
def served(tmp_path):
    """A server of 4 images with 4 queries each, and the store's path."""
    path = tmp_path / "answers.sqlite"
    made_store(path, images=4, each=4).close()
    server = LightServer(path)
    yield server, path
    server.kill()


def opened(browser, link, viewport=DESKTOP):
    """Return a page that shows its first query, and what the console complained of."""
    page = browser.new_context(viewport=viewport).new_page()
    complaints = []
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning")
            and "getImageData" not in message.text  # this test reads the canvas, the page does not
            and complaints.append(message.text)
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(link)
    page.wait_for_url("**/")
    page.wait_for_selector("canvas[data-query^=q]")
    return page, complaints


def shown(page):
    return page.get_attribute("canvas", "data-query")


def press(page, key):
    """Press a key; wait until another query is shown."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function("b => document.querySelector('canvas').dataset.query !== b", arg=before)
    return before


def wait_sent(page):
    page.wait_for_function("() => document.getElementById('unsent').textContent === ''")


def latest(path):
    """Return query_id -> (status, class) of each query's last row."""
    with AnswerStore.open(str(path)) as store:
        return {a.query_id: (a.status, a.class_name) for a in store.answers()}


def test_an_annotator_works_by_keys(browser, served):
    """Classes, undo, skip, unsure, arrows, a reload, a cut network: what was typed is stored."""
    server, path = served
    page, complaints = opened(browser, server.links["ada"])
    typed = {}
    typed[press(page, "s")] = ("labelled", "sky")
    wrong = press(page, "r")
    assert press(page, "Backspace") not in (wrong, None)
    assert shown(page) == wrong
    typed[press(page, "s")] = ("labelled", "sky")
    typed[press(page, ".")] = ("skipped", None)
    typed[press(page, "Shift+?")] = ("unsure", None)
    press(page, "ArrowLeft")
    press(page, "ArrowLeft")
    skipped = shown(page)
    assert typed[skipped] == ("skipped", None)
    assert page.get_attribute("[data-do=skip]", "class") == "given"
    press(page, "0")  # another answer in place of it
    typed[skipped] = ("void", None)
    press(page, "ArrowRight")
    wait_sent(page)
    assert latest(path) == typed

    waiting = shown(page)
    page.reload()
    page.wait_for_selector("canvas[data-query^=q]")
    assert shown(page) == waiting
    assert "4 answered by you, 12 waiting in all" in page.text_content("#count")
    assert complaints == []

    server.kill()  # the network is cut: answers wait in the browser
    typed[press(page, "r")] = ("labelled", "road")
    typed[press(page, "r")] = ("labelled", "road")
    page.wait_for_function("() => document.getElementById('unsent').textContent === '2 not sent'")
    page.wait_for_function(
        "() => document.getElementById('message').textContent.includes('not reached')"
    )
    assert len(latest(path)) == 4
    again = LightServer(path, port=server.port)
    try:
        wait_sent(page)
        assert latest(path) == typed
        while len(typed) < 15:
            typed[press(page, "s")] = ("labelled", "sky")
        page.keyboard.press("s")
        page.wait_for_function(
            "() => document.getElementById('message').textContent.includes('All is')"
        )
        assert len(latest(path)) == 16
        with AnswerStore.open(str(path)) as store:
            answers = store.answers()
        assert {answer.annotator for answer in answers} == {"ada"}
        assert len(answers) == 16 + 3  # taken back, said anew, and another in place of the skip
        page.click("summary")
        page.wait_for_selector("table caption")
        assert "Krippendorff's α –" in page.text_content("#table")
    finally:
        again.kill()
    page.context.close()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_reticle_never_covers_the_pixel(browser, served, viewport):
    server, path = served
    page, complaints = opened(browser, server.links["ada"], viewport)
    with AnswerStore.open(str(path)) as store:
        query = {query.query_id: query for query in store.queries()}[shown(page)]
    expected = picture(0)[query.image_y, query.image_x].tolist()
    for zoom in ("", "+", "+", "-", "-", "-", "-"):
        if zoom:
            page.keyboard.press(zoom)
        centre = json.loads(page.get_attribute("canvas", "data-centre"))
        corners = page.evaluate(
            """({x, y, pixel}) => {
              const pen = document.querySelector('canvas').getContext('2d');
              const reach = Math.max(0, pixel / 2 - 1);
              return [-1, 0, 1].flatMap((dy) => [-1, 0, 1].map((dx) => [...pen.getImageData(
                Math.floor(x + dx * reach), Math.floor(y + dy * reach), 1, 1).data].slice(0, 3)));
            }""",
            centre,
        )
        assert corners == [expected] * 9, (zoom, centre)
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, "the page scrolls sideways"
    if folder := os.environ.get("MADBAL_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/annotate-{viewport['width']}.png", full_page=True)
    page.click("button.class >> nth=1")  # a class whose name is markup: it is text
    page.wait_for_function(
        "() => document.getElementById('message').textContent.includes('<script>')"
    )
    wait_sent(page)
    assert latest(path) == {query.query_id: ("labelled", "<script>alert(1)</script>")}
    assert complaints == []
    page.context.close()


def test_a_key_is_changed_and_kept(browser, served):
    server, path = served
    page, _ = opened(browser, server.links["ada"])
    keys = page.eval_on_selector_all(".key", "all => all.map(b => b.textContent)")
    assert keys == ["s", "c", "r"]
    page.click(".key >> nth=2")
    page.keyboard.press("x")
    page.reload()
    page.wait_for_selector("canvas[data-query^=q]")
    query_id = press(page, "x")
    wait_sent(page)
    assert latest(path) == {query_id: ("labelled", "road")}
    page.context.close()
