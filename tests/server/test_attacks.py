"""Every attack that the server says it withstands, performed: design "Safe on localhost", 1 to 7.

1 (listening to others) is in ``test_serve`` and, with what needs a server held up, in
``test_attacks_held``. The requests are raw bytes where a client library
would have put them right.
"""

from __future__ import annotations

import json
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb.server.head import canonical_path
from memdb.server.limits import Limits, Rates
from memdb.server.problems import Refused
from memdb.server.sessions import COOKIE_NAME, Sessions, cookie
from tests.server.running import Served, serving

CANARY = "c4n4ry-9f1"


def head(served: Served, target: str = "/v1/stats", *extra: str, method: str = "GET") -> bytes:
    """The head of an honest request with further lines."""
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{served.port}",
        f"Authorization: Bearer {served.token}",
        "Connection: close",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_honest_request_is_answered(served: Served) -> None:
    assert status_of(served.raw(head(served))) == 200


# --- 2: Host --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8377", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil", ""]
)
def test_a_rebound_name_is_misdirected(served: Served, host: str) -> None:
    answer = served.ask("GET", "/v1/stats", headers={"Host": host})
    assert answer.status == 421 and answer.json["code"] == "misdirected_request"
    open_one = served.ask("GET", "/v1/healthz", token=None, headers={"Host": host})
    assert open_one.status == 421


@pytest.mark.parametrize("name", ["127.0.0.1", "LOCALHOST", "[::1]", "memdb.localhost"])
def test_our_own_names_are_known(served: Served, name: str) -> None:
    host = {"Host": f"{name}:{served.port}"}
    assert served.ask("GET", "/v1/stats", headers=host).status == 200


def test_two_hosts_and_no_host_are_refused(served: Served) -> None:
    two = served.raw(head(served, "/v1/stats", "Host: evil.example"))
    assert status_of(two) == 400
    none = served.raw(b"GET /v1/healthz HTTP/1.0\r\n\r\n")
    assert status_of(none) == 421


@pytest.mark.parametrize("target", ["http://evil.example/v1/stats", "evil.example:80", "*"])
def test_targets_that_are_no_path_are_refused(served: Served, target: str) -> None:
    assert status_of(served.raw(head(served, target))) == 400


# --- 3: Origin and Sec-Fetch-Site -----------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(served: Served, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/stats"), ("OPTIONS", "/v1/recall"), ("GET", "/")):
        answer = served.ask(method, path, headers=headers)
        assert answer.status == 403 and answer.json["code"] == "foreign_origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_origin_is_let_in(served: Served) -> None:
    headers = {"Origin": f"http://127.0.0.1:{served.port}", "Sec-Fetch-Site": "same-origin"}
    assert served.ask("GET", "/v1/stats", headers=headers).status == 200


# --- 4: tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer wrong", "Bearer a b", "Bearer \u00e9",
     "bearer " + "x" * 2_000],
)  # fmt: skip
def test_nobody_is_let_in(served: Served, authorization: str) -> None:
    for path in ("/v1/stats", "/metrics", "/openapi.json", "/mcp", "/v1/nothing"):
        headers = {"Authorization": authorization} if authorization else {}
        answer = served.ask("GET", path, token=None, headers=headers)
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer")


def test_every_route_but_health_needs_a_token(served: Served) -> None:
    paths = served.ask("GET", "/openapi.json").json["paths"]
    for path, methods in paths.items():
        for method in methods:
            answer = served.ask(method.upper(), path.replace("{", "").replace("}", ""), token=None)
            assert answer.status == (200 if path == "/v1/healthz" else 401), path


def test_two_tokens_are_refused(served: Served) -> None:
    extra = f"Authorization: Bearer {served.token}"
    assert status_of(served.raw(head(served, "/v1/stats", extra))) == 400


@pytest.mark.parametrize("name", ["token", "access_token", "Authorization", "api_key", "apikey"])
def test_tokens_in_urls_are_refused(served: Served, name: str) -> None:
    for token in (None, ""):
        answer = served.ask("GET", f"/v1/stats?x=1&{name}={served.token}", token=token)
        assert answer.status == 400 and served.token.encode() not in answer.body


def test_the_token_file_is_the_owners_alone_and_nobody_else_keeps_it(
    served: Served, tmp_path: Path
) -> None:
    path = served.host.token_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(served.token) >= 43  # 256 bits in base64
    for file in (one for one in path.parent.rglob("*") if one.is_file() and one != path):
        assert served.token.encode() not in file.read_bytes()


