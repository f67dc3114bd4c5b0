"""The page in a real browser, driven by keys as an annotator does it."""

import json
import os
import time

import pytest

from madbal_ray.annotate.shares import is_blind
from madbal_ray.labels.answer_rows import NewAnswer
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


def opened(browser, link, viewport=DESKTOP, *, has_clock=False):
    """Return a page that shows its first query, and what the console complained of.

    Args:
        has_clock: the page's time is `page.clock`'s.
    """
    page = browser.new_context(viewport=viewport).new_page()
    if has_clock:
        page.clock.install()
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


def wait_said(page, text):
    page.wait_for_function(
        "text => document.getElementById('message').textContent.includes(text)", arg=text
    )


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
        page.click("#numbers summary")
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


def test_two_links_in_one_browser_are_told_apart(browser, served):
    """The later sign-in does not put its name under what the first page answers."""
    server, path = served
    page, _ = opened(browser, server.links["ada"])
    mine = press(page, "s")
    wait_sent(page)
    other = page.context.new_page()
    other.goto(server.links["bob"])
    other.wait_for_selector("canvas[data-query^=q]")
    assert other.text_content("#who") == "bob"
    page.bring_to_front()
    late = press(page, "r")
    wait_said(page, "signed in as 'bob', the page speaks for 'ada'")
    assert latest(path) == {mine: ("labelled", "sky")}
    other.goto(server.links["ada"])  # opened again: what waited in the outbox is sent
    page.wait_for_function(
        "() => document.getElementById('unsent').textContent === ''", timeout=60_000
    )
    with AnswerStore.open(str(path)) as store:
        said = [(one.query_id, one.annotator, one.class_name) for one in store.answers()]
    assert sorted(said) == sorted([(mine, "ada", "sky"), (late, "ada", "road")])
    page.context.close()


def test_what_the_server_refuses_is_kept_and_told(browser, served):
    """One of two answers is refused: the other is taken, this one is shown with the reason."""
    server, path = served
    page, _ = opened(browser, server.links["ada"])
    page.context.route("**/api/answers", lambda route: route.abort())
    bad, good = press(page, "s"), press(page, "r")
    forget_lease(path, bad)
    server.kill()
    page.context.unroute("**/api/answers")
    again = LightServer(path, port=server.port)
    try:
        page.wait_for_selector("#refused:not([hidden])")
        assert page.text_content("#refused summary") == "1 answer was refused"
        assert page.text_content("#refused li").endswith(
            f"sky: query '{bad}' was not given to 'ada'"
        )
        assert latest(path) == {good: ("labelled", "road")}
        assert "1 answered by you" in page.text_content("#count")
        page.reload()  # it is still there, and can be sent again once the cause is gone
        page.wait_for_selector("#refused:not([hidden])")
        press_until(page, bad)
        page.click("#refused summary")
        page.click("#refused button >> nth=0")
        page.wait_for_selector("#refused", state="hidden")
        wait_sent(page)
        assert latest(path)[bad] == ("labelled", "sky")
    finally:
        again.kill()
    page.context.close()


def forget_lease(path, query_id):
    with AnswerStore.open(str(path)) as store, store.transaction() as connection:
        connection.execute("DELETE FROM leases WHERE query_id = ?", (query_id,))


def press_until(page, query_id):
    """Skip until the server has given a query again."""
    for _ in range(16):
        if shown(page) == query_id:
            return
        press(page, ".")
    raise AssertionError(f"{query_id} is not given again")


def test_an_answer_kept_while_another_is_confirmed_is_sent(browser, served):
    """It was pushed to the list of before, which the confirmation had replaced."""
    server, _ = served
    page, _ = opened(browser, server.links["ada"])
    orders = page.evaluate(
        """async () => {
          const { Sender } = await import(document.querySelector('script').src.replace('page.js', 'sender.js'));
          let kept;
          const outbox = { add: (answer) => new Promise((resolve) => { kept = () => resolve({ ...answer, order: 2 }); }) };
          const sender = new Sender(outbox, { changed() {} });
          sender.send = () => {};
          sender.unsent = [{ order: 1 }];
          const keeping = sender.keep({ query_id: 'q' }, 'void', null, 5);
          sender.drop([{ order: 1 }]);
          kept();
          await keeping;
          return sender.unsent.map((one) => one.order);
        }"""  # noqa: E501
    )
    assert orders == [2]
    page.context.close()


