"""Commands that keep house: config, stats, check, compact, copies, models, spaces."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.cli.calls import Call, with_database
from memdb.cli.output import counted, plain
from memdb.cli.spec import SELECTOR, Command, Option
from memdb.cli.terminal import working

if TYPE_CHECKING:
    from memdb import Database

STDIO = "-"


@with_database
def config(call: Call, db: Database) -> None:
    """Print the stored settings, or one of them, or change one."""
    from memdb import InvalidArgument

    name, value = call.args.name, call.args.value
    settings = db.settings.to_dict()
    if name is not None and name not in settings:
        raise InvalidArgument(
            f"there is no setting {name!s:.64}",
            field="name",
            hint="the settings are: " + ", ".join(sorted(settings)),
        )
    if value is not None:
        setattr(db.settings, name, None if value == "none" else _typed(value))
        settings = db.settings.to_dict()
    shown = settings if name is None else {name: settings[name]}
    if call.out.as_json:
        call.out.json(shown)
    elif name is not None and value is None:
        call.out.line(str(plain(shown[name])) if shown[name] is not None else "-")
    else:
        call.out.fields(shown.items())


def _typed(text: str) -> Any:
    """JSON where it is one (numbers, lists), else the text itself (Europe/London, 200MB)."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@with_database
def stats(call: Call, db: Database) -> None:
    """Print what is stored and what it costs."""
    found = db.stats()
    if call.out.as_json:
        call.out.json(found)
    else:
        call.out.fields(found.items())


@with_database
def check(call: Call, db: Database) -> int:
    """Verify the database; exit status 1 when something is wrong."""
    with working("checking"):
        found = db.check(**call.arguments())
    sound = bool(found["ok"])
    if call.out.as_json:
        call.out.json(found)
    else:
        verdict = call.out.style("sound", "green") if sound else call.out.style("damaged", "red")
        call.out.line(verdict)
        call.out.fields((name, value) for name, value in found.items() if name != "ok")
    return 0 if sound else 1


@with_database
def compact(call: Call, db: Database) -> None:
    """Rewrite the store without free pages or dead bytes."""
    with working("compacting"):
        found = db.compact()
    if call.out.as_json:
        call.out.json(found)
    else:
        call.out.fields(found.items())


@with_database
def snapshot(call: Call, db: Database) -> None:
    """Write a consistent copy that opens like any other database."""
    with working("copying"):
        path = db.snapshot(call.args.path)
    if call.out.as_json:
        call.out.json({"path": str(path)})
    else:
        call.out.line(str(path))


@with_database
def export(call: Call, db: Database) -> None:
    """Write memories with every field to a file, or to standard output."""
    fields = call.arguments("path")
    to_stdout = call.args.path == STDIO
    with tempfile.TemporaryDirectory(prefix="memdb-export-") as folder:
        path = Path(folder, "memories") if to_stdout else Path(call.args.path)
        count = db.export(path, **fields, progress=True)
        if to_stdout:
            with path.open(encoding="utf-8") as written:
                shutil.copyfileobj(written, call.out.stream)
            return
    if call.out.as_json:
        call.out.json({"path": call.args.path, "exported": count})
    else:
        call.out.line(f"exported {counted(count, 'memory', 'memories')}")


@with_database
def import_(call: Call, db: Database) -> None:
    """Read what export wrote; what is stored already is left alone."""
    with tempfile.TemporaryDirectory(prefix="memdb-import-") as folder:
        path = Path(call.args.path)
        if call.args.path == STDIO:
            path = Path(folder, "memories.jsonl")
            with path.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        count = db.import_(path, progress=True)
    if call.out.as_json:
        call.out.json({"path": call.args.path, "imported": count})
    else:
        call.out.line(f"imported {counted(count, 'new memory', 'new memories')}")


@with_database
def spaces_list(call: Call, db: Database) -> None:
    """List the embedding spaces."""
    found = [plain(space) for space in db.spaces.list()]
    if call.out.as_json:
        call.out.json({"spaces": found})
        return
    names = ("name", "dim", "metric", "profile", "embedder", "vectors", "replaces")
    rows = [tuple(_cell(space.get(name)) for name in names) for space in found]
    call.out.table(names, rows)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


@with_database
def spaces_create(call: Call, db: Database) -> None:
    """Make a space for vectors of your own."""
    space = db.spaces.create(**call.arguments())
    if call.out.as_json:
        call.out.json(space)
    else:
        call.out.line(f"made space {call.args.name}")


@with_database
def spaces_convert(call: Call, db: Database) -> None:
    """Keep the vectors of a space more coarsely from now on."""
    space = db.spaces.convert(call.args.name, call.args.profile, progress=True)
    if call.out.as_json:
        call.out.json(space)
    else:
        count = counted(space.vectors, "vector")
        call.out.line(f"space {space.name} keeps its {count} at profile {space.profile}")


