"""A local server that speaks OpenAI's embeddings API: Ollama, llama.cpp, LM Studio, vLLM.

One POST to ``{base}/embeddings`` a batch, over urllib. Texts go to the one address the user named
and nowhere else: redirects are refused and a loopback address is never sent through a proxy.
Answers are bounded in size and checked in shape before they are believed; error messages never
repeat what was sent.

An API key is read from the environment variable MEMDB_EMBEDDER_API_KEY if it is set, at each
request, and is sent over https or to this device only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from memdb.errors import EmbedderUnavailable
from memdb.ingest.embedders.protocol import Role
from memdb.ingest.embedders.spec import ServerSpec
from memdb.settings import MAX_DIM

API_KEY_VARIABLE = "MEMDB_EMBEDDER_API_KEY"
TIMEOUT_S = 60.0
BATCH_TEXTS = 64
BATCH_BYTES = 1 << 20
_ANSWER_BYTES = 64 << 10  # around the numbers
_NUMBER_BYTES = 32  # of one number written out

_LARGEST = float(np.finfo(np.float32).max)
_WORDS = re.compile(r"[A-Za-z]+|\s+|.", re.DOTALL)


class OpenAIEmbedder:
    """One model behind one address. Nothing is remembered between calls, so it is thread-safe.

    Making one asks the server for one vector, to learn the dimension. ``count_tokens`` has no
    tokenizer to ask and estimates high. Raises ``EmbedderUnavailable``.
    """

    def __init__(self, spec: ServerSpec, *, timeout_s: float = TIMEOUT_S) -> None:
        self._spec = spec
        self._timeout_s = timeout_s
        self._opener = _opener(spec.base_url)
        self.name = spec.model
        self.revision = ""  # the API does not tell
        self.max_tokens = spec.max_tokens
        self.prompts = dict(spec.prompts)
        self._longest_prompt = max(self.prompts.values(), key=len, default="")
        self.dim = MAX_DIM  # of the answer allowed to the first request
        self.dim = int(self._request(["dimension"], dim=None).shape[1])

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(self._longest_prompt + text)

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """(n, dim) float32 as the server returns them."""
        prompt = self.prompts.get(role, "")
        batches = [
            self._request(batch, dim=self.dim) for batch in _batches([prompt + t for t in texts])
        ]
        return np.concatenate([np.zeros((0, self.dim), dtype=np.float32), *batches])

    def _request(self, texts: list[str], dim: int | None) -> NDArray[np.float32]:
        body = {"model": self._spec.model, "input": texts, "encoding_format": "float"}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(API_KEY_VARIABLE)
        if key:
            if not self._spec.base_url.startswith("https:") and not _is_loopback(self._spec):
                raise self._unavailable(
                    "is not sent the API key over plain http", "use https, or unset the key"
                )
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            self._spec.base_url + "/embeddings", json.dumps(body).encode(), headers, method="POST"
        )
        limit = _ANSWER_BYTES + len(texts) * (self.dim * _NUMBER_BYTES + 256)
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                answer = _read(response, limit, deadline)
        except urllib.error.HTTPError as error:
            with error:
                hint = f"is the model there? try `ollama pull {self._spec.model}`"
                raise self._unavailable(f"answers {error.code}", hint) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise self._unavailable(f"does not answer ({reason})", "is it running?") from error
        if len(answer) > limit:
            raise self._unavailable(f"answers more than {limit} bytes", "is it the right address?")
        try:
            return parse_answer(answer, len(texts), dim)
        except ValueError as error:
            raise self._unavailable(str(error), "is it an embeddings API?") from error

    def _unavailable(self, problem: str, hint: str) -> EmbedderUnavailable:
        return EmbedderUnavailable(
            f"the embedding server at {self._spec.base_url} {problem}",
            hint=f"{hint}; mode='lexical' works without it",
        )


def _read(response: HTTPResponse, limit: int, deadline: float) -> bytes:
    """At most ``limit`` + 1 bytes. A socket's time-out starts anew with every byte, so a server
    that sends one now and then would hold the caller for ever: the deadline is for the whole."""
    parts: list[bytes] = []
    size = 0
    while size <= limit and (part := response.read1(limit + 1 - size)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def parse_answer(answer: bytes, n: int, dim: int | None) -> NDArray[np.float32]:
    """(n, dim) float32 of an answer of the API; ``dim`` None takes what comes.

    Raises ``ValueError`` saying what is wrong with it.
    """
    try:
        decoded: Any = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ValueError("answers what is not JSON") from error
    try:
        items = decoded["data"]
        rows: list[Any] = [None] * n
        if len(items) != n:
            raise ValueError(f"answers {len(items)} vectors to {n} texts")
        for place, item in enumerate(items):
            index = item.get("index", place)
            if type(index) is not int or not 0 <= index < n:
                raise ValueError("answers with a vector of no text")
            rows[index] = item["embedding"]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError("answers what is not a list of embeddings") from error
    width = dim if dim is not None else len(rows[0]) if isinstance(rows[0], list) else 0
    if not 1 <= width <= MAX_DIM:
        raise ValueError(f"answers vectors of {width} dimensions")
    vectors = np.zeros((n, width), dtype=np.float32)
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(f"answers a vector that has not {width} dimensions")
        # The comparison is false for NaN too.
        if not all(type(number) in (int, float) and abs(number) <= _LARGEST for number in row):
            raise ValueError("answers a vector with what is not a finite float32")
        vectors[place] = row
    return vectors


def estimate_tokens(text: str) -> int:
    """Tokens of a text for an unknown tokenizer, meant to err high.

    Three letters a token inside words, one token for any other ASCII character but spaces, one
    for each UTF-8 byte beyond ASCII (what a byte-level tokenizer needs at worst), two around.
    """
    tokens = 2
    for match in _WORDS.finditer(text):
        part = match.group()
        if part.isascii():
            tokens += 0 if part.isspace() else (len(part) + 2) // 3
        else:
            tokens += len(part.encode("utf-8", "replace"))
    return tokens


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == BATCH_TEXTS or size + len(text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the texts to an address nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(base_url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_loopback_host(urlsplit(base_url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_loopback(spec: ServerSpec) -> bool:
    return _is_loopback_host(urlsplit(spec.base_url).hostname or "")


def _is_loopback_host(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
