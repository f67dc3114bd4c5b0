"""The server: who may, what it refuses, and that a refusal changes nothing."""

import asyncio
import io
import re

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from madbal_ray.annotate import work_queue
from madbal_ray.annotate.app import create_app
from madbal_ray.annotate.correction import Correction
from madbal_ray.annotate.guard import MOST_BODY
from madbal_ray.annotate.outline import outline
from madbal_ray.annotate.shares import is_blind
from madbal_ray.errors import ConfigError
from madbal_ray.labels.answer_store import AnswerStore
from tests.annotate.hand_made import CLASSES, made_desk, made_store, picture, said

HOME = "http://127.0.0.1:8470"
POST = {"Origin": HOME, "X-Madbal": "1"}


@pytest.fixture
def desk(tmp_path):
    with made_store(tmp_path / "answers.sqlite") as store:
        yield made_desk(store)


def client_of(desk, who=None):
    client = TestClient(create_app(desk), base_url=HOME, raise_server_exceptions=False)
    if who is not None:
        assert client.get(f"/?token={desk.tokens[who]}").status_code == 200
        client.headers["X-Annotator"] = who
    return client


@pytest.fixture
def ada(desk):
    return client_of(desk, "ada")


def post(client, path, message, **headers):
    return client.post(path, json=message, headers=POST | headers)


def leased(client):
    reply = post(client, "/api/lease", {"have": []})
    assert reply.status_code == 200, reply.text
    return [query["query_id"] for query in reply.json()["queries"]]


def rows(tmp_path):
    with AnswerStore.open(str(tmp_path / "answers.sqlite")) as store:
        return [(a.query_id, a.annotator, a.status, a.class_name, a.revision, a.milliseconds)
                for a in store.answers()]  # fmt: skip


