"""Commands of the Model Context Protocol: serve a host application, and write its entry."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from memdb.cli.calls import Call, with_database
from memdb.cli.spec import Command, Option

if TYPE_CHECKING:
    from memdb import Database
    from memdb.server.mcp.install import Host

SURFACES = ("memory", "chatgpt")
HOSTS = ("claude-desktop", "vscode", "claude-code", "cursor")


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


def install(call: Call) -> None:
    """Write a host application's entry, or print it."""
    from pathlib import Path

    from memdb import InvalidArgument
    from memdb.server.mcp import install as hosts

    host = hosts.HOSTS[call.args.host]
    name = call.args.as_ or host.name
    added = hosts.entry(host, Path(call.path), name)
    if call.args.print:
        _print(call, host, added)
        return
    need_sdk()
    try:
        done = hosts.install(host, added)
    except InvalidArgument:
        _print(call, host, added)  # what to add by hand; the error says why
        raise
    if call.out.as_json:
        call.out.json(done)
        return
    call.out.line(f"{done.path}: {'memdb is in it' if done.changed else 'memdb was in it already'}")
    if done.backup is not None:
        call.out.note(f"what it was is in {done.backup}")
    call.out.note(f"restart {host.name} to use it")


def _print(call: Call, host: Host, added: dict[str, object]) -> None:
    from memdb.server.mcp import install as hosts

    if call.out.as_json:
        call.out.json({"path": str(host.place()), host.servers: {hosts.NAME: added}})
    else:
        call.out.note(f"for {host.place()}:")
        call.out.line(hosts.snippet(host, added))


AS = Option("as_", "with the grant of this token", metavar="NAME", own=True)

COMMANDS: tuple[Command, ...] = (
    Command(
        "mcp",
        "serve an agent over MCP on standard input and output",
        mcp,
        None,
        (
            AS,
            Option("surface", "memory (default), or search and fetch as chatgpt calls them",
                   choices=SURFACES, own=True),
        ),
        ("mcp --as claude-desktop", "mcp --surface chatgpt"),
    ),
    Command(
        "mcp install",
        "tell a host application to start memdb mcp, with a token of its own",
        install,
        None,
        (
            Option("host", "which application", place="one", choices=HOSTS, own=True),
            AS,
            Option("print", "print the entry and change nothing", kind="flag", own=True),
        ),
        ("mcp install claude-desktop", "mcp install vscode --print"),
        opens="nothing",
        details=" Everything else in its file stays; a copy of what it was is left beside it.",
    ),
)  # fmt: skip
