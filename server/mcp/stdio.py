"""MCP over standard input and output: what a host application starts as a child process.

The process runs as the owner: what an agent may do is the grant of the token that is named, looked
at for every call, and every call is in the audit. Where a server runs for the database, calls are
carried to it (``through``); where none does, they are done here, in the directory itself. It
answers until its input ends. Standard output carries the protocol alone: while it serves, anything
printed goes to standard error (the SDK sees to that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from memdb.server.limits import Rates
from memdb.server.mcp.service import Acts, service
from memdb.server.mcp.through import Found, Through

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from memdb import Acting, Database, Principal


def serve(
    db: Database,
    name: str | None = None,
    *,
    purpose: str | None = None,
    surface: str = "memory",
    found: Found | None = None,
) -> None:
    """Serve until standard input ends.

    ``name``: of the token whose grant holds; None: the owner in person. ``purpose``: why, for the
    audit and for grants that ask it. ``found``: what is known of a running server, asked for every
    call of a token; the owner in person is served here. Raises ``PermissionDenied`` where no token
    of that name is valid, ``InvalidArgument``.
    """
    acts = acting_as(db, name, purpose)
    carried = None
    if found is not None and name is not None:
        carried = Through(found, name, purpose, surface)
    anyio.run(_serve, service(acts, surface, carried))


def acting_as(db: Database, name: str | None, purpose: str | None) -> Acts:
    """The verbs of a token's principal, at the rate of its grant, or of the owner."""
    rates = Rates()

    def principal() -> Principal:
        return db.tokens.owner() if name is None else db.tokens.named(name)

    def acts(ctx: ServerRequestContext[Any, Any] | None, tool: str) -> Acting:
        who = principal()
        rates.check(who)
        return db.acting(who, purpose=purpose, transport="mcp", tool=tool)

    principal()  # what is wrong with the name is said at once
    return acts


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
