"""Commands of the three faces: facts (profile), what happened (history) and files (sync)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from memdb.cli import terminal
from memdb.cli.calls import Call, with_database
from memdb.cli.output import counted, plain, words_of
from memdb.cli.spec import SELECTOR, Command, Option

if TYPE_CHECKING:
    from memdb import Database, SyncReport

WATCH_POLL_S = 0.5


# --- profile ----------------------------------------------------------------------------


@with_database
def profile_set(call: Call, db: Database) -> None:
    """Set a fact; the old value stays, closed."""
    fields = call.arguments()
    fields["value"] = _value(call)
    written = db.profile.set(**fields)
    if call.out.as_json:
        call.out.json(written)
    else:
        call.out.line(f"{call.out.style(written.id, 'bold')}  {written.status}")


def _value(call: Call) -> Any:
    from memdb import InvalidArgument

    typed, as_data = call.args.value, call.args.data
    if (typed is None) == (as_data is None):
        raise InvalidArgument(
            "one of VALUE and --data is needed",
            field="value",
            hint="memdb profile set KEY VALUE, or KEY --data JSON",
        )
    return call.text(typed) if typed is not None else as_data


@with_database
def profile_get(call: Call, db: Database) -> None:
    """Print the value of a fact."""
    from memdb import NotFound

    fields = call.arguments()
    missing = object()
    value = db.profile.get(**fields, default=missing)
    if value is missing:
        raise NotFound(
            f"{call.args.subject or 'user'} has no {call.args.key} {_then(call)}".strip(),
            hint="memdb profile items lists what there is",
        )
    if call.out.as_json:
        subject = call.args.subject or "user"
        call.out.json({"subject": subject, "key": call.args.key, "value": value})
    else:
        call.out.line(_spoken(value))


def _then(call: Call) -> str:
    return "" if call.args.as_of is None else f"as of {call.args.as_of}"


def _spoken(value: Any) -> str:
    if isinstance(value, str):
        return terminal.printable_lines(value)
    import json

    return json.dumps(plain(value), ensure_ascii=False)


@with_database
def profile_versions(call: Call, db: Database) -> None:
    """Print every value a fact has had."""
    versions = db.profile.versions(**call.arguments())
    if call.out.as_json:
        call.out.json({"versions": versions})
        return
    rows = [
        (call.out.day(fact.valid_from), call.out.day(fact.valid_to), _of(fact), fact.source)
        for fact in versions
    ]
    call.out.table(("from", "to", "value", "source"), rows)


def _of(fact: Any) -> str:
    return words_of(fact) if fact.data is None else _spoken(fact.data)


@with_database
def profile_items(call: Call, db: Database) -> None:
    """Print what is true now."""
    fields: dict[str, Any] = call.arguments()
    if call.args.all:
        fields["subject"] = None
    items = db.profile.items(**fields)
    if call.out.as_json:
        call.out.json(items)
    elif items:
        call.out.fields((name, value) for name, value in items.items())
    else:
        call.out.note("nothing is known")


@with_database
def profile_delete(call: Call, db: Database) -> None:
    """End a fact now; its history stays."""
    memory = db.profile.delete(**call.arguments())
    if call.out.as_json:
        call.out.json(memory)
    else:
        call.out.line(f"{call.args.key} has no value from now on; its history is kept")


# --- history ----------------------------------------------------------------------------


@with_database
def history_append(call: Call, db: Database) -> None:
    """Write something that happened."""
    fields = call.arguments()
    if "text" in fields:
        fields["text"] = call.text(fields["text"])
    written = db.history.append(**fields)
    if call.out.as_json:
        call.out.json(written)
    else:
        call.out.line(f"{call.out.style(written.id, 'bold')}  {written.status}")


@with_database
def history_range(call: Call, db: Database) -> None:
    """Print what happened in a span of time."""
    found = db.history.range(**call.arguments())
    if call.out.as_json:
        call.out.json({"items": list(found)})
        return
    count = 0
    for memory in found:
        count += 1
        when = call.out.style(call.out.moment_of(memory), "dim")
        text = terminal.printable(words_of(memory))
        stream = f"[{terminal.printable(memory.stream)}] " if memory.stream else ""
        call.out.line(f"{when}  {terminal.fit(stream + text, call.out.columns - 18)}")
    if not count:
        call.out.note("nothing happened then")


# --- files ------------------------------------------------------------------------------


@with_database
def sync(call: Call, db: Database) -> None:
    """Bring a folder's files in step with the database, once or for as long as it runs."""
    report = db.files.sync(**call.arguments(), progress=True)
    _show(call, report)
    if call.args.watch:
        _watch(call, db)


def _watch(call: Call, db: Database) -> None:
    """Follow the folder until Ctrl-C, and print what each sync changed."""

    def show_changes(report: SyncReport) -> None:
        if _changes(report):
            _show(call, report)
            call.out.stream.flush()

    call.out.stream.flush()
    print("memdb: watching; stop with Ctrl-C", file=sys.stderr)
    fields = call.arguments("allow_empty")
    with db.files.watch(**fields, interval=call.args.interval, on_sync=show_changes) as watcher:
        told = None
        while True:
            time.sleep(WATCH_POLL_S)
            if watcher.last_error is not told:
                told = watcher.last_error
                if told is not None:
                    print(f"memdb: {terminal.printable(told.message)}", file=sys.stderr)


