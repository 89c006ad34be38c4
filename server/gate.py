"""The one gate in front of everything: who may come in, with what, how much and how long.

An ASGI middleware around Flask and MCP alike. It judges the head of a request (target, Host,
Origin, Sec-Fetch-Site, token or session, rate), then reads the body within its limits, and only
then lets anything else see the request, with a canonical path and a deadline. What it refuses it
answers itself, with a problem that repeats nothing of what was sent.

Three kinds of path: those that need nobody (``/v1/healthz``), those of the API, which need a token
(or, under ``/v1``, the page's session with its CSRF header), and all others, which belong to the
owner's page: a session's cookie is looked at, and a request without one goes on as nobody's, for
the page to refuse or to offer a way in. It knows nothing of what a route does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from memdb import PermissionDenied, Principal
from memdb.server import problems
from memdb.server.head import Head, read_head
from memdb.server.identity import Identities
from memdb.server.limits import InWork, Limits, Rates
from memdb.server.metrics import Metrics
from memdb.server.problems import Refused
from memdb.server.sessions import Sessions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API: Final = ("v1", "mcp", "mem0", "metrics", "openapi.json")
OPEN: Final = frozenset([("GET", "/v1/healthz"), ("HEAD", "/v1/healthz")])
SAFE: Final = frozenset(["GET", "HEAD"])
FORM: Final = b"application/x-www-form-urlencoded"

UNREAD: Final = frozenset(["bad_request", "too_slow"])  # for how it is framed, or that it stays out
DRAINED_BYTES: Final = 1 << 20
DRAIN_S: Final = 0.5

# What every answer says to a browser that was led here, unless the answer says otherwise.
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="memdb"'}
log = logging.getLogger("memdb.server")


@dataclass(frozen=True, slots=True)
class GateOptions:
    """Which names the server goes by, and what it allows."""

    hosts: frozenset[bytes]  # lower case, with the port
    origins: frozenset[bytes]
    limits: Limits = field(default_factory=Limits)
    # (method, path pattern of segments, None for any) -> (seconds, bytes) of routes with their own
    special: Mapping[tuple[str, str], tuple[float | None, int | None]] = field(default_factory=dict)


def names_of(names: Iterable[str], port: int, *, secure: bool) -> tuple[frozenset[bytes], ...]:
    """(hosts, origins) by which a server on ``port`` may be called."""
    scheme, plain = ("https", 443) if secure else ("http", 80)
    hosts = {f"{name.lower()}:{port}" for name in names}
    if port == plain:
        hosts |= {name.lower() for name in names}
    return (
        frozenset(host.encode() for host in hosts),
        frozenset(f"{scheme}://{host}".encode() for host in hosts),
    )


class Gate:
    """The middleware; all its state belongs to the event loop."""

    def __init__(
        self,
        app: App,
        options: GateOptions,
        identities: Identities,
        sessions: Sessions,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._options = options
        self._identities = identities
        self._sessions = sessions
        self._metrics = metrics
        self._in_work = InWork(options.limits)
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = perf_counter()
        answering = _Answering(send)
        state: dict[str, Any] = {"route": "refused"}
        try:
            await self._let_in(scope, receive, answering, state)
        except Refused as refused:
            self._metrics.refused(refused.code)
            if "body" not in state and refused.code not in UNREAD:
                await _drain(receive)
            await answering.refuse(refused)
        except ConnectionError:
            answering.status = 499  # nobody is there to be answered
        except Exception as error:
            log.error("a request failed", exc_info=error)
            await answering.refuse(problems.UNEXPECTED)
        self._metrics.answered(
            state["route"], scope["method"], answering.status, perf_counter() - started
        )

    async def _let_in(
        self, scope: Scope, receive: Receive, answering: _Answering, state: dict[str, Any]
    ) -> None:
        options, limits = self._options, self._options.limits
        head = read_head(scope, limits)
        self._check_names(head)
        principal, session = self._who(scope["method"], head)
        if principal is not None:
            self._check_rate(principal)
        is_form = self._check_content(scope["method"], head, session)
        own_s, own_bytes = options.special.get((scope["method"], head.path), (None, None))
        most = own_bytes or limits.body_bytes
        body = await _read_body(receive, head, most, limits.body_s)
        state |= {
            "route": "other",
            "principal": principal,
            "session": session,
            "form": is_form,
            "body": body,
            "query": head.query,
            "purpose": head.text(b"memdb-purpose", 200),
            "idempotency_key": head.text(b"idempotency-key", 1_024),
        }
        who = "nobody" if principal is None else principal.token_id or principal.name
        if not self._in_work.enter(who, len(body)):
            raise Refused(
                503,
                "too_many_requests_at_once",
                "the server is answering as many requests as it may",
                "send it again in a moment",
                headers={"Retry-After": "1"},
            )
        self._metrics.in_work(self._in_work.count)
        inner: Scope = {**scope, "path": head.path, "headers": head.headers, "state": state}
        try:
            async with asyncio.timeout(own_s or limits.request_s):
                await self._app(inner, _replay(body, receive), answering)
        except TimeoutError:
            raise Refused(
                503,
                "timed_out",
                "the request took longer than it may",
                "ask for less, or ask again later",
            ) from None
        finally:
            self._in_work.leave(who, len(body))
            self._metrics.in_work(self._in_work.count)

    # --- the head of a request ------------------------------------------------------------

    def _check_names(self, head: Head) -> None:
        """The names it was called by: a rebound name has a wrong Host, a foreign page an Origin."""
        if head.host not in self._options.hosts:
            raise Refused(
                421,
                "misdirected_request",
                "the Host header does not name this server",
                "use the address that `memdb serve` printed",
            )
        foreign = head.origin is not None and head.origin not in self._options.origins
        if foreign or head.fetch_site not in (None, b"same-origin", b"none"):
            raise Refused(
                403,
                "foreign_origin",
                "requests of other sites are not answered",
                "call the server from a program, or open its own page",
            )

    def _who(self, method: str, head: Head) -> tuple[Principal | None, str | None]:
        """(principal, session): whom the token or the cookie stands for."""
        if head.token is not None:
            try:
                return self._identities.authenticate(head.token), None
            except PermissionDenied as denied:
                raise Refused(
                    401, "unauthorized", "the token is not valid", denied.hint, headers=_CHALLENGE
                ) from None
        is_api = head.first in API
        session = head.cookie
        principal = None if session is None else self._sessions.principal(session)
        if session is not None and principal is not None:
            if not is_api:
                return principal, session
            if head.first == "v1" and self._sessions.csrf_matches(session, head.csrf or ""):
                return principal, session
        if is_api and (method, head.path) not in OPEN:
            raise Refused(
                401,
                "unauthorized",
                "a token is needed",
                "send `Authorization: Bearer TOKEN`; memdb token create NAME makes one",
                headers=_CHALLENGE,
            )
        return None, None

    def _check_rate(self, principal: Principal) -> None:
        per_minute = principal.grant.rate_per_minute
        if per_minute is None or principal.owner:
            return
        wait = self._rates.wait_s(str(principal.token_id or principal.name), per_minute)
        if wait:
            raise Refused(
                429,
                "rate_limited",
                "the token has had its requests of this minute",
                "wait as long as Retry-After says",
                headers={"Retry-After": str(max(1, round(wait + 0.5)))},
            )

    def _check_content(self, method: str, head: Head, session: str | None) -> bool:
        """Whether the body is a form of the page; what is neither that nor JSON is refused."""
        if method in SAFE:
            if head.has_body:
                raise Refused(400, "invalid_argument", "a body has no place here", "leave it out")
            return False
        kind = head.content_type
        if kind is None and not head.has_body:
            return False
        if kind == b"application/json":
            return False
        if kind == FORM and session is not None and head.first not in API:
            if head.origin is not None:
                return True
            raise Refused(
                403, "foreign_origin", "a form must say where it is from", "load the page again"
            )
        raise Refused(
            415,
            "unsupported_media_type",
            "what is sent must be JSON",
            "send it with Content-Type: application/json",
        )


async def _read_body(receive: Receive, head: Head, most: int, seconds: float) -> bytes:
    """The whole body; a client that sends too much or too slowly is refused."""
    if not head.has_body:
        return b""
    if head.length is not None and head.length > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionResetError("the client went away")
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(
            408, "too_slow", "the body came too slowly", "send it again, faster"
        ) from None


async def _drain(receive: Receive) -> None:
    """Read a small body that nobody wants: a connection closed over unread bytes is reset, and the
    client may then see that instead of the answer. One that does not come is not waited for."""
    left = DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        "too_large",
        f"the body has more than {most:,} bytes",
        "send it in several requests",
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, once; then what the connection says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class _Answering:
    """Passes an answer on, with the headers that all answers have; knows how far it got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self._whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            headers += [pair for pair in HEADERS if pair[0] not in present]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self._whole = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answer with a problem, if nothing was answered; the connection is not used again."""
        if self.status:
            if not self._whole:
                raise ConnectionAbortedError("an answer broke off")
            return
        body = problems.encode(problems.of_refusal(refused))
        headers = [
            (b"content-type", problems.CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((n.lower().encode(), v.encode()) for n, v in refused.headers.items()),
        ]
        await self({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


__all__ = ["API", "Gate", "GateOptions", "names_of"]
