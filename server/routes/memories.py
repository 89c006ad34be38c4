"""Routes of memories: write, read, change, list, count."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from memdb import NotFound
from memdb.server import schemas
from memdb.server.routing import Call, Route, json_filter
from memdb.server.schemas import memory_object
from memdb.server.schemas_owner import Hidden

_NO_MEMORY = "no memory has that id"


def wrote(written: Any, full: bool) -> schemas.Wrote:
    """What is answered of one ``Written``."""
    memory = memory_object(written.memory) if full else None
    return schemas.Wrote(id=written.id, status=written.status, memory=memory)


def add_memories(call: Call) -> list[schemas.Wrote]:
    """Write memories, all or none; durable when this is answered."""
    body: schemas.AddMemories = call.body
    choice = {"on_conflict": body.on_conflict, "dedup": body.dedup}
    fields = [msgspec.structs.asdict(item) for item in body.items]
    if len(fields) == 1:
        return [wrote(call.acting.remember(**fields[0], **choice), body.full)]
    return [wrote(one, body.full) for one in call.acting.remember_many(fields, **choice)]


def get_memory(call: Call) -> schemas.MemoryObject:
    """One memory; as it was held for true at ``as_of``."""
    memory = call.acting.get(call.path["id"], as_of=call.query.as_of)
    if memory is None:
        raise NotFound(_NO_MEMORY)
    return memory_object(memory)


def get_external(call: Call) -> schemas.MemoryObject:
    """The memory that has your own id in a namespace."""
    memory = call.acting.get(external_id=call.path["external_id"], namespace=call.query.namespace)
    if memory is None:
        raise NotFound(_NO_MEMORY)
    return memory_object(memory)


def get_memories(call: Call) -> schemas.MaybeMemories:
    """Many memories by id, in the order asked for."""
    found = call.acting.get_many(call.body.ids)
    return schemas.MaybeMemories(items=[m and memory_object(m) for m in found])


def update_memory(call: Call) -> schemas.Wrote:
    """Change fields of a memory; the version before is kept."""
    given = msgspec.structs.asdict(call.body)
    fields = {name: value for name, value in given.items() if value is not UNSET}
    return wrote(call.acting.update(call.path["id"], **fields), True)


def forget_memory(call: Call) -> Hidden:
    """Hide one memory; it can be restored for seven days."""
    done = call.acting.forget(ids=[call.path["id"]])
    if not done.ids:
        raise NotFound(_NO_MEMORY)
    return Hidden(batch=done.batch, ids=list(done.ids))


def memory_versions(call: Call) -> schemas.Memories:
    """Every version of a memory, oldest first."""
    found = call.acting.versions(call.path["id"])
    return schemas.Memories(items=[memory_object(one) for one in found])


def page_of(page: Any) -> schemas.PageOfMemories:
    """What is answered of a ``Page``."""
    items = [memory_object(memory) for memory in page.items]
    return schemas.PageOfMemories(items=items, next_cursor=page.next_cursor)


def list_memories(call: Call) -> schemas.PageOfMemories:
    """One page of memories in order of time."""
    query: schemas.ListQuery = call.query
    return page_of(
        call.acting.list(
            json_filter(query.where),
            order_by=query.order_by,
            descending=query.descending,
            limit=query.limit,
            cursor=query.cursor,
        )
    )


def count_memories(call: Call) -> schemas.Counted:
    """How many memories pass a filter."""
    return schemas.Counted(count=call.acting.count(call.body.where))


def count_values(call: Call) -> schemas.ValueCounts:
    """The values of a field, with how many memories have each."""
    found = call.acting.values(call.body.field, call.body.where)
    return schemas.ValueCounts(items=[schemas.ValueCount(value=v, count=n) for v, n in found])


def list_namespaces(call: Call) -> schemas.NamespaceNames:
    """The namespaces that hold memories."""
    return schemas.NamespaceNames(namespaces=list(call.acting.namespaces()))


ROUTES = (
    Route("POST", "/v1/memories", add_memories, "write memories", list[schemas.Wrote],
          body=schemas.AddMemories),
    Route("GET", "/v1/memories", list_memories, "one page of memories in order of time",
          schemas.PageOfMemories, query=schemas.ListQuery),
    Route("POST", "/v1/memories/get", get_memories, "many memories by id",
          schemas.MaybeMemories, body=schemas.GetMany),
    Route("POST", "/v1/memories/count", count_memories, "how many memories pass a filter",
          schemas.Counted, body=schemas.CountMemories),
    Route("POST", "/v1/memories/values", count_values, "the values of a field, counted",
          schemas.ValueCounts, body=schemas.ValuesOf),
    Route("GET", "/v1/memories/{id}", get_memory, "one memory", schemas.MemoryObject,
          query=schemas.AsOf),
    Route("PATCH", "/v1/memories/{id}", update_memory, "change fields of a memory",
          schemas.Wrote, body=schemas.MemoryChanges),
    Route("DELETE", "/v1/memories/{id}", forget_memory, "hide one memory, for seven days",
          Hidden),
    Route("GET", "/v1/memories/{id}/versions", memory_versions, "every version of a memory",
          schemas.Memories),
    Route("GET", "/v1/external/{external_id}", get_external, "one memory, by your own id",
          schemas.MemoryObject, query=schemas.InNamespace),
    Route("GET", "/v1/namespaces", list_namespaces, "the namespaces that hold memories",
          schemas.NamespaceNames),
)  # fmt: skip
