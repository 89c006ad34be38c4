"""The tools an agent has: their names, arguments, hints and what each does with a database.

A tool is a small function of the verbs of ``Database``; whoever calls it decides whose verbs those
are, so nothing here knows of tokens or transports. Arguments are named like the Python parameters
(``OWN`` lists those that are not). Source, namespace and sensitivity are no arguments: they come
with the token. Nothing here erases, exports, or touches grants and tokens.

``memory_forget`` shows what it would hide unless it is ``confirmed``; what it hides the owner can
restore for seven days. Every result is data with its provenance, at most ``RESULT_TOKENS`` long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from memdb import InvalidArgument, NotFound
from memdb.server.mcp import frame
from memdb.server.mcp.schemas import checked, parameters

if TYPE_CHECKING:
    from memdb import Acting, Memory

MAX_ITEMS: Final = 50
MAX_TOKENS: Final = frame.RESULT_TOKENS
MAX_FORGOTTEN: Final = 100  # memories at once: an agent that is led astray hides no life
_SHOWN: Final = 20  # memories a preview of forgetting shows
_FACTS: Final = 100  # facts that are listed at once
OWN: Final = {"memory_get": {"offset"}, "memory_forget": {"confirmed"}}

Arguments = Mapping[str, Any]
Run = Callable[["Acting", Arguments], "str | list[str]"]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. ``call`` is the verb whose parameters its arguments are named after."""

    name: str
    summary: str
    call: str
    schema: dict[str, Any]
    run: Run
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = True

    def __call__(self, db: Acting, arguments: Arguments) -> list[str]:
        """The texts of the result. Raises ``MemdbError``."""
        result = self.run(db, checked(arguments, self.schema))
        return [result] if isinstance(result, str) else result


# --- reading --------------------------------------------------------------------------------------


def search(db: Acting, given: Arguments) -> str:
    hits = db.recall(**given)
    found: dict[str, Any] = {"search_id": hits.search_id}
    if hits.degraded:
        found["degraded"] = hits.degraded
    if hits.confidence is not None:
        found["confidence"] = round(hits.confidence, 2)
    return frame.shortened([(hit.memory, {"score": round(hit.score, 3)}) for hit in hits], found)


def get(db: Acting, given: Arguments) -> str:
    memory = db.get(given["id"], as_of=given.get("as_of"))
    if memory is None:
        raise NotFound("no memory has that id", hint="take ids from memory_search")
    return frame.whole(memory, given.get("offset", 0))


def context(db: Acting, given: Arguments) -> list[str]:
    packed = db.context(**given)
    about = {"search_id": packed.search_id, "items": len(packed.items), "tokens": packed.tokens}
    return [packed.text, frame.encoded({**about, "left_out": len(packed.dropped)})]