# --- 5: forms, cookies and CSRF -------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/jsonx", "application/json, text/plain", ""],
)  # fmt: skip
def test_what_a_form_of_another_site_can_send_is_not_taken(served: Served, kind: str) -> None:
    before = served.db.count()
    raw = b'{"items": [{"text": "planted"}]}'
    answer = served.ask("POST", "/v1/memories", raw=raw, headers={"Content-Type": kind})
    assert answer.status == 415 and served.db.count() == before


def test_who_is_refused_with_a_body_hears_why(served: Served) -> None:
    for size in (10, 40_000):
        raw = b"x" * size
        headers = {"Content-Type": "text/plain"}
        for _ in range(5):
            assert served.ask("PUT", "/v1/stats", raw=raw, headers=headers).status == 415
            assert served.ask("POST", "/v1/recall", raw=raw, token=None).status == 401
            assert served.ask("GET", "/v1/stats", raw=raw).status == 400


def test_who_sends_somewhat_too_much_hears_so(small: Served) -> None:
    for size in (5_000, 500_000):
        for _ in range(3):
            answer = small.ask("POST", "/v1/memories", raw=b" " * size)
            assert answer.status == 413 and answer.json["code"] == "too_large"


@pytest.fixture
def session(served: Served) -> Iterator[str]:
    code = served.ask("POST", "/v1/ui/code").json["code"]
    id = served.host.sessions.codes.exchange(code)
    yield id
    served.host.sessions.end(id)


def test_a_cookie_alone_opens_nothing_of_the_api(served: Served, session: str) -> None:
    cookie = {"Cookie": f"{COOKIE_NAME}={session}"}
    csrf = served.host.sessions.csrf_of(session)
    body = {"items": [{"text": "x"}]}
    for headers in ({}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": session}):
        answer = served.ask("POST", "/v1/memories", body, token=None, headers={**cookie, **headers})
        assert answer.status == 401
    both = {**cookie, "X-CSRF-Token": csrf}
    assert served.ask("POST", "/v1/memories", body, token=None, headers=both).status == 200
    assert served.ask("GET", "/metrics", token=None, headers=both).status == 401
    twice = {"Cookie": f"{COOKIE_NAME}={session}; {COOKIE_NAME}=x", "X-CSRF-Token": csrf}
    assert served.ask("GET", "/v1/stats", token=None, headers=twice).status == 401


def test_a_code_opens_the_page_once_and_for_a_minute(served: Served) -> None:
    now = [0.0]
    sessions = Sessions(served.host.identities, lambda: now[0])
    code = sessions.codes.issue()
    assert sessions.principal(sessions.codes.exchange(code)) is not None
    with pytest.raises(memdb.PermissionDenied):
        sessions.codes.exchange(code)
    late = sessions.codes.issue()
    now[0] = 61
    with pytest.raises(memdb.PermissionDenied):
        sessions.codes.exchange(late)
    id = sessions.begin()
    now[0] += 12 * 3600 + 1
    assert sessions.principal(id) is None
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie("x", secure=False).split("; "))


# --- 6: too much, too slow, too often -------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = Limits(body_bytes=4_096, body_s=0.4, head_s=0.4, at_once=2, connections=40)
    with serving(tmp_path_factory.mktemp("small") / "db", limits=limits) as served:
        yield served


def test_a_body_that_is_too_large_is_refused_before_it_is_read(small: Served) -> None:
    extra = ("Content-Type: application/json", "Content-Length: 99999999")
    answer = small.raw(head(small, "/v1/memories", *extra, method="POST"))
    assert status_of(answer) == 413


def test_a_chunked_body_is_counted(small: Served) -> None:
    extra = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk = b"800\r\n" + b" " * 2_048 + b"\r\n"
    answer = small.raw(
        head(small, "/v1/memories", *extra, method="POST") + chunk * 3 + b"0\r\n\r\n"
    )
    assert status_of(answer) == 413
    body = b'{"items": [{"text": "in pieces"}]}'
    parts = b"".join(b"1\r\n" + body[n : n + 1] + b"\r\n" for n in range(len(body)))
    fine = small.raw(head(small, "/v1/memories", *extra, method="POST") + parts + b"0\r\n\r\n")
    assert status_of(fine) == 200


@pytest.mark.parametrize(
    "extra",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: +5",),
        ("Content-Length: 5, 5",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: xchunked",),
    ],
)
def test_bodies_of_two_lengths_smuggle_nothing(served: Served, extra: tuple[str, ...]) -> None:
    before = served.db.count()
    inner = head(served, "/v1/memories", "Content-Type: application/json", "Content-Length: 31",
                 method="POST") + b'{"items":[{"text":"smuggled"}]}'  # fmt: skip
    data = head(served, "/v1/recall", "Content-Type: application/json", *extra, method="POST")
    answer = served.raw(data + b"0\r\n\r\n" + inner)
    assert 400 <= status_of(answer) < 502 and len(re.findall(rb"HTTP/1\.1 \d", answer)) == 1
    assert served.db.count() == before