@with_database
def spaces_drop(call: Call, db: Database) -> None:
    """Delete a space and its vectors; the memories stay."""
    space = db.spaces.drop(**call.arguments())
    if call.out.as_json:
        call.out.json(space)
    else:
        count = counted(space.vectors, "vector")
        call.out.line(f"dropped space {call.args.name} with {count}; its memories stay")


@with_database
def reembed(call: Call, db: Database) -> None:
    """Embed all texts again with another model; waits, and goes on where it was cut off."""
    done = db.reembed(**call.arguments(), progress=True)
    if call.out.as_json:
        call.out.json(done)
        return
    if done.state == "running":
        call.out.line(f"{done.embedder} has embedded {done.done} of {counted(done.total, 'text')}")
        return
    call.out.line(f"{done.embedder} embeds {counted(done.total, 'text')}")
    if done.kept:
        count = counted(done.kept, "vector")
        call.out.line(f"space {done.space} keeps {count} of memories without text")


NAME = Option("name", "name of the space", place="one")

COMMANDS = (
    Command(
        "config",
        "print or change the settings stored in the database",
        config,
        None,
        (
            Option("name", "one setting", place="maybe", own=True),
            Option("value", "its new value; none unsets it", place="maybe", own=True),
        ),
        ("config", "config time_zone Europe/London", "config disk_budget 200MB"),
        opens="change",
    ),
    Command(
        "stats",
        "print what is stored and what it costs in bytes",
        stats,
        "stats",
        examples=("stats", "stats --json"),
        opens="read",
    ),
    Command(
        "check",
        "verify every checksum and that all structures agree",
        check,
        "check",
        (Option("repair", "rebuild derived data that is damaged", kind="flag"),),
        ("check", "check --repair"),
        opens="change",
        details=" The exit status is 1 when something is wrong.",
    ),
    Command(
        "compact",
        "rewrite the store without free pages or dead bytes",
        compact,
        "compact",
        examples=("compact",),
        opens="change",
    ),
    Command(
        "snapshot",
        "write a consistent copy, which opens like any other database",
        snapshot,
        "snapshot",
        (Option("path", "a new directory", place="one"),),
        ("snapshot ~/backup/memdb-2024-12-31",),
        opens="change",
    ),
    Command(
        "export",
        "write memories with every field to a file",
        export,
        "export",
        (
            Option("path", "the file; - is standard output", place="one"),
            Option("format", "how to write it (default: jsonl)", choices=("jsonl", "parquet")),
            *SELECTOR,
        ),
        ("export life.jsonl", "export - --tag health | grep Ana"),
        opens="read",
    ),
    Command(
        "import",
        "read what export wrote; what is stored already is left alone",
        import_,
        "import_",
        (Option("path", "the file; - is standard input", place="one"),),
        ("import life.jsonl",),
    ),
    Command(
        "reembed",
        "embed all texts again with another model",
        reembed,
        "reembed",
        (
            Option(
                "embedder",
                "static, st:NAME, st:/path or openai:URL#MODEL (default: go on with what is under "
                "way, or embed what has no vector)",
                place="maybe",
            ),
            Option(
                "wait",
                "return when it is done, or at once and leave it to who has the database open",
                kind="switch",
                default=True,
            ),
        ),
        ("reembed st:all-MiniLM-L6-v2", "reembed"),
        opens="change",
        details=(
            " The present model answers until the new one has embedded everything. Cut off, it"
            " goes on wherever the database is open; naming the present model gives it up."
        ),
    ),
    Command(
        "spaces list",
        "list the embedding spaces",
        spaces_list,
        "spaces.list",
        examples=("spaces list",),
        opens="read",
    ),
    Command(
        "spaces create",
        "make a space for vectors of your own",
        spaces_create,
        "spaces.create",
        (
            NAME,
            Option("dim", "numbers in a vector", kind="integer"),
            Option("metric", "how to compare (default: cosine)", choices=("cosine", "ip", "l2")),
            Option("profile", "how precisely vectors are kept (default: standard)"),
        ),
        ("spaces create photos --dim 512 --metric cosine",),
    ),
    Command(
        "spaces convert",
        "keep the vectors of a space at a smaller profile",
        spaces_convert,
        "spaces.convert",
        (
            NAME,
            Option(
                "profile",
                "exact, standard, compact, nano or pico: never one that keeps more",
                place="one",
            ),
        ),
        ("spaces convert photos compact",),
        opens="change",
    ),
    Command(
        "spaces drop",
        "delete a space and its vectors; its memories stay",
        spaces_drop,
        "spaces.drop",
        (NAME,),
        ("spaces drop photos",),
        opens="change",
    ),
)
