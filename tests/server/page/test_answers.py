"""What the page answers, without a browser: policy, sessions, tokens, escaping, plain forms."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memdb
from memdb.server.page import shown
from tests.server.page.conftest import ODD_SOURCE, OVERRIDE, SCRIPT
from tests.server.page.hosting import Hosted, Visitor

PAGES = (
    *("/", "/?q=dentist", "/timeline", "/map", "/profile", "/trash", "/storage", "/forgetting"),
    *("/forgetting/plan", "/export", "/erase", "/erase?about=Ana", "/agents", "/audit"),
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def owner(host: Hosted) -> Visitor:
    """A visitor who is signed in."""
    return Visitor(host).signed_in()


class Reader(HTMLParser):
    """Collects the elements of a page and what it would run."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def inline(self) -> list[str]:
        """What the policy would refuse: handlers, styles, inline scripts, foreign addresses."""
        found = []
        for tag, attributes in self.elements:
            if tag == "style" or (tag == "script" and not attributes.get("src")):
                found.append(tag)
            for name, value in attributes.items():
                if name.startswith("on") or name == "style":
                    found.append(name)
                if name in ("src", "href", "action") and not re.match("[/#]", value or "/"):
                    found.append(f"{name}={value}")
        return found


# --- who may look, and what may run ---------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_nothing_but_its_own_files(owner: Visitor, path: str) -> None:
    answer = owner.get(path)
    assert answer.status == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert Reader(answer.text).inline == []


@pytest.mark.parametrize("path", [*PAGES, "/memory/01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_nobody_but_the_owner_sees_a_page(host: Hosted, path: str) -> None:
    answer = Visitor(host).get(path)
    assert answer.status == 401
    assert "memdb ui" in answer.text
    assert "Ana" not in answer.text
    assert answer.headers["content-security-policy"] == POLICY


def test_a_code_opens_the_page_once(host: Hosted) -> None:
    path = host.link()
    assert Visitor(host).get(path).status == 303
    second = Visitor(host)
    assert second.get(path).status == 401
    assert second.get("/").status == 401


def test_a_session_that_was_ended_opens_nothing_and_no_other_ends_with_it(
    host: Hosted, owner: Visitor
) -> None:
    leaving = Visitor(host).signed_in()
    kept = dict(leaving._cookies)
    answer = leaving.post("/sign-out", {})
    assert answer.headers["location"] == "/signed-out"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert leaving.get("/signed-out").status == 200
    leaving._cookies = kept  # the cookie, kept by somebody, is worth nothing
    assert leaving.get("/").status == 401
    assert owner.get("/").status == 200
    assert owner.get("/signed-out").status == 303
    assert owner.post("/sign-out", {}, token="wrong").status == 403
    assert owner.get("/").status == 200


@pytest.mark.parametrize("given", ["", "wrong", "\u00e9"])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "form"])
def test_nothing_is_done_without_the_sessions_token(
    host: Hosted, owner: Visitor, given: str, as_json: bool
) -> None:
    id = host.db.remember("stays", namespace="default", dedup="off").id
    answer = owner.post(f"/memory/{id}/forget", {}, as_json=as_json, token=given)
    assert answer.status == 403
    assert host.db.get(id) is not None


@pytest.mark.parametrize("body", ["[]", "1", '{"a": 1}', '{"a": [1]}', "{"])
def test_a_body_that_is_no_form_is_refused(owner: Visitor, body: str) -> None:
    assert owner.post("/forgetting/budget", {}, as_json=True, body=body).status == 400


# --- without JavaScript ---------------------------------------------------------------------------


def test_a_form_works_without_javascript(host: Hosted, owner: Visitor) -> None:
    form = {"subject": "user", "key": "tea", "value": "green"}
    answer = owner.follow(owner.post("/profile", form))
    assert answer.status == 200
    assert "Tea is remembered." in answer.text
    assert host.db.profile.get("tea", namespace="default") == "green"


def test_a_message_is_shown_once(owner: Visitor) -> None:
    there = owner.post("/forgetting/budget", {"budget": ""}).headers["location"]
    assert "as much as it needs" in owner.get(there).text
    assert "as much as it needs" not in owner.get(there).text


def test_a_posted_form_answers_a_script_with_where_to_go(owner: Visitor) -> None:
    answer = owner.post("/forgetting/budget", {"budget": ""}, as_json=True)
    assert answer.status == 204
    assert answer.headers["x-memdb-location"].startswith("/forgetting?said=")


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil", "evil"])
def test_a_form_sends_nobody_to_another_host(owner: Visitor, back: str) -> None:
    form = {"theme": "auto", "back": back}
    assert owner.post("/theme", form).headers["location"] == "/"


# --- what is wrong is said, and nothing is done ---------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/?q=x&as_of=someday", 400),
        ("/?cursor=nonsense", 400),
        ("/timeline?since=someday", 400),
        ("/timeline?cursor=nonsense", 400),
        ("/erase?since=someday", 400),
        ("/erase/receipt/nothing", 404),
        ("/memory/nothing", 400),
        ("/memory/01ARZ3NDEKTSV4RRFFQ69G5FAV/edit", 404),
        ("/forgetting/plan?try=1&below=much", 400),
        ("/forgetting/plan?try=1&budget=much", 400),
        ("/forgetting/plan?try=1&budget=1", 400),
    ],
)
def test_a_wrong_address_is_a_page_that_says_what_is_wrong(
    owner: Visitor, path: str, status: int
) -> None:
    answer = owner.get(path)
    assert answer.status == status
    assert 'role="alert"' in answer.text


