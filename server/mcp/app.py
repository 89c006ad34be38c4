"""MCP over streamable HTTP: what the server mounts at ``/mcp``, and ``/mcp/chatgpt``.

Stateless, with JSON answers: nothing is kept between requests, so any number of agents and a
restart are all the same. It stands behind the gate, which has checked names, origins, sizes and the
token; a request that no gate has given a principal is refused. Verbs come from the server's
``identities``, for each call anew. There is no stream to open (GET) and no session to end (DELETE).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from memdb import PermissionDenied
from memdb.server.limits import Rates
from memdb.server.mcp.service import service
from memdb.server.mcp.through import AS

if TYPE_CHECKING:
    from memdb import Acting

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATHS: Final = {"/mcp": "memory", "/mcp/chatgpt": "chatgpt"}
MOST_BYTES: Final = 4 << 20


def asgi_app() -> App:
    """The ASGI app; it needs the lifespan messages, as well as requests.

    ``scope["state"]`` has ``principal``, ``purpose`` and ``services``.
    """
    verbs = _Verbs()
    managers = {
        path: StreamableHTTPSessionManager(
            service(verbs, surface),
            json_response=True,
            stateless=True,
            max_request_body_size=MOST_BYTES,
        )
        for path, surface in PATHS.items()
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        memory, chatgpt = managers.values()
        async with memory.run(), chatgpt.run():
            yield

    inner = Starlette(
        routes=[
            Route(path, endpoint=StreamableHTTPASGIApp(manager), methods=["POST"])
            for path, manager in managers.items()
        ],
        lifespan=lifespan,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("state", {}).get("principal") is None:
            refusal = Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await inner(scope, receive, send)

    return app


class _Verbs:
    """The verbs of whoever sent a request.

    The owner's token may name another in ``Memdb-As``, as ``memdb mcp --as`` does: that one's grant
    and rate hold. For anybody else the header is worth nothing.
    """

    def __init__(self) -> None:
        self._rates = Rates()

    def __call__(self, ctx: ServerRequestContext[Any, Any], tool: str) -> Acting:
        request = ctx.request
        if request is None:
            raise PermissionDenied("nobody asks")
        state = request.scope["state"]
        principal, services = state["principal"], state["services"]
        name = request.headers.get(AS)
        if name is not None and principal.owner:
            principal = services.db.tokens.named(unquote(name))
            self._rates.check(principal)
        acting: Acting = services.identities.acting(
            principal, purpose=state.get("purpose"), transport="mcp", tool=tool
        )
        return acting
