"""How a command is described: one table from which parser, help, completion and tests are made.

An option is named after the Python parameter it fills (``event_time`` is ``--event-time``), and may
have shorter names beside it. Options that fill no parameter say so with ``own``. This file holds
descriptions only; it imports neither argparse nor the database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "integer", "number", "json", "flag", "switch", "list", "time"]
# "create" makes a database where there is none; "change" and "read" do not, and "read" makes do
# with a directory that cannot be written.
Opens = Literal["nothing", "read", "change", "create"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option or positional argument of a command.

    ``parameter`` is the name of the Python parameter it fills and of the attribute that holds it.
    ``place`` "one", "maybe" and "many" make it positional.
    """

    parameter: str
    help: str
    kind: Kind = "text"
    names: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    default: Any = None
    place: Literal["option", "one", "maybe", "many"] = "option"
    own: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """The names on the command line, shortest habit first; empty for a positional."""
        if self.place != "option":
            return ()
        word = self.parameter.rstrip("_").replace("_", "-")
        derived = f"-{word}" if len(word) == 1 else f"--{word}"
        return (*self.names, *([] if derived in self.names else [derived]))

    @property
    def shown(self) -> str:
        """What stands for its value in help."""
        by_kind = {"integer": "N", "number": "X", "json": "JSON", "time": "TIME"}
        return self.metavar or by_kind.get(self.kind) or self.parameter.rstrip("_").upper()


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words, what it calls, its options and examples.

    ``call`` is the dotted name below an open database (``profile.set``) whose parameters the
    options fill; None where a command is the command line's own.
    """

    name: str
    summary: str
    run: Callable[..., int | None]
    call: str | None
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()
    opens: Opens = "create"
    details: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.name.split())


# First words of commands that have two.
GROUPS = {
    "profile": "facts about a person: key and value, with their history",
    "history": "what happened, in order of time",
    "retention": "what to forget, and why: plans, and the disk budget",
    "token": "who may act on the database: capability tokens",
    "spaces": "embedding spaces: one for each model or kind of vector",
}

COMMON = (
    Option("db", "directory of the database (default: $MEMDB_PATH, else ~/.memdb)", own=True,
           metavar="PATH"),
    Option("namespace", "namespace to write to and read from, such as home/planner"),
    Option("embedder", "embedding model (default: the recorded one; static for a new database)"),
    Option("json", "print JSON for machines", kind="flag", own=True),
)  # fmt: skip

# What selects memories. ``selected`` turns them into the ``where`` of the Python interface.
SELECTOR = (
    Option("tag", "has this tag; several: all of them", kind="list", own=True, metavar="TAG"),
    Option("kind", "is of this kind; several: any of them", kind="list", own=True, metavar="KIND"),
    Option("source", "comes from this source; a trailing * matches what follows", own=True),
    Option("about", "concerns this person or thing", own=True, metavar="NAME"),
    Option("since", "happened at this time or later", kind="time", own=True),
    Option("before", "happened before this time", kind="time", own=True),
    Option("where", "any other filter, as JSON", kind="json"),
)  # fmt: skip
BY_ID = Option("ids", "this memory; may be repeated", kind="list", names=("--id",), metavar="ID")
# Forget and report take ids and a name as parameters of their own; a name reaches facts as well.
BY_NAME = Option("about", "concerns this person or thing, or is a fact of theirs", metavar="NAME")
SELECTOR_TO_ACT_ON = (
    BY_ID,
    BY_NAME,
    *(option for option in SELECTOR if option.parameter != "about"),
)


def selected(values: dict[str, Any]) -> dict[str, Any] | None:
    """The ``where`` that the selector's values mean together; None when none was given."""
    conditions: list[dict[str, Any]] = []
    if values.get("tag"):
        conditions.append({"tags": {"$all": values["tag"]}})
    kinds = values.get("kind") or []
    if kinds:
        conditions.append({"kind": kinds[0] if len(kinds) == 1 else {"$in": kinds}})
    source = values.get("source")
    if source:
        open_ended = source.endswith("*")
        conditions.append({"source": {"$prefix": source[:-1]} if open_ended else source})
    if values.get("about"):
        conditions.append({"about": values["about"]})
    span = {
        operator: values[name]
        for name, operator in (("since", "$gte"), ("before", "$lt"))
        if values.get(name)
    }
    if span:
        conditions.append({"event_time": span})
    if values.get("where") is not None:
        conditions.append(values["where"])
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else {"$and": conditions}