def test_a_number_that_is_not_that_of_the_report_erases_nothing(
    host: Hosted, owner: Visitor
) -> None:
    before = host.db.count({"about": "Theo"})
    for count in ("", "0", "1", str(before + 1), "all"):
        assert owner.post("/erase", {"about": "Theo", "count": count}).status == 400
    assert owner.post("/erase", {"count": str(host.db.count())}).status == 400
    assert host.db.count({"about": "Theo"}) == before > 1


def test_a_plan_is_not_applied_twice_nor_after_a_change(host: Hosted, owner: Visitor) -> None:
    def shown_plan() -> str:
        page = owner.get("/forgetting/plan?try=1&keep_days=300").text
        found = re.search(r'name="plan" value="([^"]+)"', page)
        assert found is not None
        return found[1]

    before = host.db.count()
    name = shown_plan()
    host.db.remember("written since", namespace="default", dedup="off")
    answer = owner.follow(owner.post("/forgetting/apply", {"plan": name}))
    assert "nothing was done" in answer.text
    assert host.db.count() == before + 1
    assert owner.post("/forgetting/apply", {"plan": name}).status == 404


def test_a_fact_that_is_no_text_keeps_its_type(host: Hosted, owner: Visitor) -> None:
    host.db.profile.set("height_cm", 171, namespace="default")
    form = {"key": "height_cm", "value": "172", "namespace": "default"}
    assert owner.post("/profile", form).status == 303
    assert host.db.profile.get("height_cm", namespace="default") == 172
    wrong = owner.post("/profile", {**form, "value": "tall"})
    assert wrong.status == 400
    assert "write it as JSON" in wrong.text


# --- text from outside is data --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/?about=%3Ci%3EEve%3C/i%3E", "/?q=title+taken", "/timeline", "/erase?id={odd}"),
        *("/memory/{odd}", "/memory/{odd}/edit"),
    ],
)
def test_text_from_outside_stays_text(host: Hosted, owner: Visitor, path: str) -> None:
    odd = host.db.list({"about": "<i>Eve</i>"}, limit=1).items[0].id
    page = Reader(owner.get(path.format(odd=odd)).text)
    assert page.inline == []
    names = {tag for tag, _ in page.elements}
    assert not names & {"img", "b", "i", "u", "s"}
    assert [element["src"] for tag, element in page.elements if tag == "script"] == [
        "/static/page/page.js"
    ]
    assert "document.title" in "".join(page.texts)


def test_an_address_from_outside_is_no_link(host: Hosted, owner: Visitor) -> None:
    odd = host.db.list({"source": ODD_SOURCE}, limit=1).items[0].id
    page = Reader(owner.get(f"/memory/{odd}").text)
    assert any(ODD_SOURCE in text for text in page.texts)
    assert not [one for _, one in page.elements if "javascript" in str(one.get("href"))]


def test_what_would_turn_the_order_of_a_text_is_shown_and_not_obeyed(owner: Visitor) -> None:
    page = owner.get("/?source=app:mail").text
    assert OVERRIDE[:7] in page
    assert "\u202e" not in page
    assert "right-to-left override" in page


@given(text=st.text(max_size=80), term=st.text(max_size=10))
@settings(max_examples=60)
def test_any_text_is_shown_as_text(text: str, term: str) -> None:
    for html in (shown.plain(text), shown.marked(text, [term])):
        page = Reader(str(html))
        assert {tag for tag, _ in page.elements} <= {"span", "mark"}
        if not page.elements:
            assert "".join(page.texts) == text.replace("\r", "")
    assert len(shown.snippet(text, [term], 50)) <= 54


@given(text=st.text(max_size=150), terms=st.lists(st.text(max_size=8), max_size=3))
@settings(max_examples=60)
def test_a_snippet_is_a_part_of_the_text(text: str, terms: list[str]) -> None:
    part: Any = shown.snippet(text, terms, 60).removeprefix("… ").removesuffix(" …")
    assert part in " ".join(shown._HEADING.sub(r"\1:", text).split())


def test_the_parts_of_the_answer_are_marked_where_the_question_has_them() -> None:
    assert str(shown.marked("She eats eggs; the egg <b>", ["egg", "b"])) == (
        "She eats <mark>eggs</mark>; the <mark>egg</mark> &lt;b&gt;"
    )
    assert SCRIPT not in shown.plain(SCRIPT)


def test_the_name_and_the_grant_of_an_agent_stay_text(owner: Visitor) -> None:
    page = Reader(owner.get("/agents").text)
    assert not {tag for tag, _ in page.elements} & {"b", "i"}
    assert "<b>odd</b>" in page.texts
    assert any("<i>private</i>" in text for text in page.texts)


def test_a_secret_is_shown_once_and_a_name_is_taken_once(host: Hosted, owner: Visitor) -> None:
    form = {"name": "once", "actions": "read", "sees": "kinds", "kinds": "event"}
    made = owner.post("/agents", form)
    assert made.status == 200
    assert "mdb_" in made.text
    assert "mdb_" not in owner.get("/agents").text
    grant = next(one.grant for one in host.db.tokens.list() if one.name == "once")
    assert grant == memdb.Grant(actions=["read"], where={"kind": {"$in": ["event"]}})
    assert owner.post("/agents", form).status == 409
    assert owner.post("/agents", {"name": "none", "actions": "erase"}).status == 400
    assert owner.post("/agents", {"name": "", "actions": "read"}).status == 400
    assert owner.post("/agents", {"name": "x", "actions": "read", "sees": "kinds"}).status == 400
    assert not [one for one in host.db.tokens.list() if one.name in ("none", "x")]