def test_a_page_with_nobody_before_it_keeps_nothing(browser, served):
    """When more is asked for, when a lease is renewed, what happens after a long absence."""
    server, path = served
    page, complaints = opened(browser, server.links["ada"], has_clock=True)
    asked = []
    page.on(
        "request",
        lambda request: (
            request.method == "POST"
            and asked.append((request.url.rpartition("/")[2], request.post_data_json))
        ),
    )

    def after(milliseconds, move=True, count=0):
        asked.clear()
        page.clock.run_for(milliseconds)
        if move:
            page.mouse.move(*divmod(milliseconds // 100, 30))
            page.clock.run_for(10)
        eventually(page, lambda: len(asked) >= count)
        return list(asked)

    mine = shown(page)
    assert after(15_000) == []
    assert after(31_000, count=1) == [("renew", {})]
    assert after(1_000) == []
    assert after(110_000, move=False) == []
    assert after(11_000, count=1)[0] == (
        "lease",
        {"have": []},
    )  # what it held may be others' by now
    assert shown(page) == mine
    for _ in range(14):
        press(page, "s")
    page.evaluate(  # both before the next picture: the second one is for nothing that was seen
        """() => ['s', 's'].forEach((key) =>
          document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })))"""
    )
    page.wait_for_function(
        "() => document.getElementById('count').textContent.startsWith('15 answered by you, 1 ')"
    )
    assert len(latest(path)) == 15
    asked.clear()
    for _ in range(3):
        with page.expect_response("**/api/lease"):
            page.clock.run_for(4_100)
    assert [name for name, _ in asked] == ["lease"] * len(asked)
    assert 3 <= len(asked) <= 5  # every four seconds
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    after(4_500, move=False)
    assert after(20_000, move=False) == []
    assert complaints == []
    page.context.close()


def test_a_prediction_is_accepted_by_enter_and_the_outline_is_drawn_on_demand(browser, tmp_path):
    path = tmp_path / "answers.sqlite"
    made_store(path, images=1, each=6).close()
    server = LightServer(path, predicted="road")
    page, complaints = opened(browser, server.links["ada"])
    assert page.text_content("#accept") == "Enter as the network says: road"
    assert page.get_attribute("button.class >> nth=2", "class") == "class predicted"
    changed_pixels(page)
    with page.expect_response("**/api/outline/*"):
        page.keyboard.press(",")
    changed = eventually(page, lambda: changed_pixels(page))
    around = 2 * (8 + 10) * json.loads(page.get_attribute("canvas", "data-centre"))["pixel"]
    assert around < changed < 4 * around
    accepted = press(page, "Enter")
    other = press(page, "s")
    page.focus("button.class >> nth=1")  # who goes by Tab presses the button that has the focus
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    by_button = press(page, "Enter")
    wait_sent(page)
    assert latest(path) == {
        accepted: ("labelled", "road"),
        other: ("labelled", "sky"),
        by_button: ("labelled", "<script>alert(1)</script>"),
    }
    with AnswerStore.open(str(path)) as store:
        assert {one.prediction for one in store.answers()} == {"road"}
    assert complaints == []
    server.kill()
    page.context.close()


def test_enter_accepts_after_a_click_and_says_nothing_of_a_blind_pixel(browser, tmp_path):
    """A button that was clicked kept the focus, and Enter pressed it again."""
    path = tmp_path / "answers.sqlite"
    made_store(path, images=1, each=12).close()
    server = LightServer(path, predicted="road", blind=0.3)
    page, complaints = opened(browser, server.links["ada"])
    expected, kinds = {}, []

    def click(selector, answer):
        before = shown(page)
        page.click(selector)
        wait_other(page, before)
        expected[before] = answer

    page.focus("button.class >> nth=1")  # given up at the first click
    for number in range(5):
        if number == 2:
            click("[data-do=skip]", ("skipped", None))
        else:
            click("button.class >> nth=0", ("labelled", "sky"))
        blind = is_blind(shown(page), 0.3)
        kinds.append(blind)
        if blind:
            before = shown(page)
            for key in ("Enter", " "):
                page.keyboard.press(key)
            page.wait_for_timeout(300)
            assert shown(page) == before
        else:
            expected[press(page, "Enter")] = ("labelled", "road")
    assert sorted(set(kinds)) == [False, True]
    wait_sent(page)
    assert latest(path) == expected

    page.keyboard.press("Tab")  # who goes by Tab presses a button, once for as long as it is held
    page.focus("[data-do=void]")
    for key in ("Enter", " "):
        before = shown(page)
        for _ in range(4):
            page.keyboard.down(key)
            page.wait_for_timeout(50)
        page.keyboard.up(key)
        wait_other(page, before)
        page.wait_for_timeout(300)
        expected[before] = ("void", None)
        wait_sent(page)
        assert latest(path) == expected
    assert complaints == []
    server.kill()
    page.context.close()


def wait_other(page, before):
    page.wait_for_function("b => document.querySelector('canvas').dataset.query !== b", arg=before)


def test_a_picture_that_does_not_come_is_told_and_can_be_skipped(browser, served):
    server, path = served
    bad = path.with_name("image-1")
    bad.touch()
    page, _ = opened(browser, server.links["ada"])
    for _ in range(4):
        press(page, "s")
    told = "The picture does not come: the server cannot read it: image-1: it holds something else."
    wait_said(page, told)
    assert shown(page) == ""
    assert page.text_content("#where").startswith("image-1, column 3, row 5")
    for key in ("s", "0", "Shift+?", "Enter"):  # nothing is said of what nobody saw
        page.keyboard.press(key)
    page.keyboard.press(".")
    page.wait_for_function(
        "() => document.getElementById('where').textContent.startsWith('image-1, column 34')"
    )
    bad.unlink()  # it is mended: the next try shows it
    page.wait_for_selector("canvas[data-query=q0i1n1]")
    page.wait_for_function("() => document.getElementById('message').textContent === ''")
    press(page, "r")
    wait_sent(page)
    assert {name: said for name, said in latest(path).items() if "i1" in name} == {
        "q0i1n0": ("skipped", None),
        "q0i1n1": ("labelled", "road"),
    }
    page.context.close()


def test_a_page_of_another_run_sends_nothing_to_this_one(browser, tmp_path):
    """Two runs, one after the other, on the usual port: the first one's tab is still open."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = tmp_path / "a" / "answers.sqlite", tmp_path / "b" / "answers.sqlite"
    made_store(a, images=1, each=6, run_id="a" * 24).close()
    made_store(b, images=1, each=6, run_id="b" * 24).close()
    server = LightServer(a)
    page, _ = opened(browser, server.links["ada"])
    server.kill()
    mine = press(page, "s")
    other = LightServer(b, port=server.port)
    tab = page.context.new_page()
    tab.goto(other.links["ada"])  # signed in to both
    tab.wait_for_selector("canvas[data-query^=q]")
    page.bring_to_front()
    page.wait_for_function(
        "() => document.getElementById('message').textContent.startsWith("
        "'this page belongs to another run than this server: open the link that its own server')",
        timeout=60_000,
    )
    assert page.text_content("#unsent") == "1 not sent"
    assert page.is_hidden("#refused")
    assert latest(b) == {}
    other.kill()
    again = LightServer(a, port=server.port)
    page.wait_for_function(
        "() => document.getElementById('unsent').textContent === ''", timeout=60_000
    )
    assert latest(a) == {mine: ("labelled", "sky")}
    again.kill()
    page.context.close()


def test_on_a_phone_the_picture_stays_in_sight_while_classes_scroll(browser, tmp_path):
    path = tmp_path / "answers.sqlite"
    names = [f"class {index}" for index in range(24)]
    made_store(path, images=1, each=6, class_names=names).close()
    server = LightServer(path)
    page, _ = opened(browser, server.links["ada"], PHONE)
    boxes = """() => Object.fromEntries([['view', '#view'], ['message', '#message'], ['unsent', '#unsent'],
      ['last', 'li:last-child .class']].map(([name, selector]) => {
        const one = document.querySelector(selector), box = one.getBoundingClientRect();
        const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        return [name, {top: box.top, bottom: box.bottom, isInFront: one.contains(top)}];
      }))"""  # noqa: E501
    page.context.set_offline(True)
    page.click("li:last-child .class")
    page.wait_for_function("() => document.getElementById('unsent').textContent === '1 not sent'")
    page.locator("li:last-child .class").scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 100
    for name, box in page.evaluate(boxes).items():
        assert box["isInFront"], name
        assert 0 <= box["top"] < box["bottom"] <= PHONE["height"], (name, box)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.set_viewport_size(DESKTOP)
    page.wait_for_timeout(100)
    page.evaluate("scrollTo(0, 0)")
    stage = page.evaluate("document.getElementById('stage').getBoundingClientRect().bottom")
    assert 0.9 * DESKTOP["height"] < stage <= DESKTOP["height"]
    for viewport in (DESKTOP, {"width": 800, "height": 390}):
        page.set_viewport_size(viewport)
        page.wait_for_timeout(100)
        page.locator("li:last-child .class").scroll_into_view_if_needed()
        for name, box in page.evaluate(boxes).items():
            assert 0 <= box["top"] < box["bottom"] <= viewport["height"], (viewport, name, box)
    server.kill()
    page.context.close()


def test_the_count_is_of_all_that_was_answered(browser, tmp_path):
    """Also of what the arrow keys do not reach, such as answers that were imported."""
    path = tmp_path / "answers.sqlite"
    with made_store(path, images=2, each=6) as store:
        given = {"annotator": "ada", "status": "void", "source": "csv"}
        store.append([NewAnswer(query_id=f"q0i0n{rank}", **given) for rank in range(5)])
    server = LightServer(path)
    page, _ = opened(browser, server.links["ada"])
    assert page.text_content("#count") == "5 answered by you, 7 waiting in all"
    assert page.evaluate("[bar.value, bar.max]") == [5, 12]
    press(page, "s")
    wait_sent(page)
    assert page.text_content("#count") == "6 answered by you, 6 waiting in all"
    press(page, "ArrowLeft")
    assert page.text_content("#message") == "Your answer 6 of 6; another one replaces it."
    page.reload()
    page.wait_for_selector("canvas[data-query^=q]")
    assert page.text_content("#count") == "6 answered by you, 6 waiting in all"
    server.kill()
    page.context.close()


def test_pixels_on_which_two_differ_are_told(browser, tmp_path):
    path = tmp_path / "answers.sqlite"
    with made_store(path, images=1, each=2) as store:
        for who, name in (("ada", "sky"), ("bob", "road")):
            given = {"annotator": who, "status": "labelled", "source": "csv"}
            store.append([NewAnswer(query_id="q0i0n0", class_name=name, **given)])
    server = LightServer(path)
    page, _ = opened(browser, server.links["ada"])
    page.keyboard.press("s")
    wait_said(
        page,
        "Nothing waits for you; 1 wait for somebody else. On 1 of them two people differ: a third "
        "one settles that (madbal annotate RUN --annotator NAME), or one of the two who changes "
        "their answer",
    )
    server.kill()
    page.context.close()


def test_a_lost_shift_and_a_click_leave_nothing_behind(browser, served):
    """Shift let go of in another window; a class clicked while a new key is awaited."""
    server, path = served
    page, _ = opened(browser, server.links["ada"])
    ring = "[data-do=marker]"
    page.keyboard.down("Shift")
    assert page.get_attribute(ring, "aria-pressed") == "true"
    page.evaluate("window.dispatchEvent(new Event('blur'))")
    assert page.get_attribute(ring, "aria-pressed") == "false"
    page.keyboard.up("Shift")
    page.click(ring)  # hidden by its button, it stays so
    page.evaluate("window.dispatchEvent(new Event('blur'))")
    assert page.get_attribute(ring, "aria-pressed") == "true"
    page.click(".key >> nth=0")
    wait_said(page, "Press the new key of sky")
    before = shown(page)
    page.click("button.class >> nth=2")
    wait_other(page, before)
    after = press(page, "c")  # answers, and is not sky's new key
    wait_sent(page)
    assert latest(path) == {
        before: ("labelled", "road"),
        after: ("labelled", "<script>alert(1)</script>"),
    }
    page.context.close()


def eventually(page, ask, seconds=10.0):
    """Return what is true at last; requests and drawings come when the machine has time."""
    ends = time.monotonic() + seconds
    page.wait_for_timeout(50)
    while not (found := ask()) and time.monotonic() < ends:
        page.wait_for_timeout(20)
    return found


def changed_pixels(page):
    """Return how many pixels of the canvas are others than at the call before."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector('canvas');
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const before = window.before ?? data;
          window.before = data;
          return data.reduce((count, value, i) => count + (i % 4 === 0 && value !== before[i]), 0);
        }"""
    )
