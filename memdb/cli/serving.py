"""Commands that serve: the database over HTTP and MCP, for every agent on this device."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from memdb.cli.calls import Call
from memdb.cli.spec import Command, Option

if TYPE_CHECKING:
    from memdb import Database
    from memdb.server.host import Host


def serve(call: Call) -> None:
    """Serve until interrupted."""
    args = call.args
    given = {"host": args.host or None, "port": args.port}
    host = hosted(
        call,
        "serve",
        **{name: value for name, value in given.items() if value is not None},
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        expose=args.expose,
        names=tuple(args.allow_host or ()),
        roots=tuple(args.root or ()),
    )
    host.run(lambda: _say(call, host.url, str(host.token_file)))


def hosted(call: Call, command: str, **options: Any) -> Host:
    """A server over the command's database, which it closes when it stops.

    Raises ``MissingDependency`` without the extra, and what options and opening raise.
    """
    import memdb
    from memdb.server.starting import collecting_later

    with collecting_later(), ExitStack() as undone:
        try:
            from memdb.server.host import Host, ServeOptions

            checked = ServeOptions(**options).checked()
            db: Database = call.open()
            undone.callback(db.close)
            host = Host(db, checked)
        except ImportError as error:
            raise memdb.MissingDependency(
                f"memdb {command} needs {error.name or 'its server'}", extra="server"
            ) from error
        undone.pop_all()
        return host


def _say(call: Call, url: str, token_file: str) -> None:
    """Where it is, and how to come in."""
    out = call.out
    if out.as_json:
        out.json({"url": url, "pid": os.getpid(), "token_file": token_file})
    else:
        out.line(f"{out.style(call.path, 'bold')} is served on {out.style(url, 'bold')}")
        out.line(f"the owner's token, while it runs, is in {token_file}:")
        out.line(f'  curl -s -H "Authorization: Bearer $(cat {token_file})" {url}/v1/stats')
        out.note("a token for an agent: memdb token create NAME    to stop: Ctrl+C")
    out.stream.flush()


SERVE = Command(
    "serve",
    "serve the database over HTTP and MCP to the agents of this device",
    serve,
    None,
    (
        Option("port", "the port (default: 8377; 0: any that is free)", kind="integer", own=True),
        Option("host", "the address to listen on (default: 127.0.0.1, this device alone)",
               own=True),
        Option("expose", "let other devices in; needs TLS", kind="flag", own=True),
        Option("tls_cert", "the certificate, a PEM file", own=True, metavar="FILE"),
        Option("tls_key", "its private key, a PEM file", own=True, metavar="FILE"),
        Option("allow_host", "a further name that it may be called by; may be repeated",
               kind="list", own=True, metavar="NAME"),
        Option("root", "a folder that clients may have synced; may be repeated", kind="list",
               own=True, metavar="DIR"),
    ),
    (
        "serve",
        "serve --port 9000 --root ~/notes",
        "serve --host 192.168.1.20 --expose --tls-cert cert.pem --tls-key key.pem",
    ),
    details=" It stops at Ctrl+C or SIGTERM, after what it is doing.",
)  # fmt: skip

COMMANDS = (SERVE,)