def test_a_token_of_128_bits_becomes_a_strict_cookie(desk):
    token = desk.tokens["ada"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", token)
    assert token != desk.tokens["bob"]
    client = client_of(desk)
    assert client.get("/").status_code == 401
    reply = client.get("/", params={"token": token})
    cookie = reply.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert token not in cookie
    assert 'type="module" src="/page/page.js"' in client.get("/").text
    assert client.get("/api/introduction").json()["annotator"] == "ada"


def test_a_browser_stays_signed_in_when_the_server_starts_anew(tmp_path, desk, ada):
    with made_store(tmp_path / "answers.sqlite") as store:
        again = made_desk(store)
        client = TestClient(create_app(again), base_url=HOME, cookies=ada.cookies)
        assert client.get("/api/introduction").json()["annotator"] == "ada"
        assert client.get("/", params={"token": desk.tokens["ada"]}).status_code == 403


def test_who_is_not_named_at_this_start_is_not_let_in(tmp_path, desk):
    """Also with the cookie of an earlier start, which counts again when the name does."""
    bob = client_of(desk, "bob")
    for annotators, status in ((["ada"], 401), (["ada", "bob"], 200)):
        with made_store(tmp_path / "answers.sqlite") as store:
            again = made_desk(store, annotators=annotators)
            client = TestClient(create_app(again), base_url=HOME, cookies=bob.cookies)
            assert client.get("/api/introduction").status_code == status


@pytest.mark.parametrize("name", ["ada ", " ada", " "])
def test_a_name_with_a_blank_that_nobody_sees_is_refused(tmp_path, name):
    """It would be a second person of the same name."""
    with made_store(tmp_path / "answers.sqlite") as store:
        with pytest.raises(ConfigError) as refused:
            made_desk(store, annotators=["ada", name])
        assert str(refused.value) == (
            f"annotator {name!r}; expected 1 to 200 printable characters, none of the ends blank"
        )


def test_a_page_of_another_run_is_refused_before_it_is_asked_who_it_is(desk, ada, tmp_path):
    answer = {"answers": [said(leased(ada)[0])]}
    assert ada.get("/api/introduction").json()["run_id"] == "r" * 24
    for client in (ada, client_of(desk)):
        refused = post(client, "/api/answers", answer, **{"X-Run": "s" * 24})
        assert refused.status_code == 403
        assert refused.json()["error"] == (
            "this page belongs to another run than this server: open the link that its own server "
            "printed; what it has not sent stays in this browser"
        )
    assert rows(tmp_path) == []
    assert post(ada, "/api/answers", answer, **{"X-Run": "r" * 24}).status_code == 200


def test_a_browser_that_goes_away_in_the_middle_leaves_no_traceback(desk, ada):
    (cookie,) = ada.cookies.items()
    headers = POST | {"Host": HOME[7:], "X-Annotator": "ada", "Cookie": "=".join(cookie)}
    headers |= {"Content-Type": "application/json", "Content-Length": "10"}
    scope = {
        "type": "http", "method": "POST", "path": "/api/lease", "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    events = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return events.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(create_app(desk)(scope, receive, send))
    assert sent[0]["status"] == 408  # none of the refusals that are final for the page's sender


def test_the_introduction_counts_beyond_the_history(ada, monkeypatch):
    monkeypatch.setattr(work_queue, "HISTORY", 2)
    given = leased(ada)[:4]
    answers = [said(query_id) for query_id in given] + [said(given[0], "undone")]
    assert post(ada, "/api/answers", {"answers": answers}).status_code == 200
    session = ada.get("/api/introduction").json()
    assert session["answered"] == 3
    assert [one["query_id"] for one in session["history"]] == given[3:]


def test_answers_are_stored_once_and_undone_by_a_revision(ada, tmp_path):
    first, second, third, *_ = leased(ada)
    answer = said(first)
    one = post(ada, "/api/answers", {"answers": [answer, said(second, "void")]})
    assert one.json() == {"revisions": [1, 1], "waiting": 58}
    again = post(ada, "/api/answers", {"answers": [answer]})
    assert again.json() == {"revisions": [1], "waiting": 58}
    undone = post(ada, "/api/answers", {"answers": [said(first, "undone", milliseconds=0)]})
    assert undone.json() == {"revisions": [2], "waiting": 59}
    replayed = post(ada, "/api/answers", {"answers": [answer]})
    assert replayed.json() == {"revisions": [1], "waiting": 59}
    post(ada, "/api/answers", {"answers": [said(third, "skipped"), said(first, class_name="road")]})
    assert rows(tmp_path) == [
        (first, "ada", "labelled", "sky", 1, 1500),
        (second, "ada", "void", None, 1, 1500),
        (first, "ada", "undone", None, 2, 0),
        (third, "ada", "skipped", None, 1, 1500),
        (first, "ada", "labelled", "road", 3, 1500),
    ]
    history = ada.get("/api/introduction").json()["history"]
    assert [(one["query_id"], one["status"], one["class_name"]) for one in history] == [
        (second, "void", None),
        (third, "skipped", None),
        (first, "labelled", "road"),
    ]


def test_names_reach_the_page_as_data(ada):
    given = ada.get("/api/introduction")
    assert given.headers["content-type"] == "application/json"
    assert [one["name"] for one in given.json()["classes"]] == list(CLASSES)
    assert given.json()["title"] == "<b>made</b>"
    assert "<script>alert" not in ada.get("/").text


def test_pictures_come_by_query_and_to_whom_they_were_given(desk, ada):
    query_id = leased(ada)[3]
    reply = ada.get(f"/images/{query_id}/crop.png")
    crop = np.asarray(Image.open(io.BytesIO(reply.content)))
    y, x = 7 * 3 + 5, 31 * 3 + 3
    assert np.array_equal(crop, picture(0)[: y + 97, : x + 97])
    whole = Image.open(io.BytesIO(ada.get(f"/images/{query_id}/whole.jpg").content))
    assert whole.size == (400, 300)
    bob = client_of(desk, "bob")
    assert bob.get(f"/images/{query_id}/crop.png").status_code == 404
    assert ada.get("/images/q0i2n0/crop.png").status_code == 404
    for path in (
        "../answers.sqlite",
        "%2e%2e%2fanswers.sqlite",
        "..%2f..%2fetc%2fpasswd",
        "image-0",
    ):
        assert ada.get(f"/images/{path}/crop.png").status_code == 404
        assert ada.get(f"/page/{path}").status_code == 404


def test_headers_keep_the_page_to_itself(ada):
    for path in ("/", "/page/page.js", "/api/introduction", "/nothing"):
        headers = ada.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def bad_requests(query_id, foreign):
    """Yield name -> (method, path, keywords of the request, expected status)."""
    good = {"answers": [said(query_id)]}

    def posting(message=good, path="/api/answers", **headers):
        return "POST", path, {"json": message, "headers": POST | headers}

    def without(name):
        headers = {key: value for key, value in POST.items() if key != name}
        return "POST", "/api/answers", {"json": good, "headers": headers}

    def raw(content, kind="application/json"):
        headers = POST | {"Content-Type": kind}
        return "POST", "/api/answers", {"content": content, "headers": headers}

    yield "another host", *posting(Host="evil.example:8470", Origin="http://evil.example:8470"), 421
    yield "a host with a user", *posting(Host="127.0.0.1@evil.example"), 421
    yield "a host like ours", *posting(Host="127.0.0.1.evil.example:8470"), 421
    yield "no host", *posting(Host=""), 421
    yield "another site", *posting(Origin="http://evil.example"), 403
    yield "another port", *posting(Origin="http://127.0.0.1:9999"), 403
    yield "a null origin", *posting(Origin="null"), 403
    yield "no origin", *without("Origin"), 403
    yield "no header of ours", *without("X-Madbal"), 403
    yield "a form", *raw(b"a=b", "application/x-www-form-urlencoded"), 415
    yield "text", *raw(b"{}", "text/plain"), 415
    yield "no JSON", *raw(b"{"), 400
    yield "deep JSON", *raw(b"[" * 60_000), 400
    yield "no UTF-8", *raw(b'{"answers": "\xff"}'), 400
    yield "a list", *raw(b"[]"), 400
    yield "a large body", *raw(b" " * (MOST_BODY + 1)), 413
    yield "too many answers", *posting({"answers": [said(query_id)] * 51}), 400
    yield "no answers", *posting({"answers": []}), 400
    yield "a key too many", *posting({"answers": [said(query_id, annotator="bob")]}), 400
    yield "no UUID", *posting({"answers": [said(query_id, uuid="1")]}), 400
    yield "another's UUID", *posting({"answers": [said(query_id, uuid=foreign)]}), 409
    yield "an unknown class", *posting({"answers": [said(query_id, class_name="<script>")]}), 409
    yield "no class", *posting({"answers": [said(query_id, class_name=None)]}), 409
    yield "an unknown status", *posting({"answers": [said(query_id, "approved")]}), 400
    yield "negative time", *posting({"answers": [said(query_id, milliseconds=-1)]}), 400
    yield "time as text", *posting({"answers": [said(query_id, milliseconds="5")]}), 400
    yield "a query never given", *posting({"answers": [said("q0i2n0")]}), 409
    yield "no such query", *posting({"answers": [said("q9")]}), 409
    yield "SQL", *posting({"answers": [said("'; DROP TABLE answers; --")]}), 400
    yield "one good, one bad", *posting({"answers": [said(query_id), said("q9")]}), 409
    yield "too much held", *posting({"have": ["q"] * 501}, "/api/lease"), 400
    yield "no list held", *posting({"have": 5}, "/api/lease"), 400
    yield "a GET of a POST", "GET", "/api/answers", {}, 405
    yield "a POST of a GET", *posting({}, "/api/introduction"), 405
    yield "DELETE", "DELETE", "/api/answers", {}, 405
    yield "a wrong token", "GET", "/?token=x", {}, 403
    yield "no such page", "GET", "/answers.sqlite", {}, 404


def test_every_bad_request_gets_a_4xx_and_changes_nothing(desk, ada, tmp_path):
    bob = client_of(desk, "bob")
    foreign = said(leased(bob)[0])
    assert post(bob, "/api/answers", {"answers": [foreign]}).status_code == 200
    query_id = leased(ada)[0]
    before = rows(tmp_path)
    for name, method, path, more, status in bad_requests(query_id, foreign["uuid"]):
        reply = ada.request(method, path, **more)
        assert reply.status_code == status, (name, reply.status_code, reply.text)
        assert rows(tmp_path) == before, name
    stranger = client_of(desk)
    for path in (
        "/api/introduction",
        "/api/numbers",
        "/page/page.js",
        f"/images/{query_id}/crop.png",
    ):
        assert stranger.get(path).status_code == 401, path
    for path in ("/api/lease", "/api/renew", "/api/answers"):
        assert post(stranger, path, {"answers": [said(query_id)]}).status_code == 401, path
    stranger.cookies.update(dict.fromkeys(ada.cookies, "x"))
    assert post(stranger, "/api/answers", {"answers": [said(query_id)]}).status_code == 401
    assert rows(tmp_path) == before
    assert post(ada, "/api/answers", {"answers": [said(query_id)]}).status_code == 200


def test_a_page_speaks_for_one_annotator(desk, ada, tmp_path):
    """Two links opened in one browser share its cookie: the later one signs the first page out."""
    query_id = leased(ada)[0]
    ada.get(f"/?token={desk.tokens['bob']}")
    for method, path in (("GET", "/api/introduction"), ("GET", f"/images/{query_id}/crop.png"),
                         ("POST", "/api/lease"), ("POST", "/api/renew")):  # fmt: skip
        reply = ada.request(
            method, path, headers=POST, **({"json": {}} if method == "POST" else {})
        )
        assert reply.status_code == 401, path
    answer = {"answers": [said(query_id)]}
    refused = post(ada, "/api/answers", answer)
    assert refused.status_code == 401
    assert "signed in as 'bob', the page speaks for 'ada'" in refused.json()["error"]
    del ada.headers["X-Annotator"]
    assert post(ada, "/api/answers", answer).status_code == 401
    assert ada.get("/api/introduction").json()["annotator"] == "bob"  # a new page asks who it is
    assert rows(tmp_path) == []
    ada.get(f"/?token={desk.tokens['ada']}")
    assert post(ada, "/api/answers", answer, **{"X-Annotator": "ada"}).status_code == 200


def test_a_page_speaks_for_a_name_in_any_script(tmp_path):
    name = "Zoë 李"
    with made_store(tmp_path / "answers.sqlite") as store:
        desk = made_desk(store, annotators=[name, "Zoë"])
        client = client_of(desk)
        client.get(f"/?token={desk.tokens[name]}")
        said_name = {"X-Annotator": "Zo%C3%AB%20%E6%9D%8E"}
        assert post(client, "/api/lease", {}, **said_name).status_code == 200


def test_a_time_of_more_than_a_day_is_unknown(ada, tmp_path):
    first, second, *_ = leased(ada)
    day = 24 * 3600 * 1000
    answers = [said(first, milliseconds=day), said(second, milliseconds=10**30)]
    assert post(ada, "/api/answers", {"answers": answers}).status_code == 200
    assert [row[-1] for row in rows(tmp_path)] == [day, None]


def test_an_image_that_cannot_be_read_is_told(tmp_path):
    from madbal_ray.annotate.pictures import Pictures

    with made_store(tmp_path / "answers.sqlite") as store:
        desk = made_desk(store)
        desk._pictures = Pictures(lambda uri: b"no image", max_pixels=100)
        client = client_of(desk, "ada")
        reply = client.get(f"/images/{leased(client)[0]}/crop.png")
        assert reply.status_code == 503
        told = reply.json()["error"]
        assert told.startswith("the server cannot read it: image-0: "), told


def test_numbers_of_two_people(tmp_path):
    with made_store(tmp_path / "answers.sqlite", images=1, each=10) as store:
        desk = made_desk(store, overlap=1.0)
        words = {
            "ada": ["sky"] * 5 + ["road"] * 5,
            "bob": ["sky"] * 4 + ["road"] * 6,
        }
        for who, said_by in words.items():
            client = client_of(desk, who)
            given = leased(client)
            assert len(given) == 10
            answers = [
                said(query_id, class_name=word, milliseconds=1000 * (1 + rank))
                for rank, (query_id, word) in enumerate(zip(given, said_by, strict=True))
            ]
            assert post(client, "/api/answers", {"answers": answers}).status_code == 200
        numbers = client.get("/api/numbers").json()
        (kappa,) = numbers["kappa"]
        assert (kappa["annotators"], kappa["pixels"]) == (["ada", "bob"], 10)
        assert kappa["kappa"] == pytest.approx(0.8)  # observed 0.9, by chance 0.5
        assert numbers["alpha"] == pytest.approx(1 - 19 * 2 / (2 * 9 * 11))
        assert [one["median_seconds"] for one in numbers["annotators"]] == [5.5, 5.5]
        assert numbers["rounds"] == [{"round": 0, "asked": 10, "answered": 9, "disputed": 1}]
        assert numbers["class_shares"] == {
            "sky": pytest.approx(4 / 9),
            CLASSES[1]: 0.0,
            "road": pytest.approx(5 / 9),
        }
        assert numbers["answers_per_minute"] == pytest.approx(20)


def test_the_outline_of_a_superpixel_is_for_whom_the_query_was_given(desk, ada):
    query_id = leased(ada)[0]  # at y 5, x 3
    reply = ada.get(f"/api/outline/{query_id}")
    assert {tuple(one) for one in reply.json()["segments"]} == {
        (0.0, 0.0, 0.0, 10.0),
        (8.0, 0.0, 8.0, 10.0),
        (0.0, 0.0, 8.0, 0.0),
        (0.0, 10.0, 8.0, 10.0),
    }
    assert client_of(desk, "bob").get(f"/api/outline/{query_id}").status_code == 404
    assert client_of(desk).get(f"/api/outline/{query_id}").status_code == 401


def test_predictions_are_shown_but_for_controls(tmp_path):
    rounds = []

    def predict(round_index):
        rounds.append(round_index)
        return {f"q0i0n{rank}": "road" for rank in range(10)}

    with made_store(tmp_path / "answers.sqlite", images=1, each=12) as store:
        desk = made_desk(store, correction=Correction(predict, blind=0.3))
        client = client_of(desk, "ada")
        given = post(client, "/api/lease", {"have": []}).json()["queries"]
        shown = {one["query_id"]: one["prediction"] for one in given}
        controls = {query_id for query_id in list(shown)[:10] if is_blind(query_id, 0.3)}
        assert len(controls) in range(1, 9)
        assert shown == {
            f"q0i0n{rank}": "road" if rank < 10 and f"q0i0n{rank}" not in controls else None
            for rank in range(12)
        }
        answers = [
            said(query_id, class_name="sky" if query_id in controls else "road", prediction=word)
            for query_id, word in shown.items()
        ]
        answers[-1] |= {"status": "skipped", "class_name": None}
        assert post(client, "/api/answers", {"answers": answers}).status_code == 200
        assert [one.prediction for one in store.answers()] == list(shown.values())
        assert client.get("/api/numbers").json()["correction"] == {
            "shown": 10 - len(controls),
            "shown_agrees": 1.0,
            "blind": len(controls),
            "blind_agrees": 0.0,
        }
        assert rounds == [0]
        unknown = said("q0i0n0", prediction="tree")
        assert post(client, "/api/answers", {"answers": [unknown]}).status_code == 409
        with pytest.raises(ConfigError, match="expected a share from 0 to 1"):
            Correction(predict, blind=2)


def test_an_outline_lies_between_pixels():
    region = np.zeros((4, 5), bool)
    region[1:3, 1:3] = region[1, 3] = True
    assert sorted(outline(region, height=8, width=5)) == [
        (1.0, 2.0, 1.0, 6.0),
        (1.0, 2.0, 4.0, 2.0),
        (1.0, 6.0, 3.0, 6.0),
        (3.0, 4.0, 3.0, 6.0),
        (3.0, 4.0, 4.0, 4.0),
        (4.0, 2.0, 4.0, 4.0),
    ]
