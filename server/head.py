"""The head of a request, read once and strictly: what is ambiguous is refused, not interpreted.

Two Host headers, two lengths, a length beside chunks, an absolute target, a path with ``..`` or an
empty segment, a token in the URL: each is a way to make two programs understand one request
differently. The path that comes out is canonical: every segment is decoded but for ``%`` and ``/``
in it. This file decides nothing about who is asking.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from memdb.server.limits import Limits
from memdb.server.problems import Refused
from memdb.server.sessions import COOKIE_NAME

# Headers that must come once at most: with two, programs differ on which of them counts.
_ONCE: Final = frozenset(
    [
        b"host",
        b"origin",
        b"authorization",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"sec-fetch-site",
        b"idempotency-key",
        b"memdb-purpose",
        b"x-csrf-token",
        b"cookie",
    ]
)
_SECRET_PARAMETER: Final = re.compile(
    rb"(?:^|[&;])(?:access_?token|auth|authorization|bearer|token|api_?key)=", re.IGNORECASE
)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
MOST_TOKEN_BYTES: Final = 512


class Head(NamedTuple):
    """What the gate and the app need of a head; header values as bytes, names in lower case."""

    path: str
    first: str  # the first segment of the path
    query: bytes
    headers: list[tuple[bytes, bytes]]
    by_name: dict[bytes, bytes]
    host: bytes | None
    origin: bytes | None
    fetch_site: bytes | None
    token: str | None
    cookie: str | None
    csrf: str | None
    content_type: bytes | None
    length: int | None
    has_body: bool

    def text(self, name: bytes, most: int) -> str | None:
        """A header as text, if it is UTF-8 and at most ``most`` bytes."""
        value = self.by_name.get(name)
        if value is None:
            return None
        if len(value) > most:
            raise _bad("a header is too long", "shorten it")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise _bad("a header is not UTF-8", "send ASCII") from None


def _bad(detail: str, hint: str = "send a plain HTTP/1.1 request") -> Refused:
    return Refused(400, "bad_request", detail, hint)


def read_head(scope: MutableMapping[str, Any], limits: Limits) -> Head:
    """Read the head of an HTTP ``scope``. Raises ``Refused``."""
    # A name with an underscore would pass for the one with a dash behind CGI's rules.
    headers = [pair for pair in scope["headers"] if b"_" not in pair[0]]
    by_name: dict[bytes, bytes] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name in by_name and name in _ONCE:
            raise _bad("a header that may come once came twice")
        by_name[name] = value
    if size > limits.header_bytes:
        raise Refused(431, "too_large", "the headers are too long", "send fewer")
    path = canonical_path(scope["raw_path"], limits.target_bytes)
    query: bytes = scope["query_string"]
    _check_query(query, limits.target_bytes)
    length, has_body = _framing(by_name)
    get = by_name.get
    origin, host, csrf = get(b"origin"), get(b"host"), get(b"x-csrf-token")
    kind = get(b"content-type")
    return Head(
        path=path,
        first=path[1:].partition("/")[0],
        query=query,
        headers=headers,
        by_name=by_name,
        host=None if host is None else host.lower(),
        origin=None if origin is None else origin.lower(),
        fetch_site=get(b"sec-fetch-site"),
        token=_token(get(b"authorization")),
        cookie=_session_cookie(get(b"cookie")),
        csrf=None if csrf is None else csrf.decode("latin-1"),
        content_type=None if kind is None else _media_type(kind),
        length=length,
        has_body=has_body,
    )


def canonical_path(raw: bytes, most: int) -> str:
    """The path with every segment decoded, but ``%25`` and ``%2F`` for what is in a segment."""
    if not raw.startswith(b"/"):
        raise _bad("the target must be a path", "send the path alone: GET /v1/stats")
    if len(raw) > most:
        raise Refused(400, "too_large", "the target is too long", "send it as a JSON body")
    if b"%" not in raw and b"//" not in raw and b"/." not in raw:
        path = raw.decode("latin-1")
        if path.isascii() and path.isprintable() and "\\" not in path:
            return path
    segments = raw[1:].split(b"/")
    found = []
    for place, segment in enumerate(segments):
        if not segment and (place < len(segments) - 1):
            raise _bad("the path has an empty segment")
        if _BAD_ESCAPE.search(segment.decode("latin-1")):
            raise _bad("the path is not well encoded")
        try:
            text = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError:
            raise _bad("the path is not UTF-8") from None
        if text in (".", "..") or any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise _bad("the path has a segment that is none")
        found.append(text.replace("%", "%25").replace("/", "%2F"))
    return "/" + "/".join(found)


def _check_query(query: bytes, most: int) -> None:
    if len(query) > most:
        raise Refused(400, "too_large", "the target is too long", "send it as a JSON body")
    if not query.isascii():
        raise _bad("the parameters are not well encoded")
    if _SECRET_PARAMETER.search(query):
        raise _bad(
            "a token has no place in a URL, which is logged and kept",
            "send it as `Authorization: Bearer TOKEN`",
        )


def _framing(by_name: dict[bytes, bytes]) -> tuple[int | None, bool]:
    """(Content-Length, whether there is a body)."""
    declared, coding = by_name.get(b"content-length"), by_name.get(b"transfer-encoding")
    if coding is not None:
        if declared is not None:
            raise _bad("a length and chunks exclude each other")
        if coding.lower() != b"chunked":
            raise _bad("only chunked is understood")
        return None, True
    if declared is None:
        return None, False
    if not declared.isdigit() or len(declared) > 18:
        raise _bad("Content-Length must be a number")
    return int(declared), int(declared) > 0


def _token(value: bytes | None) -> str | None:
    """The bearer token; what is there and is none is refused."""
    if value is None:
        return None
    scheme, _, token = value.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not _TOKEN.fullmatch(token) or len(token) > MOST_TOKEN_BYTES:
        raise Refused(
            401,
            "unauthorized",
            "the Authorization header has no bearer token",
            "send `Authorization: Bearer TOKEN`",
            headers={"WWW-Authenticate": 'Bearer realm="memdb"'},
        )
    return token.decode("ascii")


def _session_cookie(value: bytes | None) -> str | None:
    """The session's cookie; two of that name are as good as none."""
    if value is None:
        return None
    pairs = (part.strip().partition(b"=") for part in value.split(b";"))
    found = [text for name, _, text in pairs if name == COOKIE_NAME.encode()]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _media_type(value: bytes) -> bytes:
    return value.partition(b";")[0].strip().lower()