def _changes(report: SyncReport) -> int:
    return len(report.added) + len(report.updated) + len(report.moved) + len(report.removed)


def _show(call: Call, report: SyncReport) -> None:
    if call.out.as_json:
        call.out.json(report)
        return
    for verb, paths in (
        ("added", report.added),
        ("updated", report.updated),
        ("moved", [f"{before} -> {after}" for before, after in report.moved]),
        ("removed", report.removed),
    ):
        for path in paths:
            call.out.line(f"{call.out.style(f'{verb:8}', 'green')}{terminal.printable(path)}")
    for file in report.skipped:
        reason = terminal.printable(f"{file.path}: {file.reason}")
        call.out.line(f"{call.out.style(f'{file.state:8}', 'yellow')}{reason}")
    call.out.note(
        f"{counted(_changes(report), 'change')}, {counted(report.unchanged, 'file')} unchanged"
    )


KEY = Option("key", "name of the fact, such as address", place="one")
SUBJECT = Option("subject", "whose fact it is (default: user, the person whose memory it is)")
KIND = Option("kind", "what sort of thing happened, such as message", place="one")

COMMANDS = (
    Command(
        "profile set",
        "set a fact; the value before stays in its history",
        profile_set,
        "profile.set",
        (
            KEY,
            Option("value", "the value; - reads it from standard input", place="maybe"),
            Option("data", "a value that is not text, as JSON", kind="json", own=True),
            SUBJECT,
            Option("valid_from", "since when it is true (default: now)", kind="time"),
            Option("valid_to", "until when it was true", kind="time"),
            Option("source", "who said so (default: cli)"),
        ),
        (
            'profile set address "12 Elm Street" --valid-from 2024-05-01',
            'profile set allergy "hazelnuts" --subject Ana --source app:doctor',
            "profile set shoe_size --data 39",
        ),
    ),
    Command(
        "profile get",
        "print the value of a fact, now or at a time",
        profile_get,
        "profile.get",
        (KEY, SUBJECT, Option("as_of", "the value that was true then", kind="time")),
        ("profile get address", "profile get address --as-of 2023-01-01"),
        opens="read",
    ),
    Command(
        "profile versions",
        "list every value a fact has had, oldest first",
        profile_versions,
        "profile.versions",
        (KEY, SUBJECT),
        ("profile versions address", "profile versions allergy --subject Ana --json"),
        opens="read",
    ),
    Command(
        "profile items",
        "list the facts that are true now",
        profile_items,
        "profile.items",
        (SUBJECT, Option("all", "of every subject", kind="flag", own=True)),
        ("profile items", "profile items --subject Ana", "profile items --all --json"),
        opens="read",
    ),
    Command(
        "profile delete",
        "end a fact now; its history stays",
        profile_delete,
        "profile.delete",
        (KEY, SUBJECT),
        ("profile delete nickname",),
        opens="change",
    ),
    Command(
        "history append",
        "write something that happened",
        history_append,
        "history.append",
        (
            KIND,
            Option("text", "what was said or done; - reads it from standard input", place="maybe"),
            Option("data", "any JSON value, such as a reading", kind="json"),
            Option("event_time", "when (default: now)", kind="time", names=("--at",)),
            Option("stream", "the conversation, calendar or sensor it belongs to"),
            Option("source", "who said so (default: cli)"),
        ),
        (
            'history append message "Running late" --stream chat/family --at 2024-05-02T07:35',
            """history append heart_rate --data '{"bpm": 61}' --stream watch""",
        ),
    ),
    Command(
        "history range",
        "print what happened in a span of time",
        history_range,
        "history.range",
        (
            KIND,
            Option("start", "from this time on", kind="time", place="maybe"),
            Option("end", "before this time", kind="time", place="maybe"),
            Option("stream", "only this conversation, calendar or sensor"),
            Option("limit", "at most so many", kind="integer"),
            Option("reverse", "latest first", kind="flag"),
            *(option for option in SELECTOR if option.parameter not in ("kind", "since", "before")),
        ),
        (
            "history range message 2024-05-01 2024-05-03 --stream chat/family",
            "history range event 2024-06 --limit 5",
        ),
        opens="read",
    ),
    Command(
        "sync",
        "read a folder's Markdown and text files, and follow what changed since",
        sync,
        "files.sync",
        (
            Option("path", "the folder", place="one"),
            Option("include", "only files that match, such as '*.md'; may be repeated",
                   kind="list", metavar="GLOB"),
            Option("exclude", "no files that match; may be repeated", kind="list", metavar="GLOB"),
            Option("allow_empty", "forget everything when the folder is empty now", kind="flag"),
            Option("watch", "go on following the folder until Ctrl-C", kind="flag", own=True),
            Option("interval", "seconds between two looks when watching (default: 2)",
                   kind="number", default=2.0, own=True),
        ),
        ("sync ~/notes", "sync ~/notes --exclude 'drafts/*' --watch"),
    ),
)  # fmt: skip
