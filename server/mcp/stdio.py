"""MCP over standard input and output: what a host application starts as a child process.

The process runs as the owner and opens the directory itself, beside a server or without one: what
an agent may do there is the grant of the token that is named, looked at for every call, and every
call is in the audit. It answers until its input ends. Standard output carries the protocol alone:
while it serves, anything printed goes to standard error (the SDK sees to that).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from memdb import PermissionDenied
from memdb.server.limits import Rates
from memdb.server.mcp.service import Acts, service

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from memdb import Acting, Database, Principal


def serve(
    db: Database, name: str | None = None, *, purpose: str | None = None, surface: str = "memory"
) -> None:
    """Serve until standard input ends.

    ``name``: of the token whose grant holds; None: the owner in person. ``purpose``: why, for the
    audit and for grants that ask it. Raises ``PermissionDenied`` where no token of that name is
    valid, ``InvalidArgument``.
    """
    acts = acting_as(db, name, purpose)
    anyio.run(_serve, service(acts, surface))


def acting_as(db: Database, name: str | None, purpose: str | None) -> Acts:
    """The verbs of a token's principal, at the rate of its grant, or of the owner."""
    rates = Rates()

    def principal() -> Principal:
        return db.tokens.owner() if name is None else db.tokens.named(name)

    def acts(ctx: ServerRequestContext[Any, Any] | None, tool: str) -> Acting:
        who = principal()
        per_minute = who.grant.rate_per_minute
        wait_s = rates.wait_s(who.name, per_minute) if per_minute and not who.owner else 0.0
        if wait_s:
            raise PermissionDenied(
                "the token has had its calls of this minute",
                hint=f"wait {math.ceil(wait_s)} seconds",
            )
        return db.acting(who, purpose=purpose, transport="mcp", tool=tool)

    principal()  # what is wrong with the name is said at once
    return acts


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
