"""What a route is, and how one request of it is answered: check, do, encode.

A ``Route`` is data: method, path, shapes of what comes in and goes out, and the function that does
it over an ``Acting``. Flask's views, the ASGI fast path and the OpenAPI document are made from the
same table. This file decodes and encodes; it knows neither Flask nor ASGI, nor who is asking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec

from memdb import Database, MemdbError, Principal
from memdb.server import problems, schemas
from memdb.server.idempotency import Replays
from memdb.server.identity import Identities
from memdb.server.problems import Refused
from memdb.server.sessions import Sessions

JSON = "application/json"
NDJSON = "application/x-ndjson"
MOST_NAME_CHARS = 512  # of a name in a path
_ENCODER = msgspec.json.Encoder()
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class Services(NamedTuple):
    """What a route may use beside the ``Acting``: the server's own parts."""

    db: Database
    identities: Identities
    replays: Replays
    sessions: Sessions
    roots: tuple[str, ...]
    url: str


class Call(NamedTuple):
    """One request, checked: who asks (through ``acting``), and for what."""

    acting: Any
    principal: Principal
    path: Mapping[str, str]
    query: Any
    body: Any
    services: Services


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: bytes, with the headers of their own that they need."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``limit_s``: how long it may take; ``body_bytes``: how much may be sent."""

    method: str
    path: str
    run: Callable[[Call], Any]
    summary: str
    answer: Any
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    owner: bool = False  # for the owner alone
    open: bool = False  # without a token
    secret: bool = False  # the answer is not kept under an Idempotency-Key
    limit_s: float | None = None
    body_bytes: int | None = None
    tag: str = "memories"
    content_type: str = JSON
    decoder: Any = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Its name in the audit, the metrics and the OpenAPI document."""
        return self.run.__name__.strip("_")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in its path."""
        return tuple(_PARAMETER.findall(self.path))


class Sent(NamedTuple):
    """One request as it came in, whatever carried it."""

    principal: Principal
    path: Mapping[str, str]
    query: bytes
    body: bytes
    purpose: str | None
    idempotency_key: str | None


def answer(route: Route, services: Services, sent: Sent) -> Reply:
    """Answer one request; every error is a problem, and nothing sent is in it."""
    body = query = None
    try:
        if any(len(name) > MOST_NAME_CHARS for name in sent.path.values()):
            raise Refused(400, "invalid_argument", "a name in the path is too long", _SEE)
        query = None if route.query is None else _query(route.query, sent.query)
        if route.query is None and sent.query:
            raise Refused(400, "invalid_argument", "the route takes no parameters", _SEE)
        if route.body is not None:
            if not sent.body:
                raise Refused(400, "invalid_argument", "a JSON body is needed", _SEE)
            body = route.decoder.decode(sent.body)
        elif sent.body:
            raise Refused(400, "invalid_argument", "the route takes no body", _SEE)
        if route.owner and not sent.principal.owner:
            raise Refused(
                403, "permission_denied", "only the owner may do this", "use the owner's token"
            )
        key = sent.idempotency_key
        if key is None or route.method == "GET" or route.secret:
            return _done(route, services, sent, query, body)
        claim = services.replays.claim(sent.principal, route.name, key, sent.path, sent.body)
        if isinstance(claim, Reply):
            return claim
        with claim:
            reply = _done(route, services, sent, query, body)
            claim.keep(reply)
        return reply
    except Refused as refused:
        return of_problem(problems.of_refusal(refused), refused.headers)
    except MemdbError as error:
        strings = [*problems.strings_of((body, query)), *sent.path.values()]
        return of_problem(problems.of_error(error, strings))
    except (msgspec.MsgspecError, RecursionError) as error:
        return of_problem(problems.of_invalid(error))


def _done(route: Route, services: Services, sent: Sent, query: Any, body: Any) -> Reply:
    purpose = getattr(body, "purpose", None) or sent.purpose
    acting = None
    if not route.open:
        acting = services.identities.acting(sent.principal, purpose=purpose, tool=route.name)
    call = Call(acting, sent.principal, sent.path, query, body, services)
    done = route.run(call)
    if isinstance(done, Reply):
        return done
    return Reply(200, _ENCODER.encode(done))


def of_problem(problem: schemas.Problem, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(
        problem.status,
        problems.encode(problem),
        problems.CONTENT_TYPE,
        tuple((headers or {}).items()),
    )


_SEE = "see /openapi.json for what the route takes"


def _query(shape: type[msgspec.Struct], raw: bytes) -> Any:
    pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=64)
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Refused(400, "invalid_argument", "a parameter is given twice", _SEE)
    if any("\ufffd" in text for pair in pairs for text in pair):
        raise Refused(400, "invalid_argument", "a parameter is not UTF-8", _SEE)
    return msgspec.convert(given, shape, strict=False)


def json_filter(text: str | None) -> Any:
    """The ``where`` of a parameter, which is written as JSON."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise Refused(
            400, "filter_error", "where is not a JSON object", "write it as JSON"
        ) from None


def decoded_path(route: Route, raw: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a path in the gate's canonical form, where a slash is still ``%2F``."""
    return {name: unquote(value) for name, value in raw.items()}