def test_slow_heads_and_slow_bodies_are_cut_off(small: Served) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as slow:
        slow.sendall(b"GET /v1/healthz HTTP/1.1\r\nHost: ")
        assert slow.recv(100) == b""
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as silent:
        assert silent.recv(100) == b""
    extra = ("Content-Type: application/json", "Content-Length: 100")
    answer = small.raw(head(small, "/v1/recall", *extra, method="POST") + b"{")
    assert status_of(answer) == 408


def test_held_connections_do_not_keep_others_out(small: Served) -> None:
    held = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(39)]
    try:
        stop = time.monotonic() + 20
        while True:  # they are cut off after head_s, and there is room again
            try:
                if small.ask("GET", "/v1/healthz", token=None).status == 200:
                    break
            except (OSError, ValueError):
                pass
            assert time.monotonic() < stop
    finally:
        for one in held:
            one.close()


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"where":' * 20_000, b'{"a":[' * 5_000])
def test_json_bombs_are_malformed_and_nothing_more(served: Served, deep: bytes) -> None:
    answer = served.ask("POST", "/v1/recall", raw=deep)
    assert answer.status == 400
    nested = b'{"query":"x","where":' + b'{"$not":' * 900 + b"{}" + b"}" * 900 + b"}"
    assert served.ask("POST", "/v1/recall", raw=nested).status == 400
    huge = b'{"query":"x","k":' + b"9" * 5_000 + b"}"
    assert served.ask("POST", "/v1/recall", raw=huge).status == 400
    assert served.ask("GET", "/v1/healthz").status == 200


def test_too_many_at_once_are_asked_to_come_back() -> None:
    from memdb.server.limits import InWork

    work = InWork(Limits(at_once=3, at_once_each=2, buffered_bytes=10))
    assert work.enter("a", 1) and work.enter("a", 1)
    assert not work.enter("a", 1) and work.enter("b", 8)
    assert not work.enter("c", 0)
    work.leave("b", 8)
    assert not work.enter("b", 9) and work.enter("b", 8)


def test_a_rate_is_a_rate() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    taken = sum(rates.wait_s("a", 60) == 0 for _ in range(30))
    assert taken == 10 and rates.wait_s("b", 60) == 0
    wait = rates.wait_s("a", 60)
    assert wait == pytest.approx(1)
    now[0] += wait
    assert rates.wait_s("a", 60) == 0


@pytest.mark.parametrize("path", ["..", "../..", "/etc", "link"])
def test_folders_outside_the_roots_are_not_read(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "inside.md").write_text("the hedgehog sleeps")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text(CANARY)
    (root / "link").symlink_to(tmp_path / "outside")
    with serving(tmp_path / "db", roots=(str(root),)) as served:
        answer = served.ask("POST", "/v1/files/sync", {"path": str(root / path)})
        assert answer.status == 403 and path.encode() not in answer.body
        if path == "link":
            assert served.ask("POST", "/v1/files/sync", {"path": str(root)}).status == 200
            assert served.db.recall("hedgehog") and not served.db.recall(CANARY, mode="lexical")


# --- heads and paths that two programs read differently -------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/v1/%2e%2e/metrics", "/v1/./stats", "//v1/stats", "/v1//stats", "/v1/../metrics", "/v1/%2E",
     "/v1/memories/%2e%2e", "/v1/%00", "/v1/%zz", "/v1/%ff", "/v1/stats%0d%0aX:1", "/v1/%c0%ae"],
)  # fmt: skip
def test_paths_that_are_not_plain_are_refused(served: Served, target: str) -> None:
    answer = served.raw(head(served, target))
    assert status_of(answer) == 400


def test_an_encoded_slash_stays_inside_its_segment() -> None:
    assert canonical_path(b"/v1/profile/a%2Fb/c%25", 1_000) == "/v1/profile/a%2Fb/c%25"
    assert canonical_path(b"/v1/%73tats", 1_000) == "/v1/stats"
    with pytest.raises(Refused):
        canonical_path(b"/" + b"a" * 1_000, 1_000)


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"]
)
def test_no_header_changes_the_method(served: Served, name: str) -> None:
    id = served.db.remember(f"stays {name}").id
    answer = served.ask("POST", f"/v1/memories/{id}", {}, headers={name: "DELETE"})
    assert answer.status == 405 and "DELETE" in answer.headers["allow"]
    assert served.db.get(id) is not None


