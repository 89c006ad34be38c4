"""What every command does with its arguments: standard input, keyword arguments, one context.

Knows the table's descriptions and how to open a database; no single command.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memdb.cli.output import Output
from memdb.cli.spec import Command, selected

if TYPE_CHECKING:
    from memdb import Database

DEFAULT_PATH = "~/.memdb"
SOURCE = "cli"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: what was typed, and where the result goes."""

    command: Command
    args: Namespace
    out: Output

    @property
    def path(self) -> str:
        """The directory of the database."""
        given = getattr(self.args, "db", None) or os.environ.get("MEMDB_PATH") or DEFAULT_PATH
        return os.path.expanduser(given)

    def open(self, source: str = SOURCE) -> Database:
        """The database the command is for; made if need be by commands that write into it."""
        import memdb

        options: dict[str, Any] = {"source": source, "create": self.command.opens == "create"}
        own = {option.parameter for option in self.command.options}  # reembed's is not what is open
        for name in {"namespace", "embedder"} - own:
            if getattr(self.args, name, None) is not None:
                options[name] = getattr(self.args, name)
        if self.command.opens == "read" and not os.access(self.path, os.W_OK):
            options["readonly"] = True
        return memdb.open(self.path, **options)

    def arguments(self, *without: str) -> dict[str, Any]:
        """Keyword arguments of the Python call: what was given, and what the selector means."""
        found: dict[str, Any] = {}
        values = vars(self.args)
        own = {option.parameter: values[option.parameter] for option in self.command.options
               if option.own}  # fmt: skip
        for option in self.command.options:
            value = values[option.parameter]
            if option.own or option.parameter in without or value is None:
                continue
            if option.kind == "flag" and not value:
                continue
            found[option.parameter] = value
        if any(option.parameter == "where" for option in self.command.options):
            where = selected({**own, "where": found.pop("where", None)})
            if where is not None:
                found["where"] = where
        return found

    def text(self, value: str) -> str:
        """``value``, or standard input where it is "-"."""
        return read_stdin() if value == "-" else value


def read_stdin() -> str:
    """All of standard input as UTF-8, without the last line break."""
    text = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
    decoded = text.decode("utf-8-sig", errors="strict")
    return decoded.removesuffix("\n").removesuffix("\r")


Handler = Callable[["Call", Any], "int | None"]


def with_database(handler: Handler) -> Callable[[Call], int | None]:
    """A handler that is given the open database, which is closed when it returns."""

    def run(call: Call) -> int | None:
        with call.open() as db:
            call.out.zone = db.settings.time_zone
            return handler(call, db)

    run.__doc__ = handler.__doc__
    run.__name__ = getattr(handler, "__name__", "run")
    return run


def with_server_or_database(handler: Handler) -> Callable[[Call], int | None]:
    """A handler that is given a client of the running server, which has its model loaded already;
    the open database where there is none, with ``--no-server``, or where a model is chosen."""
    direct = with_database(handler)

    def run(call: Call) -> int | None:
        args = call.args
        if args.no_server or getattr(args, "embedder", None) is not None:
            return direct(call)
        from memdb.cli.running import client_of

        client = client_of(call.path, getattr(args, "namespace", None))
        if client is None:
            return direct(call)
        with client:
            call.out.zone = client.zone
            return handler(call, client)

    run.__doc__ = handler.__doc__
    run.__name__ = getattr(handler, "__name__", "run")
    return run
