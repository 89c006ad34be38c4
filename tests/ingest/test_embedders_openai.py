"""An OpenAI-compatible server: a real one on this device, and everything one can do wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import EmbedderUnavailable, InvalidArgument
from memdb.ingest.embedders import embed_documents, embed_query, identity_of, load, openai
from memdb.ingest.embedders.openai import OpenAIEmbedder, estimate_tokens, parse_answer
from memdb.ingest.embedders.spec import parse_server
from memdb.ingest.embedders.static import StaticEmbedder

DIM = 24
Answer = Callable[[list[str]], Any]


def numbers_of(text: str) -> list[float]:
    digest = hashlib.blake2b(text.encode(), digest_size=DIM).digest()
    return [byte - 127.5 for byte in digest]


def embeddings(texts: list[str]) -> dict[str, Any]:
    """As OpenAI answers, in reverse order, which ``index`` allows."""
    data = [{"index": i, "embedding": numbers_of(text)} for i, text in enumerate(texts)]
    return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 1}}


class Server(ThreadingHTTPServer):
    """A stub of an embeddings API. ``answer`` makes the body; ``requests`` is what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.answer: Answer = embeddings
        self.status = 200
        self.headers_out: dict[str, str] = {}
        self.delay_s = 0.0
        self.drip_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def texts(self) -> list[str]:
        return [text for request in self.requests for text in request["body"]["input"]]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(
            {"path": self.path, "body": body, "headers": dict(self.headers.items())}
        )
        time.sleep(self.server.delay_s)
        answer = self.server.answer(body["input"])
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(self.server.status)
        for name, value in self.server.headers_out.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        step = self.server.drip_bytes or len(content) or 1
        with contextlib.suppress(ConnectionError):  # a client may have given up
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                time.sleep(0.05 if self.server.drip_bytes else 0)

    def log_message(self, *_: object) -> None:
        """A test's output is its own."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connect(server: Server, *, timeout_s: float = 10.0, query: str = "") -> OpenAIEmbedder:
    return OpenAIEmbedder(parse_server(f"{server.url}{query}#mini"), timeout_s=timeout_s)


def test_a_server_is_asked_as_openai_documents(server: Server) -> None:
    embedder = load(f"openai:{server.url}/#mini")
    assert embedder is not None
    vectors = embedder.embed(["one", "two"])
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [numbers_of("one"), numbers_of("two")]
    last = server.requests[-1]
    assert last["path"] == "/v1/embeddings"
    assert last["body"] == {"model": "mini", "input": ["one", "two"], "encoding_format": "float"}
    assert last["headers"]["Content-Type"] == "application/json"
    assert "Authorization" not in last["headers"]


def test_its_identity_is_the_model_whatever_the_address(server: Server) -> None:
    embedder = connect(server)
    identity = identity_of(embedder)
    assert (identity.name, identity.revision, identity.dim) == ("mini", "", DIM)
    assert identity == identity_of(connect(server, query="?max_tokens=64"))
    assert identity != identity_of(connect(server, query="?query=search_query%3A%20"))


def test_roles_choose_the_prompt(server: Server) -> None:
    embedder = connect(server, query="?query=find%3A%20&document=text%3A%20")
    embed_documents(embedder, ["a fact"])
    embed_query(embedder, "a question")
    assert server.texts()[1:] == ["text: a fact", "find: a question"]


def test_many_texts_go_in_batches_and_come_back_in_order(server: Server) -> None:
    embedder = connect(server)
    texts = [f"memory {number}" for number in range(2 * openai.BATCH_TEXTS + 5)]
    assert embedder.embed(texts).tolist() == [numbers_of(text) for text in texts]
    sizes = [len(request["body"]["input"]) for request in server.requests[1:]]
    assert sizes == [openai.BATCH_TEXTS, openai.BATCH_TEXTS, 5]
    assert embedder.embed([]).shape == (0, DIM)


def test_a_text_longer_than_the_window_arrives_in_pieces_and_whole(server: Server) -> None:
    embedder = connect(server, query="?max_tokens=32")
    text = "Ana moved to Lisbon in May. " * 40
    (vector,) = embed_documents(embedder, [text])
    pieces = server.texts()[1:]
    assert "".join(pieces) == text
    assert all(estimate_tokens(piece) <= 32 for piece in pieces)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_key_comes_from_the_environment_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(openai.API_KEY_VARIABLE, "k3y")
    connect(server)
    assert server.requests[-1]["headers"]["Authorization"] == "Bearer k3y"


def test_a_key_never_leaves_the_device_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openai.API_KEY_VARIABLE, "k3y")
    with pytest.raises(EmbedderUnavailable, match="plain http") as raised:
        OpenAIEmbedder(parse_server("http://192.0.2.1/v1#mini"), timeout_s=1)
    assert "k3y" not in str(raised.value) + raised.value.hint


def test_a_loopback_address_is_not_sent_through_a_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert connect(server).dim == DIM


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_of_the_server_is_typed_and_repeats_no_text(server: Server, status: int) -> None:
    embedder = connect(server)
    server.status = status
    server.answer = lambda texts: {"error": {"message": f"cannot embed {texts}"}}
    with pytest.raises(EmbedderUnavailable, match=str(status)) as raised:
        embedder.embed(["a private memory"])
    assert "private" not in str(raised.value) + raised.value.hint


def test_a_redirect_is_not_followed(server: Server) -> None:
    embedder = connect(server)
    server.status = 307
    server.headers_out = {"Location": f"{server.url}/elsewhere"}
    with pytest.raises(EmbedderUnavailable, match="307"):
        embedder.embed(["text"])
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EmbedderUnavailable, match="does not answer") as raised:
        load(f"openai:http://127.0.0.1:{port}/v1#mini")
    assert "running" in raised.value.hint


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    embedder = connect(server, timeout_s=0.2)
    server.delay_s = 0.6
    with pytest.raises(EmbedderUnavailable, match="does not answer"):
        embedder.embed(["text"])


def test_a_server_that_drips_is_given_up(server: Server) -> None:
    embedder = connect(server, timeout_s=0.3)
    server.drip_bytes = 10
    began = time.monotonic()
    with pytest.raises(EmbedderUnavailable, match="does not answer"):
        embedder.embed(["text"])
    assert time.monotonic() - began < 2


def test_an_answer_cut_short_is_refused(server: Server) -> None:
    embedder = connect(server)
    server.answer = lambda texts: json.dumps(embeddings(texts)).encode()[:-20]
    with pytest.raises(EmbedderUnavailable, match="JSON"):
        embedder.embed(["text"])


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["data", "index", "embedding"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_no_answer_whatever_is_more_than_a_value_error(answer: Any) -> None:
    for wrapped in (answer, {"data": [answer]}, {"data": [{"embedding": answer}]}):
        try:
            vectors = parse_answer(json.dumps(wrapped).encode(), 1, 2)
        except ValueError:
            continue
        assert vectors.shape == (1, 2)
        assert np.isfinite(vectors).all()


def test_an_endless_answer_is_cut_off(server: Server) -> None:
    embedder = connect(server)
    server.answer = lambda texts: b" " * (1 << 20)
    with pytest.raises(EmbedderUnavailable, match="more than"):
        embedder.embed(["text"])


def one(embedding: object) -> bytes:
    return json.dumps({"data": [{"index": 0, "embedding": embedding}]}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"{}",
        b'{"data": 5}',
        b'{"data": {"a": 1}}',
        b'{"data": [null]}',
        b'{"data": []}',
        json.dumps({"data": [{"embedding": [1.0] * DIM}] * 2}).encode(),
        json.dumps({"data": [{"index": 7, "embedding": [1.0] * DIM}]}).encode(),
        json.dumps({"data": [{"index": -1, "embedding": [1.0] * DIM}]}).encode(),
        json.dumps({"data": [{"index": "0", "embedding": [1.0] * DIM}]}).encode(),
        one(None),
        one("AAAA"),
        one([]),
        one([1.0] * (DIM - 1)),
        one([1.0] * (DIM + 1)),
        one([True] * DIM),
        one(["1"] * DIM),
        one([[1.0]] * DIM),
        one([float("nan")] * DIM),
        one([float("inf")] * DIM),
        one([1e300] * DIM),
        one([10**400] * DIM),
        one([1]).replace(b"1", b"9" * 5000),
    ],
)
def test_an_answer_that_is_not_the_vectors_asked_for_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match="answers"):
        parse_answer(answer, 1, DIM)


def test_two_vectors_for_one_text_and_none_for_the_other_are_refused() -> None:
    answer = {"data": [{"index": 0, "embedding": [1.0] * DIM}] * 2}
    with pytest.raises(ValueError, match="answers"):
        parse_answer(json.dumps(answer).encode(), 2, DIM)


def test_a_refused_answer_is_typed(server: Server) -> None:
    embedder = connect(server)
    server.answer = lambda texts: b"<html>"
    with pytest.raises(EmbedderUnavailable, match="JSON"):
        embedder.embed(["text"])


def test_the_estimate_of_tokens_errs_high() -> None:
    embedder = StaticEmbedder()
    for text in [
        "Ana is allergic to peanuts and carries an adrenaline pen.",
        "IBAN DE89 3704 0044 0532 0130 00, due 2024-05-01",
        "x = [i**2 for i in range(10)]",
        "今天我们去北京开会",
        "",
    ]:
        assert estimate_tokens(text) >= embedder.count_tokens(text) + 2


@pytest.mark.parametrize(
    "address",
    [
        "",
        "#mini",
        "127.0.0.1:11434/v1#mini",
        "ftp://127.0.0.1/v1#mini",
        "file:///etc/passwd#mini",
        "http:///v1#mini",
        "http://127.0.0.1:11434/v1",
        "http://127.0.0.1:port/v1#mini",
        "http://127.0.0.1:99999/v1#mini",
        "http://user:secret@127.0.0.1/v1#mini",
        "http://[::1/v1#mini",
        "http://127.0.0.1/v1?max_tokens=0#mini",
        "http://127.0.0.1/v1?max_tokens=many#mini",
        "http://127.0.0.1/v1?max_tokens=99999999999#mini",
        "http://127.0.0.1/v1?api_key=secret#mini",
        "http://127.0.0.1/v1?nothing#mini",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        load(f"openai:{address}")
    assert raised.value.field == "embedder"
    assert "secret" not in str(raised.value)
