"""Routes in the shape of mem0's open-source REST server, below ``/v1/mem0``.

A program written for that server changes its base address and sends memdb's token. A message is a
memory; ``user_id``, ``agent_id``, ``run_id``, the role and the speaker are in its metadata. What
mem0 leaves to a language model is left out: nothing is inferred, each message is kept as it was
said, a repeated one once. Whose memories a token may see is its grant, whatever ``user_id`` says.
Deleting is forgetting, restorable for seven days. ``reset`` and ``configure`` are not offered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from memdb import FilterError, InvalidArgument, Memory, NotFound
from memdb.server import schemas_mem0 as schemas
from memdb.server.routing import Call, Route

OWNERS: Final = ("user_id", "agent_id", "run_id")
_OWN: Final = (*OWNERS, "actor_id", "role")  # keys of the metadata that are fields of an item
# mem0's operators are memdb's without the mark.
_OPERATORS: Final = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains")
_TOGETHER: Final = {"AND": "$and", "OR": "$or"}
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DEFAULT_LIMIT: Final = 10


def mem0_add(call: Call) -> schemas.AddedAll:
    """Keep the messages of a conversation."""
    body: schemas.AddMessages = call.body
    owners = _owners(body)
    listed = body.messages
    if isinstance(listed, str):
        listed = [schemas.Message(role="user", content=listed)]
    kept = [message for message in listed if message.role != "system"]
    items = [
        {
            "text": message.content,
            "metadata": {
                **(body.metadata or {}),
                **owners,
                "role": message.role,
                **({"actor_id": message.name} if message.name else {}),
            },
        }
        for message in kept
    ]
    written = call.acting.remember_many(items)
    return schemas.AddedAll(
        results=[
            schemas.Added(
                id=one.id,
                memory=message.content,
                event="NONE" if one.status == "duplicate" else "ADD",
                role=message.role,
            )
            for one, message in zip(written, kept, strict=True)
        ]
    )


def mem0_list(call: Call) -> schemas.Items:
    """Somebody's memories, latest first."""
    where = _where(_owners(call.query), None)
    page = call.acting.list(where, order_by="recorded_at", limit=call.query.limit)
    return schemas.Items(results=[_item(memory) for memory in page.items])


def mem0_search(call: Call) -> schemas.Items:
    """The memories that answer a question best."""
    body: schemas.SearchItems = call.body
    owners = {name: getattr(body, name) for name in OWNERS if getattr(body, name) is not None}
    if not owners and not body.filters:
        raise _nobody()
    k = body.limit or body.top_k or DEFAULT_LIMIT
    where = _where(owners, body.filters)
    hits = call.acting.recall(body.query, k, where, min_score=body.threshold)
    return schemas.Items(results=[_item(hit.memory, hit.score) for hit in hits])


def mem0_get(call: Call) -> schemas.Item:
    """One memory."""
    return _item(_held(call))


def mem0_update(call: Call) -> schemas.Changed:
    """Change a memory's text or metadata; the version before is kept."""
    body: schemas.Change = call.body
    memory = _held(call)
    fields: dict[str, Any] = {}
    if body.text is not None:
        fields["text"] = body.text
    if body.metadata is not None:
        kept = {name: memory.metadata[name] for name in _OWN if name in memory.metadata}
        fields["metadata"] = {**body.metadata, **kept}
    if not fields:
        raise InvalidArgument("text or metadata is needed", field="text")
    call.acting.update(memory.id, **fields)
    return schemas.Changed(message="Memory updated successfully!")


def mem0_history(call: Call) -> list[schemas.Event]:
    """What a memory was, change by change, oldest first."""
    versions = call.acting.versions(call.path["id"])
    if not versions:
        raise NotFound("no memory has that id")
    born = _born(versions[0])
    before: list[Memory | None] = [None, *versions[:-1]]
    return [
        schemas.Event(
            id=f"{memory.id}:{memory.version}",
            memory_id=memory.id,
            old_memory=None if old is None else old.text,
            new_memory=memory.text,
            event="ADD" if old is None else "UPDATE",
            created_at=born,
            updated_at=None if old is None else _told(memory.recorded_at),
            actor_id=_text(memory.metadata.get("actor_id")),
            role=_text(memory.metadata.get("role")),
        )
        for old, memory in zip(before, versions, strict=True)
    ]


def mem0_delete(call: Call) -> schemas.Changed:
    """Hide a memory; it can be restored for seven days."""
    if not call.acting.forget(ids=[call.path["id"]]).ids:
        raise NotFound("no memory has that id")
    return schemas.Changed(message="Memory deleted successfully!")


