"""What the page answers, without a browser: policy, sessions, tokens, escaping, plain forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.server.page import shown
from tests.server.page.conftest import ODD_SOURCE, OVERRIDE, SCRIPT
from tests.server.page.hosting import Host

PAGES = (
    *("/", "/?q=dentist", "/timeline", "/profile", "/trash", "/storage", "/forgetting"),
    *("/forgetting/plan", "/export", "/erase", "/erase?about=Ana"),
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def owner(host: Host) -> Iterator[FlaskClient]:
    """A client that is signed in."""
    with host.app.test_client() as client:
        assert client.get(host.link().removeprefix(host.url)).status_code == 303
        yield client


def token(client: FlaskClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/trash").text)
    assert found is not None
    return found[1]


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
def test_a_page_runs_nothing_but_its_own_files(owner: FlaskClient, path: str) -> None:
    answer = owner.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert Reader(answer.text).inline == []


@pytest.mark.parametrize("path", [*PAGES, "/memory/01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_nobody_but_the_owner_sees_a_page(host: Host, path: str) -> None:
    answer = host.app.test_client().get(path)
    assert answer.status_code == 401
    assert "memdb ui" in answer.text
    assert "Ana" not in answer.text
    assert answer.headers["Content-Security-Policy"] == POLICY


def test_a_code_opens_the_page_once(host: Host) -> None:
    path = host.link().removeprefix(host.url)
    assert host.app.test_client().get(path).status_code == 303
    second = host.app.test_client()
    assert second.get(path).status_code == 401
    assert second.get("/").status_code == 401


@pytest.mark.parametrize("given", ["", "wrong", "\u00e9"])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "form"])
def test_nothing_is_done_without_the_sessions_token(
    host: Host, owner: FlaskClient, given: str, as_json: bool
) -> None:
    id = host.db.remember("stays", namespace="default", dedup="off").id
    if as_json:
        headers = {"X-CSRF-Token": given.encode("ascii", "replace").decode()}
        answer = owner.post(f"/memory/{id}/forget", json={}, headers=headers)
    else:
        answer = owner.post(f"/memory/{id}/forget", data={"csrf": given})
    assert answer.status_code == 403
    assert host.db.get(id) is not None


@pytest.mark.parametrize("body", ["[]", "1", '{"a": 1}', '{"a": [1]}', "{"])
def test_a_body_that_is_no_form_is_refused(owner: FlaskClient, body: str) -> None:
    headers = {"X-CSRF-Token": token(owner), "Content-Type": "application/json"}
    assert owner.post("/forgetting/budget", data=body, headers=headers).status_code == 400


# --- without JavaScript ---------------------------------------------------------------------------


def test_a_form_works_without_javascript(host: Host, owner: FlaskClient) -> None:
    form = {"csrf": token(owner), "subject": "user", "key": "tea", "value": "green"}
    answer = owner.post("/profile", data=form, follow_redirects=True)
    assert answer.status_code == 200
    assert "Tea is remembered." in answer.text
    assert host.db.profile.get("tea", namespace="default") == "green"


def test_a_message_is_shown_once(owner: FlaskClient) -> None:
    form = {"csrf": token(owner), "budget": ""}
    there = owner.post("/forgetting/budget", data=form).headers["Location"]
    assert "as much as it needs" in owner.get(there).text
    assert "as much as it needs" not in owner.get(there).text


def test_a_posted_form_answers_a_script_with_where_to_go(owner: FlaskClient) -> None:
    headers = {"X-CSRF-Token": token(owner)}
    answer = owner.post("/forgetting/budget", json={"budget": ""}, headers=headers)
    assert answer.status_code == 204
    assert answer.headers["X-Memdb-Location"].startswith("/forgetting?said=")


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil", "evil"])
def test_a_form_sends_nobody_to_another_host(owner: FlaskClient, back: str) -> None:
    form = {"csrf": token(owner), "theme": "dark", "back": back}
    assert owner.post("/theme", data=form).headers["Location"] == "/"


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
    owner: FlaskClient, path: str, status: int
) -> None:
    answer = owner.get(path)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text


def test_a_number_that_is_not_that_of_the_report_erases_nothing(
    host: Host, owner: FlaskClient
) -> None:
    before = host.db.count({"about": "Theo"})
    for count in ("", "0", "1", str(before + 1), "all"):
        form = {"csrf": token(owner), "about": "Theo", "count": count}
        assert owner.post("/erase", data=form).status_code == 400
    nothing = {"csrf": token(owner), "count": str(host.db.count())}
    assert owner.post("/erase", data=nothing).status_code == 400
    assert host.db.count({"about": "Theo"}) == before > 1


def test_a_plan_is_not_applied_twice_nor_after_a_change(host: Host, owner: FlaskClient) -> None:
    def shown_plan() -> str:
        page = owner.get("/forgetting/plan?try=1&keep_days=300").text
        found = re.search(r'name="plan" value="([^"]+)"', page)
        assert found is not None
        return found[1]

    before = host.db.count()
    name = shown_plan()
    host.db.remember("written since", namespace="default", dedup="off")
    answer = owner.post("/forgetting/apply", data={"csrf": token(owner), "plan": name},
                        follow_redirects=True)  # fmt: skip
    assert "nothing was done" in answer.text
    assert host.db.count() == before + 1
    again = owner.post("/forgetting/apply", data={"csrf": token(owner), "plan": name})
    assert again.status_code == 404


def test_a_fact_that_is_no_text_keeps_its_type(host: Host, owner: FlaskClient) -> None:
    host.db.profile.set("height_cm", 171, namespace="default")
    form = {"csrf": token(owner), "key": "height_cm", "value": "172", "namespace": "default"}
    assert owner.post("/profile", data=form).status_code == 303
    assert host.db.profile.get("height_cm", namespace="default") == 172
    wrong = owner.post("/profile", data={**form, "value": "tall"})
    assert wrong.status_code == 400
    assert "write it as JSON" in wrong.text


# --- text from outside is data --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/?about=%3Ci%3EEve%3C/i%3E", "/?q=title+taken", "/timeline", "/erase?id={odd}"),
        *("/memory/{odd}", "/memory/{odd}/edit"),
    ],
)
def test_text_from_outside_stays_text(host: Host, owner: FlaskClient, path: str) -> None:
    odd = host.db.list({"about": "<i>Eve</i>"}, limit=1).items[0].id
    page = Reader(owner.get(path.format(odd=odd)).text)
    assert page.inline == []
    names = {tag for tag, _ in page.elements}
    assert not names & {"img", "b", "i", "u", "s"}
    assert [element["src"] for tag, element in page.elements if tag == "script"] == [
        "/static/page/page.js"
    ]
    assert "document.title" in "".join(page.texts)


def test_an_address_from_outside_is_no_link(host: Host, owner: FlaskClient) -> None:
    odd = host.db.list({"source": ODD_SOURCE}, limit=1).items[0].id
    page = Reader(owner.get(f"/memory/{odd}").text)
    assert any(ODD_SOURCE in text for text in page.texts)
    assert not [one for _, one in page.elements if "javascript" in str(one.get("href"))]


def test_what_would_turn_the_order_of_a_text_is_shown_and_not_obeyed(owner: FlaskClient) -> None:
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
