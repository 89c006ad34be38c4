"""Commands that write, find and hide memories: remember, recall, context, list, get, forget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from memdb.cli import terminal
from memdb.cli.calls import Call, with_database, with_server_or_database
from memdb.cli.output import counted, words_of
from memdb.cli.spec import BY_ID, SELECTOR, SELECTOR_TO_ACT_ON, Command, Option

if TYPE_CHECKING:
    from memdb import Database


@with_server_or_database
def remember(call: Call, db: Any) -> None:
    """Write one memory."""
    fields = call.arguments()
    if "text" in fields:
        fields["text"] = call.text(fields["text"])
    written = db.remember(**fields)
    if call.out.as_json:
        call.out.json(written)
    else:
        call.out.line(f"{call.out.style(written.id, 'bold')}  {written.status}")


@with_server_or_database
def recall(call: Call, db: Any) -> None:
    """Ask, and print what was found, best first."""
    fields = call.arguments()
    fields["query"] = call.text(fields["query"])
    hits = db.recall(**fields)
    if call.out.as_json:
        rows = hits.to_dicts()
        if call.args.explain:
            rows = [{**row, "why": hit.why} for row, hit in zip(rows, hits, strict=True)]
        found: dict[str, Any] = {
            "search_id": hits.search_id,
            "degraded": hits.degraded,
            "confidence": hits.confidence,
            "hits": rows,
        }
        if call.args.explain:
            found["plan"] = hits.plan
        call.out.json(found)
        return
    for rank, hit in enumerate(hits, 1):
        call.out.hit(rank, hit, explain=call.args.explain)
    if not hits:
        call.out.note("nothing found")
    if call.args.explain and hits.plan:
        call.out.line()
        call.out.fields([("plan", hits.plan)])
    if hits.degraded:
        print(f"memdb: {hits.degraded}", file=sys.stderr)


@with_server_or_database
def context(call: Call, db: Any) -> None:
    """Pack what a question needs into a number of tokens."""
    fields = call.arguments("query")
    pack = db.context(call.text(call.args.query), **fields)
    if call.out.as_json:
        call.out.json(
            {
                "text": pack.text,
                "items": pack.items,
                "dropped": pack.dropped,
                "tokens": pack.tokens,
                "counter": pack.counter,
            }
        )
    else:
        call.out.line(terminal.printable_lines(pack.text))


@with_database
def list_(call: Call, db: Database) -> None:
    """Print one page of memories, or what is in the trash."""
    if call.args.trash:
        _list_trash(call, db)
        return
    page = db.list(**call.arguments())
    if call.out.as_json:
        call.out.json({"items": page.to_dicts(), "next_cursor": page.next_cursor})
        return
    call.out.memories(page)
    if page.next_cursor:
        call.out.note(f"more: --cursor {page.next_cursor}")


def _list_trash(call: Call, db: Database) -> None:
    from memdb import InvalidArgument

    if call.arguments():
        raise InvalidArgument("--trash lists all of the trash", field="trash",
                              hint="memdb list --trash, with no other option")  # fmt: skip
    batches = db.trash()
    if call.out.as_json:
        call.out.json({"batches": batches})
        return
    for batch in batches:
        how = "expired" if batch.expired else "forgotten"
        call.out.line(f"{call.out.style(batch.batch, 'bold')}  {how} "
                      f"{call.out.day(batch.forgotten_at)}, to be restored until "
                      f"{call.out.day(batch.restorable_until)}")  # fmt: skip
        call.out.memories(batch.items)
    if batches:
        call.out.note("bring a batch back: memdb restore --batch BATCH; one memory: --id ID")
    else:
        call.out.note("the trash is empty")


@with_database
def get(call: Call, db: Database) -> None:
    """Print one memory, or all its versions."""
    from memdb import NotFound

    fields = call.arguments()
    if call.args.id is None and call.args.external_id is None:
        from memdb import InvalidArgument

        raise InvalidArgument("an id is needed", field="id", hint="memdb get ID, or --external-id")
    memory = db.get(**fields)
    if memory is None:
        raise NotFound("no memory has that id")
    if call.args.versions:
        versions = db.versions(memory.id)
        if call.out.as_json:
            call.out.json({"versions": versions})
        else:
            rows = [(str(v.version), call.out.day(v.recorded_at), words_of(v)) for v in versions]
            call.out.table(("version", "recorded", "text"), rows)
    elif call.out.as_json:
        call.out.json(memory)
    else:
        call.out.fields(_filled(call, memory))


def _filled(call: Call, memory: Any) -> list[tuple[str, Any]]:
    """The fields of a memory that say something, text first."""
    fields = memory.to_dict()
    empty: tuple[Any, ...] = (None, (), {}, False)
    order = ["text", "data", "kind", "event_time", "source"]
    names = [*order, *(name for name in fields if name not in order)]
    filled = [(name, fields[name]) for name in names if fields[name] not in empty]
    return [
        (name, call.out.moment_of(memory) if name == "event_time" else value)
        for name, value in filled
        if not (name == "use_count" and value == 0)
    ]


@with_database
def forget(call: Call, db: Database) -> None:
    """Hide memories; they can be restored for seven days."""
    forgotten = db.forget(**call.arguments())
    if call.out.as_json:
        call.out.json(forgotten)
    elif not forgotten.ids:
        call.out.note("nothing matches; nothing was forgotten")
    else:
        call.out.line(f"forgot {counted(len(forgotten.ids), 'memory', 'memories')}")
        call.out.note(f"for seven days: memdb restore --batch {forgotten.batch}")


@with_database
def restore(call: Call, db: Database) -> None:
    """Bring forgotten memories back."""
    ids = db.restore(**call.arguments())
    if call.out.as_json:
        call.out.json({"ids": ids})
    else:
        call.out.line(f"restored {counted(len(ids), 'memory', 'memories')}")


NO_SERVER = Option("no_server", "open the database itself, though a server runs for it",
                   kind="flag", own=True)  # fmt: skip
QUESTION = Option("query", "the question; - reads it from standard input", place="one")
K = Option("k", "how many memories (default: 10)", kind="integer")
AS_OF = Option("as_of", "answer with what was true then", kind="time")

REMEMBER = Command(
    "remember",
    "write a memory",
    remember,
    "remember",
    (
        Option("text", "what to remember; - reads it from standard input", place="maybe"),
        Option("data", "any JSON value, beside the text or instead of it", kind="json"),
        Option("tags", "a tag; may be repeated", kind="list", names=("--tag",), metavar="TAG"),
        Option("about", "a person or thing it concerns; may be repeated", kind="list",
               metavar="NAME"),
        Option("event_time", "when it happened", kind="time", names=("--at",)),
        Option("event_end", "when it was over", kind="time"),
        Option("kind", "what sort of thing it is (default: note)"),
        Option("source", "who said so (default: cli)"),
        Option("external_id", "your own id for it", metavar="ID"),
        Option("metadata", "a JSON object to filter by", kind="json"),
        Option("stream", "the conversation, calendar or sensor it came in"),
        Option("position", "its place in the stream", kind="integer"),
        Option("subject", "whose attribute it is"),
        Option("valid_from", "since when it is true", kind="time"),
        Option("valid_to", "until when it was true", kind="time"),
        Option("importance", "between 0 and 1", kind="number"),
        Option("pinned", "keep it whatever retention says", kind="flag"),
        Option("sensitivity", "who may see it, in words a grant knows", metavar="LABEL"),
        Option("derived_from", "an id it was inferred from; may be repeated", kind="list",
               metavar="ID"),
        Option("expires_at", "when to forget it", kind="time"),
        Option("expires_in", "after how long to forget it, such as 30d", metavar="DURATION"),
        Option("vector", "its vector as a JSON list, instead of embedding the text", kind="json"),
        Option("space", "the embedding space of the vector", metavar="NAME"),
        Option("on_conflict", "what to do when the external id exists (default: error)",
               choices=("error", "replace", "skip")),
        Option("dedup", "how to treat what is stored already (default: exact)",
               choices=("exact", "near", "off")),
        NO_SERVER,
    ),
    (
        'remember "The spare key is with Grace" --tag home --about Grace',
        'remember "Dentist: crown glued" --at 2024-10-24T16:30 --kind event',
        "remember - --source file:minutes.txt < minutes.txt",
    ),
)  # fmt: skip

RECALL = Command(
    "recall",
    "ask a question; print the memories that answer it, best first",
    recall,
    "recall",
    (
        QUESTION,
        K,
        Option("mode", "how to search (default: hybrid)", choices=("hybrid", "vector", "lexical")),
        AS_OF,
        Option(
            "time",
            "what a time in the question does (default: boost)",
            choices=("boost", "filter", "off"),
        ),
        Option("min_score", "leave out what scores less, between 0 and 1", kind="number"),
        Option(
            "min_confidence",
            "find nothing where it is less likely, between 0 and 1, that the answer is there",
            kind="number",
        ),
        Option("space", "the embedding space to search", metavar="NAME"),
        Option("vector", "search with this vector, a JSON list", kind="json"),
        Option("exact", "compare with every vector, no shortcut", kind="flag"),
        Option("explain", "say why each was found, and how the search went", kind="flag"),
        Option(
            "stages", 'stages of the ranking to switch, such as {"neighbours": false}', kind="json"
        ),
        Option(
            "rerank",
            "a cross-encoder reads the best 32 again: st:NAME or st:/path",
            metavar="MODEL",
        ),
        *SELECTOR,
        NO_SERVER,
    ),
    (
        'recall "what can\'t Ana eat?"',
        'recall "dentist" --since 2024-06 --kind event -k 3',
        'recall "where do I live?" --as-of 2023-01-01 --json',
    ),
    opens="read",
)

CONTEXT = Command(
    "context",
    "pack what a question needs into a number of tokens, for a prompt",
    context,
    "context",
    (
        QUESTION,
        Option("tokens", "how much it may be (default: 2000)", kind="integer"),
        AS_OF,
        *SELECTOR,
        NO_SERVER,
    ),
    (
        'context "plan dinner for Ana" --tokens 500',
        'context "the new house" --since 2024-02 --json',
    ),
    opens="read",
)

LIST = Command(
    "list",
    "list memories in order of time",
    list_,
    "list",
    (
        Option("limit", "how many (default: 50)", kind="integer"),
        Option("order_by", "which time orders them", choices=("event_time", "recorded_at")),
        Option("descending", "latest first (the default); --no-descending: earliest first",
               kind="switch"),
        Option("cursor", "go on where the last page ended"),
        Option("trash", "what was forgotten in the last seven days instead", kind="flag", own=True),
        *SELECTOR,
    ),
    (
        "list --limit 20",
        "list --trash",
        "list --tag health --since 2024 --no-descending",
        """list --where '{"metadata.place": {"$prefix": "Market"}}' --json""",
    ),
    opens="read",
)  # fmt: skip

GET = Command(
    "get",
    "print one memory",
    get,
    "get",
    (
        Option("id", "its id", place="maybe"),
        Option("external_id", "your own id for it", metavar="ID"),
        Option("as_of", "the version memdb believed then", kind="time"),
        Option("versions", "list all its versions", kind="flag", own=True),
    ),
    (
        "get 01HZY3J8Q6W2V0M5T4R7N9K1BX",
        "get --external-id mail:4711 --versions",
    ),
    opens="read",
)

FORGET = Command(
    "forget",
    "hide memories at once; they can be restored for seven days",
    forget,
    "forget",
    SELECTOR_TO_ACT_ON,
    (
        "forget --id 01HZY3J8Q6W2V0M5T4R7N9K1BX",
        "forget --source app:chat --before 2023",
    ),
    opens="change",
    details=" Several conditions together mean all of them. At least one is needed.",
)

RESTORE = Command(
    "restore",
    "bring forgotten memories back, within seven days",
    restore,
    "restore",
    (
        BY_ID,
        Option("batch", "everything that one `memdb forget` hid"),
    ),
    (
        "restore --batch 01J0A4T2Y8C6E5D3B7F9G1H0KM",
        "restore --id 01HZY3J8Q6W2V0M5T4R7N9K1BX",
    ),
    opens="change",
)

COMMANDS = (REMEMBER, RECALL, CONTEXT, LIST, GET, FORGET, RESTORE)