def timeline(db: Acting, given: Arguments) -> str:
    """One page; a smaller one where the memories asked for do not fit, so that the cursor holds."""
    limit = given.get("limit", 20)
    while True:
        page = db.timeline(**{**given, "limit": limit})
        following = {"next_cursor": page.next_cursor} if page.next_cursor else {}
        result = frame.listing([(memory, {}) for memory in page], following)
        if result is not None:
            return result
        limit = max(1, len(page) // 2)


def profile_get(db: Acting, given: Arguments) -> str:
    key, subject = given.get("key"), given.get("subject", "user")
    if key is None:
        if "as_of" in given:
            raise InvalidArgument("as_of needs a key", field="as_of")
        return frame.shortened([(fact, {}) for fact in _facts(db, subject)])
    fact = db.profile.fact(key, subject=subject, as_of=given.get("as_of"))
    if fact is not None:
        return frame.shortened([(fact, {})])
    elsewhere = [] if "as_of" in given else _facts(db, subject, key)
    if not elsewhere:
        raise NotFound("there is no such fact", hint="without a key, all that is known is listed")
    return frame.shortened([(one, {"namespace": one.namespace}) for one in elsewhere])


def _facts(db: Acting, subject: str, key: str | None = None) -> list[Memory]:
    """What is true now of a subject, by key, in any namespace that may be read."""
    now = datetime.now(UTC)
    true = {
        "key": {"$exists": True} if key is None else key,
        "subject": subject,
        "$and": [
            {"$or": [{"valid_from": {"$exists": False}}, {"valid_from": {"$lte": now}}]},
            {"$or": [{"valid_to": {"$exists": False}}, {"valid_to": {"$gt": now}}]},
        ],
    }
    page = db.list(true, order_by="recorded_at", limit=_FACTS)
    return sorted(page, key=lambda fact: fact.key or "")


# --- writing --------------------------------------------------------------------------------------


def profile_set(db: Acting, given: Arguments) -> str:
    written = db.profile.set(**given)
    return _written(written.id, written.status)


def add(db: Acting, given: Arguments) -> str:
    written = db.remember(**given)
    return _written(written.id, written.status)


def update(db: Acting, given: Arguments) -> str:
    fields = {name: value for name, value in given.items() if name != "id"}
    if not fields:
        raise InvalidArgument("nothing to change was given", field="text")
    written = db.update(given["id"], **fields)
    return _written(written.id, written.status)


def _written(id: str, status: str) -> str:
    return frame.encoded({"id": id, "status": status})


def feedback(db: Acting, given: Arguments) -> str:
    done = db.feedback(**given)
    return frame.encoded({"counted": done.counted, "unchanged": done.unchanged})


def forget(db: Acting, given: Arguments) -> str:
    """Hide memories if confirmed; else show which those would be."""
    selector = {name: given[name] for name in ("ids", "where", "about") if name in given}
    if "ids" in selector and len(selector) > 1:
        raise InvalidArgument("name ids, or where and about", field="ids")
    if not selector or selector.get("where") == {}:
        raise InvalidArgument("say what to forget: ids, where or about", field="ids")
    if given.get("confirmed", False):
        _few(db, selector)
        done = db.forget(**selector)
        told = {"forgotten": len(done.ids), "ids": done.ids[:_SHOWN], "batch": done.batch}
        return frame.encoded({**told, "restorable": "by the owner, for seven days"})
    count, memories = _named(db, selector)
    told = {"forgotten": 0, "would_forget": count, "to_do_it": "call again with confirmed: true"}
    return frame.shortened([(memory, {}) for memory in memories], told)


def _few(db: Acting, selector: Arguments) -> None:
    """Raises ``InvalidArgument`` where more would go than an agent hides at once."""
    count = len(selector["ids"]) if "ids" in selector else db.count(_where(selector))
    if count > MAX_FORGOTTEN:
        raise InvalidArgument(
            f"that is more than the {MAX_FORGOTTEN} memories that are forgotten at once",
            field=next(iter(selector)),
            hint="forget fewer at a time, or ask the owner to do it",
        )


def _named(db: Acting, selector: Arguments) -> tuple[int, list[Memory]]:
    """How many memories ``forget`` would hide, and the first of them."""
    if "ids" in selector:
        found = [memory for memory in db.get_many(selector["ids"]) if memory is not None]
        return len(found), found[:_SHOWN]
    where = _where(selector)
    return db.count(where), list(db.list(where, limit=_SHOWN))


def _where(selector: Arguments) -> dict[str, Any]:
    """What ``forget`` means by ``where`` and ``about`` together, as one filter."""
    conditions = [selector["where"]] if "where" in selector else []
    if "about" in selector:
        name = selector["about"]
        conditions.append({"$or": [{"about": name}, {"subject": name}]})
    return {"$and": conditions}


# --- the table ------------------------------------------------------------------------------------

TOOLS: Final = (
    Tool(
        "memory_search",
        "Find memories by meaning, words and time, best first, each with source and date.",
        "recall",
        parameters(
            "query!s k:1-50 where:filter as_of:time min_score:share min_confidence:share",
            query="a question or topic",
            k="how many; default 10",
            as_of="answer with what was true then",
        ),
        search,
        read_only=True,
    ),
    Tool(
        "memory_get",
        "One memory in full. Long texts come in parts: pass next_offset as offset.",
        "get",
        parameters("id!s as_of:time offset:0-"),
        get,
        read_only=True,
    ),
    Tool(
        "memory_context",
        "What is worth knowing for a task, packed into a token budget: facts, related memories, "
        "recent events.",
        "context",
        parameters("query!s tokens:1-4000 where:filter as_of:time", tokens="default 2000"),
        context,
        read_only=True,
    ),
    Tool(
        "memory_timeline",
        "What happened from start to before end, in order; with a query only what concerns it.",
        "timeline",
        parameters(
            "query:s start:time end:time where:filter descending:flag limit:1-50 cursor:s",
            limit="default 20",
            cursor="next_cursor of the page before",
        ),
        timeline,
        read_only=True,
    ),
    Tool(
        "memory_profile_get",
        "A fact about a person or thing, true now or at as_of; without a key all facts true now.",
        "profile.fact",
        parameters("key:s subject:s as_of:time", subject='default "user": the owner'),
        profile_get,
        read_only=True,
    ),
    Tool(
        "memory_profile_set",
        "Set a fact that has one value at a time, such as an address. The old value is kept.",
        "profile.set",
        parameters(
            "key!s value!any subject:s valid_from:time valid_to:time",
            subject='default "user": the owner',
            valid_from="since when it is true; default now",
        ),
        profile_set,
    ),
    Tool(
        "memory_add",
        "Remember one thing, self-contained and in the owner's words. The same twice is kept once.",
        "remember",
        parameters(
            "text!s kind:s tags:list about:list event_time:time importance:share metadata:object "
            "external_id:s derived_from:list expires_in:s",
            kind='"note" (default), "event", ...',
            about="people and things it concerns",
            event_time="when it happened",
            derived_from="ids it was concluded from",
            expires_in='such as "30d"',
        ),
        add,
    ),
    Tool(
        "memory_update",
        "Correct a memory; earlier versions are kept. For what changed in the world, add or set.",
        "update",
        parameters(
            "id!s text:s tags:list about:list event_time:time importance:share metadata:object "
            "valid_to:time"
        ),
        update,
    ),
    Tool(
        "memory_feedback",
        "Say which memories of a search were really used; they are kept longer.",
        "feedback",
        parameters("search_id!s used!list", used="ids"),
        feedback,
    ),
    Tool(
        "memory_forget",
        "Hide memories. Shows what it would hide unless confirmed, which needs the owner's word.",
        "forget",
        parameters("ids:list where:filter about:s confirmed:flag"),
        forget,
        destructive=True,
    ),
)