def test_headers_that_pass_for_others_behind_cgis_rules_are_dropped(served: Served) -> None:
    answer = served.raw(head(served, "/metrics", "Content_Length: 5", "X_Forwarded_Host: evil"))
    assert status_of(answer) == 200


@pytest.mark.parametrize(
    "value", ["caf\u00e9", "\u202e\u0000x".replace("\u0000", ""), "\U0001f600"]
)
def test_unicode_in_headers_fails_nothing(served: Served, value: str) -> None:
    for name in ("Origin", "Cookie", "Idempotency-Key", "Memdb-Purpose", "X-Other", "Accept"):
        answer = served.raw(head(served, "/v1/stats", f"{name}: {value}"))
        assert status_of(answer) in (200, 400, 403)
        assert value.encode() not in answer


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    first = head(served, "/v1/healthz").replace(b"Connection: close\r\n", b"")
    answer = served.raw(first + first + head(served, "/v1/nothing"))
    assert [part.split(b" ", 1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [
        b"200",
        b"200",
        b"404",
    ]


# --- 7: what comes back ---------------------------------------------------------------------------

_SENT = json.dumps(CANARY)
_TOO_BIG = f"{{{_SENT}: 9007199254740993}}"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/recall", f'{{"query": {_SENT}, "where": {{{_SENT}: 1}}}}'),
        ("POST", "/v1/recall", f'{{"query": "x", "where": {{"metadata.x": {{"${CANARY}": 1}}}}}}'),
        ("POST", "/v1/recall", f'{{"query": "x", "where": {{"$and": [{{{_SENT}: 1}}]}}}}'),
        ("POST", "/v1/recall", f'{{{_SENT}: 1}}'),
        ("POST", "/v1/recall", f'{{"query": "x", "mode": {_SENT}}}'),
        ("POST", "/v1/recall", f'{{"vector": [1], "space": {_SENT}}}'),
        ("POST", "/v1/recall", f'{{"query": "x", "as_of": {_SENT}}}'),
        ("POST", "/v1/recall", f'{{"query": "x", "stages": {{{_SENT}: true}}}}'),
        ("POST", "/v1/recall", f"{CANARY}"),
        ("POST", "/v1/memories", f'{{"items": [{{"data": 1, "metadata": {_TOO_BIG}}}]}}'),
        ("POST", "/v1/memories", f'{{"items": [{{"text": "x", "expires_in": {_SENT}}}]}}'),
        ("GET", f"/v1/memories/{CANARY}", None),
        ("GET", f"/v1/profile/user/{CANARY}", None),
        ("DELETE", f"/v1/profile/user/{CANARY}", None),
        ("GET", f"/v1/memories?cursor={CANARY}", None),
        ("GET", f"/v1/history?cursor={CANARY}", None),
        ("GET", f"/v1/timeline?start={CANARY}", None),
        ("GET", f"/v1/timeline?{CANARY}=1", None),
        ("GET", f"/v1/{CANARY}", None),
        ("GET", f"/v1/files?path={CANARY}", None),
        ("POST", "/v1/memories/restore", f'{{"batch": {_SENT}}}'),
        ("POST", "/v1/erase", f'{{"selector": {{"about": {_SENT}}}, "confirm_count": 9}}'),
        ("POST", "/v1/retention/apply", f'{{"plan": {{{_SENT}: 1}}}}'),
        ("POST", "/v1/retention/plan", f'{{"policy": {{{_SENT}: 1}}}}'),
        ("POST", "/v1/retention/undo", f'{{"batch": {_SENT}}}'),
        ("POST", "/v1/import", f'{{"records": [{{{_SENT}: 1}}]}}'),
        (f"{CANARY}", "/v1/stats", None),
    ],
)  # fmt: skip
def test_an_error_repeats_nothing_that_was_sent(
    served: Served, method: str, path: str, body: str | None
) -> None:
    answer = served.ask(method, path, raw=None if body is None else body.encode())
    assert 400 <= answer.status < 500, answer.body
    assert CANARY.encode() not in answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "code", "detail", "hint"} <= answer.json.keys()
    assert answer.json["status"] == answer.status and b"Traceback" not in answer.body


@pytest.mark.parametrize("path", ["/v1/stats", "/v1/nothing", "/", "/openapi.json"])
def test_no_answer_may_be_sniffed_framed_or_kept(served: Served, path: str) -> None:
    headers = served.ask("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers and "x-powered-by" not in headers
