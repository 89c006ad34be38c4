"""Commands of the Model Context Protocol: serve a host application, and write its entry."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from memdb.cli.calls import Call, with_database
from memdb.cli.spec import Command, Option

if TYPE_CHECKING:
    from memdb import Database

SURFACES = ("memory", "chatgpt")


@with_database
def mcp(call: Call, db: Database) -> None:
    """Serve MCP on standard input and output."""
    need_sdk()
    from memdb.server.mcp import stdio

    stdio.serve(lambda ctx, tool: db, call.args.surface or SURFACES[0])


def need_sdk() -> None:
    """Raises ``MissingDependency`` where the SDK is not installed."""
    from memdb import MissingDependency

    if find_spec("mcp") is None:
        raise MissingDependency("memdb mcp needs the MCP SDK", extra="server")


SURFACE = Option(
    "surface",
    "memory (default), or search and fetch as chatgpt calls them",
    choices=SURFACES,
    own=True,
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "mcp",
        "serve an agent over MCP on standard input and output",
        mcp,
        None,
        (
            Option("as_", "serve with the grant of this token", metavar="NAME", own=True),
            SURFACE,
        ),
        ("mcp --as claude-desktop", "mcp --surface chatgpt"),
    ),
)
