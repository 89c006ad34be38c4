"""Talking to a memdb server: connections, requests, errors, and JSON to the results of the library.

The standard library's ``http.client`` and msgspec, nothing else. Connections are kept open and
lent to one thread at a time. A kept connection that the server has closed meanwhile is replaced
and the request is sent again: reads may be, writes carry a key under which the server does them
once. What a request means is ``client``'s.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from memdb import errors
from memdb.errors import InvalidArgument, MemdbError, PermissionDenied, ServerUnavailable
from memdb.types import Context, ContextItem, Hit, Hits, Memory, Page, Report, Trashed, Why, Written

TIMEOUT_S = 60.0
MOST_KEPT = 8
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Wire:
    """Requests to one server, from any thread."""

    def __init__(self, url: str, token: str, ca: str | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(
                "url must be that of a server", field="url", hint="http://127.0.0.1:8377"
            )
        if not token.isascii() or not token.isprintable() or not token:
            raise InvalidArgument("token must be that of a grant", field="token")
        self._host = parts.hostname
        self._port = parts.port
        self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._timeout_s = timeout_s
        self._kept: list[http.client.HTTPConnection] = []
        self._guard = threading.Lock()
        self._closed = False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        writes: bool = False,
        counted: bool = False,
    ) -> Any:
        """The decoded JSON of the answer; if ``counted`` its bytes, and how many memories they are.

        Raises the error that the server's problem stands for, ``ServerUnavailable`` where nobody
        answers.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            path += "?" + urlencode({name: _text(value) for name, value in given.items()})
        sent = None if body is None else _encode(body)
        headers = self._headers
        if writes:
            headers = {**headers, "Idempotency-Key": secrets.token_hex(16)}
        got, data = self._exchange(method, path, sent, headers)
        if got.status >= 400:
            raise _error(got.status, data)
        if counted:
            return data, int(got.headers["Memdb-Count"])
        return msgspec.json.decode(data)

    def close(self) -> None:
        with self._guard:
            kept, self._kept, self._closed = self._kept, [], True
        for connection in kept:
            connection.close()

    def _exchange(
        self, method: str, path: str, sent: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._take()
        try:
            if connection is not None:
                try:
                    return self._once(connection, method, path, sent, headers)
                except _STALE:
                    connection.close()
            return self._once(self._connect(), method, path, sent, headers)
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnavailable(
                f"the server does not answer ({type(error).__name__})"
            ) from error

    def _once(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        sent: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            connection.request(method, path, sent, dict(headers))
            got = connection.getresponse()
            data = got.read()
        except BaseException:
            connection.close()
            raise
        if got.will_close:
            connection.close()
        else:
            self._keep(connection)
        return got, data

    def _take(self) -> http.client.HTTPConnection | None:
        with self._guard:
            if self._closed:
                raise InvalidArgument("the client is closed", field="url", hint="connect again")
            return self._kept.pop() if self._kept else None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._guard:
            if not self._closed and len(self._kept) < MOST_KEPT:
                self._kept.append(connection)
                return
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        connection.connect()
        # A request is two writes, head and body; the second must not wait for the first.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


# --- what is sent ---------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _encode(value).decode()
    return msgspec.to_builtins(value) if hasattr(value, "isoformat") else str(value)


def _encode(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise InvalidArgument("an argument is not JSON", field="items") from error


def _plain(value: Any) -> Any:
    """Arrays and mappings of other libraries."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


# --- what is wrong --------------------------------------------------------------------------------

_BY_CODE = {
    kind.code: kind for name in errors.__all__ if (kind := getattr(errors, name)) is not MemdbError
}
_BY_STATUS: dict[int, type[MemdbError]] = {
    401: PermissionDenied,
    403: PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    421: PermissionDenied,
    408: ServerUnavailable,
    429: ServerUnavailable,
    503: ServerUnavailable,
}


def _error(status: int, data: bytes) -> MemdbError:
    """The error of the library that a problem stands for."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(data, type=dict)
    except msgspec.MsgspecError:
        problem = {}
    kind = _BY_CODE.get(problem.get("code", ""))
    if kind is None:
        kind = _BY_STATUS.get(status, InvalidArgument if status < 500 else MemdbError)
    message = problem.get("detail") or f"the server answered {status}"
    options: dict[str, Any] = {"hint": problem.get("hint")}
    if issubclass(kind, InvalidArgument):
        options["field"] = problem.get("field")
    elif issubclass(kind, errors.LockHeld):
        options |= {"pid": problem.get("pid", 0), "host": problem.get("host", "")}
    elif issubclass(kind, errors.MissingDependency):
        options["extra"] = problem.get("extra", "server")
    return kind(message, **options)


# --- what is answered -----------------------------------------------------------------------------

if TYPE_CHECKING:
    _MemoryObject: Any = None
else:
    # ``Memory`` is read as an array where it is stored; on the wire it is an object.
    _MemoryObject = msgspec.defstruct(
        "_MemoryObject",
        [
            (one.name, one.type)
            if one.required
            else (one.name, one.type, {} if one.default is msgspec.NODEFAULT else one.default)
            for one in msgspec.structs.fields(Memory)
        ],
    )


def memory(given: Mapping[str, Any]) -> Memory:
    found = msgspec.convert(given, _MemoryObject)
    return Memory(**msgspec.structs.asdict(found))


def memories(given: list[Mapping[str, Any]]) -> list[Memory]:
    return [memory(one) for one in given]


def written(given: Mapping[str, Any]) -> Written:
    return Written(given["id"], given["status"], memory(given["memory"]))


def page(given: Mapping[str, Any]) -> Page:
    return Page(tuple(memories(given["items"])), given.get("next_cursor"))


def hits(given: Mapping[str, Any]) -> Hits:
    found = tuple(
        Hit(
            memory(one["memory"]),
            float(one["score"]),
            msgspec.convert(one["why"], Why),
            tuple(memories(one["history"])),
        )
        for one in given["hits"]
    )
    return Hits(found, given["search_id"], given["plan"], given["degraded"], given["confidence"])


def context(given: Mapping[str, Any]) -> Context:
    def items(name: str) -> tuple[ContextItem, ...]:
        return tuple(
            ContextItem(memory(one["memory"]), one["role"], one.get("score"), one.get("reason"))
            for one in given[name]
        )

    return Context(
        given["text"],
        items("items"),
        items("dropped"),
        given["tokens"],
        given["counter"],
        given["search_id"],
    )


def trashed(given: Mapping[str, Any]) -> Trashed:
    return Trashed(
        given["batch"],
        msgspec.convert(given["forgotten_at"], datetime),
        msgspec.convert(given["restorable_until"], datetime),
        tuple(memories(given["items"])),
        given.get("expired", False),
    )


def report(given: Mapping[str, Any]) -> Report:
    parts = {
        name: tuple(memories(given[name])) for name in ("items", "derived", "mentions", "hidden")
    }
    return Report(**parts, counts=given["counts"], snapshots=tuple(given["snapshots"]))