def mem0_delete_all(call: Call) -> schemas.Changed:
    """Hide somebody's memories; they can be restored for seven days."""
    call.acting.forget(where=_where(_owners(call.query), None))
    return schemas.Changed(message="All relevant memories deleted")


# --- shapes ---------------------------------------------------------------------------------------


def _owners(given: schemas.Owners) -> dict[str, str]:
    found = {name: getattr(given, name) for name in OWNERS if getattr(given, name) is not None}
    if not found:
        raise _nobody()
    return found


def _nobody() -> InvalidArgument:
    return InvalidArgument(
        "one of user_id, agent_id and run_id is needed", field="user_id", hint="say whose"
    )


def _held(call: Call) -> Memory:
    memory: Memory | None = call.acting.get(call.path["id"])
    if memory is None:
        raise NotFound("no memory has that id")
    return memory


def _where(owners: Mapping[str, str], filters: Mapping[str, Any] | None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{f"metadata.{name}": one} for name, one in owners.items()]
    if filters:
        parts.append(_filter(filters, 0))
    return {"$and": parts}


def _filter(given: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A filter of mem0's as a ``where``."""
    if depth > 16:
        raise FilterError("filters are nested too deep", field="filters")
    parts: list[dict[str, Any]] = []
    for name, value in given.items():
        if name in ("AND", "OR", "NOT"):
            inner = value if isinstance(value, list) else [value]
            if not inner or not all(isinstance(one, Mapping) for one in inner):
                raise FilterError(f"{name} takes filters", field="filters")
            under = [_filter(one, depth + 1) for one in inner]
            parts.append(
                {_TOGETHER[name]: under} if name in _TOGETHER else {"$not": {"$or": under}}
            )
        elif isinstance(value, Mapping):
            unknown = [operator for operator in value if operator not in _OPERATORS]
            if unknown or not value:
                raise FilterError(
                    "a filter has an operator that is not offered",
                    field="filters",
                    hint=f"there are: {', '.join(_OPERATORS)}",
                )
            parts.append(
                {f"metadata.{name}": {f"${operator}": one for operator, one in value.items()}}
            )
        elif value == "*":
            parts.append({f"metadata.{name}": {"$exists": True}})
        else:
            parts.append({f"metadata.{name}": value})
    return {"$and": parts}


def _item(memory: Memory, score: float | None = None) -> schemas.Item:
    said = memory.text or ""
    rest = {name: value for name, value in memory.metadata.items() if name not in _OWN}
    return schemas.Item(
        id=memory.id,
        memory=said,
        hash=hashlib.md5(said.encode(), usedforsecurity=False).hexdigest(),
        created_at=_born(memory),
        updated_at=_told(memory.recorded_at) if memory.version > 1 else None,
        score=score,
        metadata=rest or None,
        **{name: _text(memory.metadata.get(name)) for name in _OWN},
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _told(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()


def _born(memory: Memory) -> str:
    """When it was made: ten characters of base 32 in a ULID are milliseconds; a sample of a series
    has another kind of id, and the time at which it happened."""
    milliseconds = 0
    for sign in memory.id[:10]:
        digit = _CROCKFORD.find(sign)
        if digit < 0:
            return _told(memory.event_time)
        milliseconds = milliseconds * 32 + digit
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


ROUTES = (
    Route("POST", "/v1/mem0/memories", mem0_add, "keep messages, as mem0 does with infer=false",
          schemas.AddedAll, body=schemas.AddMessages, tag="mem0"),
    Route("GET", "/v1/mem0/memories", mem0_list, "somebody's memories", schemas.Items,
          query=schemas.OwnersPage, tag="mem0"),
    Route("DELETE", "/v1/mem0/memories", mem0_delete_all, "hide somebody's memories",
          schemas.Changed, query=schemas.Owners, tag="mem0"),
    Route("POST", "/v1/mem0/search", mem0_search, "the memories that answer a question best",
          schemas.Items, body=schemas.SearchItems, tag="mem0"),
    Route("GET", "/v1/mem0/memories/{id}", mem0_get, "one memory", schemas.Item, tag="mem0"),
    Route("PUT", "/v1/mem0/memories/{id}", mem0_update, "change a memory", schemas.Changed,
          body=schemas.Change, tag="mem0"),
    Route("GET", "/v1/mem0/memories/{id}/history", mem0_history, "a memory, change by change",
          list[schemas.Event], tag="mem0"),
    Route("DELETE", "/v1/mem0/memories/{id}", mem0_delete, "hide a memory, for seven days",
          schemas.Changed, tag="mem0"),
)  # fmt: skip
