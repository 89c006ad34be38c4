"""Both HTTP protocols refuse what is no request, in time and size, and answer what is one."""

from __future__ import annotations

import importlib.util
import re
import socket
from collections.abc import Iterator

import pytest

from memdb.server import host, protocols
from memdb.server.limits import Limits
from tests.server.running import Served, serving

LIMITS = Limits(head_s=0.4, header_bytes=4_096, target_bytes=1_024, idle_s=20)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def spoken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server that speaks one of the two."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    patch = pytest.MonkeyPatch()
    patch.setattr(host, "protocol", lambda limits: protocols.protocol(limits, name=request.param))
    with serving(tmp_path_factory.mktemp("spoken") / "db", limits=LIMITS) as served:
        yield served
    patch.undo()


def head(served: Served, target: str, *extra: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


def test_requests_on_one_connection_are_answered_in_order(spoken: Served) -> None:
    honest = head(spoken, "/v1/healthz")
    refused = head(spoken, "/v1/nothing")  # and what comes after it is not read
    assert statuses(spoken.raw(honest + honest + refused + honest)) == [200, 200, 401]


def test_a_body_in_pieces_is_one_body(spoken: Served) -> None:
    body = b'{"items": [{"text": "in pieces"}]}'
    parts = b"".join(b"1;x=y\r\n" + body[n : n + 1] + b"\r\n" for n in range(len(body)))
    kept = ("Content-Type: application/json", f"Authorization: Bearer {spoken.token}")
    answer = spoken.raw(
        head(spoken, "/v1/memories", *kept, "Transfer-Encoding: chunked", "Connection: close",
             method="POST") + parts + b"0\r\n\r\n"
    )  # fmt: skip
    assert statuses(answer) == [200]


def test_who_would_speak_another_protocol_is_answered_in_this_one(spoken: Served) -> None:
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with socket.create_connection(("127.0.0.1", spoken.port), timeout=15) as connection:
        connection.sendall(head(spoken, "/v1/healthz", *lines))
        answer = connection.recv(65_536)
        assert statuses(answer) == [200]
        if b"connection: close" in answer.lower():
            while connection.recv(65_536):
                pass
        else:
            connection.sendall(head(spoken, "/v1/healthz"))
            assert statuses(connection.recv(65_536)) == [200]


@pytest.mark.parametrize(
    "sent",
    [
        b"what is this\r\n\r\n",
        b"GET /v1/healthz SPDY/3\r\n\r\n",
        b"GET /v1/healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v1/healthz HTTP/1.1\r\nHost: a\r\n folded\r\nX\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"GET http://127.0.0.1/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /v1/healthz#part HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_a_problem(spoken: Served, sent: bytes) -> None:
    answer = spoken.raw(sent)
    assert len(statuses(answer)) == 1 and 400 <= statuses(answer)[0] < 500
    assert b"application/problem+json" in answer and b"127.0.0.1/v1" not in answer


@pytest.mark.parametrize("line", ["x: " + "y" * 300_000, "x: y\r\n" * 50_000, "x" * 300_000])
def test_a_head_without_end_is_refused(spoken: Served, line: str) -> None:
    sent = f"GET /v1/healthz HTTP/1.1\r\nHost: 127.0.0.1:{spoken.port}\r\n{line}".encode()
    with socket.create_connection(("127.0.0.1", spoken.port), timeout=20) as connection:
        connection.settimeout(20)
        try:
            connection.sendall(sent)
            answer = connection.recv(65_536)
        except ConnectionError:
            return  # closed over what nobody reads: refused as well
        assert not answer or statuses(answer)[0] in (400, 431)


@pytest.mark.parametrize("end", [b"0\r\n" + b"x: y\r\n" * 60_000, b"1;" + b"x" * 300_000])
def test_what_stands_around_chunks_is_bounded(spoken: Served, end: bytes) -> None:
    """Trailers and extensions; nobody waits for their end."""
    kept = ("Content-Type: application/json", f"Authorization: Bearer {spoken.token}")
    sent = head(spoken, "/v1/memories", *kept, "Transfer-Encoding: chunked", method="POST")
    with socket.create_connection(("127.0.0.1", spoken.port), timeout=20) as connection:
        try:
            connection.sendall(sent + b"1\r\n{\r\n" + end)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass  # reset
    assert spoken.ask("GET", "/v1/healthz", token=None).status == 200


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET /v1/healthz HTTP/1.1\r\nHost: "])
def test_a_head_that_does_not_come_is_cut_off(spoken: Served, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", spoken.port), timeout=15) as connection:
        connection.sendall(begun)
        answer = connection.recv(65_536)
        assert not answer or statuses(answer) == [400]


def test_a_second_head_that_does_not_come_is_cut_off(spoken: Served) -> None:
    with socket.create_connection(("127.0.0.1", spoken.port), timeout=15) as connection:
        connection.sendall(head(spoken, "/v1/healthz"))
        assert statuses(connection.recv(65_536)) == [200]
        connection.sendall(b"GET /v1/healthz HTTP/1.1\r\nHost: ")
        assert connection.recv(65_536) == b""
