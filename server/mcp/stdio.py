"""MCP over standard input and output: what a host application starts as a child process.

The process opens the directory itself, beside a server or without one, and answers until its input
ends. Standard output carries the protocol alone: while it serves, anything printed goes to
standard error (the SDK sees to that).
"""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from memdb.server.mcp.service import Acts, service


def serve(acts: Acts, surface: str = "memory") -> None:
    """Serve until standard input ends."""
    anyio.run(_serve, service(acts, surface))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
