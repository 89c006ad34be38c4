"""Commands of the Model Context Protocol: serve a host application, and write its entry."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from memdb.cli import running
from memdb.cli.calls import Call
from memdb.cli.memories import NO_SERVER
from memdb.cli.spec import Command, Option

if TYPE_CHECKING:
    from memdb.server.mcp.install import Host

NAMELESS = "agent:mcp"  # the source of what is written without a token
SURFACES = ("memory", "chatgpt")
# A host's agent keeps house in its own namespace, which has the token's name.
INSTALLED = ("read", "add", "update", "forget", "feedback")
HOSTS = ("claude-desktop", "vscode", "claude-code", "cursor")


def mcp(call: Call) -> None:
    """Serve MCP on standard input and output."""
    need_sdk()
    from memdb.server.mcp import stdio

    args = call.args
    # A model that was chosen is another than the server's.
    alone = args.no_server or getattr(args, "embedder", None) is not None
    with call.open(NAMELESS) as db:
        stdio.serve(
            db,
            args.as_,
            purpose=args.purpose,
            surface=args.surface or SURFACES[0],
            found=None if alone else lambda: running.found(call.path),
        )


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
    _need_token(call, name)
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


def _need_token(call: Call, name: str) -> None:
    """A token of that name; made if there is none. All it sees and changes is what it adds."""
    import memdb

    with memdb.open(call.path, source="cli") as db:
        now = datetime.now(UTC)
        for token in db.tokens.list():
            over = token.revoked_at or (token.expires_at is not None and token.expires_at <= now)
            if token.name == name and not over:
                return
        db.tokens.create(name, memdb.Grant(INSTALLED))
    if call.out.as_json:
        return
    call.out.note(
        f"made the token {name}: it sees and changes what it adds itself, and nothing else; "
        "for another grant, make the token first (memdb token create)"
    )


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
            Option("purpose", "why it asks, for the audit and for grants that want it", own=True),
            Option("surface", "memory (default), or search and fetch as chatgpt calls them",
                   choices=SURFACES, own=True),
            NO_SERVER,
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
