"""Routes of the profile: facts by subject and key, with their history."""

from __future__ import annotations

from typing import Any

from memdb import Memory, NotFound
from memdb.server import schemas
from memdb.server.routes.memories import wrote
from memdb.server.routing import Call, Route
from memdb.server.schemas import memory_object

_NO_FACT = "the profile has no such fact"


def _fact(memory: Memory) -> schemas.Fact:
    return schemas.Fact(
        subject=memory.subject or "",
        key=memory.key or "",
        value=memory.text if memory.data is None else memory.data,
        memory=memory_object(memory),
    )


def _named(call: Call) -> dict[str, Any]:
    return {"key": call.path["key"], "subject": call.path["subject"]}


def get_fact(call: Call) -> schemas.Fact:
    """A fact's value, now or at ``as_of``."""
    memory = call.acting.profile.fact(
        **_named(call), as_of=call.query.as_of, namespace=call.query.namespace
    )
    if memory is None:
        raise NotFound(_NO_FACT)
    return _fact(memory)


def set_fact(call: Call) -> schemas.Wrote:
    """Give a fact a value from ``valid_from`` (now) on; the old one stays, closed."""
    body: schemas.SetFact = call.body
    fields = {
        name: getattr(body, name)
        for name in ("tags", "about", "metadata", "sensitivity", "importance", "pinned")
    }
    written = call.acting.profile.set(
        **_named(call),
        value=body.value,
        valid_from=body.valid_from,
        valid_to=body.valid_to,
        source=body.source,
        namespace=body.namespace,
        **fields,
    )
    return wrote(written, body.full)


def delete_fact(call: Call) -> schemas.Fact:
    """End a fact: it has no value from here on, and keeps its history."""
    return _fact(call.acting.profile.delete(**_named(call), namespace=call.query.namespace))


def fact_versions(call: Call) -> schemas.Memories:
    """Every value a fact has had, oldest first."""
    found = call.acting.profile.versions(**_named(call), namespace=call.query.namespace)
    return schemas.Memories(items=[memory_object(one) for one in found])


def list_facts(call: Call) -> schemas.Facts:
    """The values of a subject that are true now."""
    return schemas.Facts(
        items=call.acting.profile.items(call.path["subject"], namespace=call.query.namespace)
    )


def list_all_facts(call: Call) -> schemas.Facts:
    """The values of every subject that are true now, by ``subject.key``."""
    return schemas.Facts(items=call.acting.profile.items(None, namespace=call.query.namespace))


ROUTES = (
    Route("GET", "/v1/profile", list_all_facts, "what is true now, of every subject",
          schemas.Facts, query=schemas.InNamespace, tag="profile"),
    Route("GET", "/v1/profile/{subject}", list_facts, "what is true of a subject now",
          schemas.Facts, query=schemas.InNamespace, tag="profile"),
    Route("GET", "/v1/profile/{subject}/{key}", get_fact, "a fact's value, now or at a time",
          schemas.Fact, query=schemas.FactQuery, tag="profile"),
    Route("PUT", "/v1/profile/{subject}/{key}", set_fact, "give a fact a value",
          schemas.Wrote, body=schemas.SetFact, tag="profile"),
    Route("DELETE", "/v1/profile/{subject}/{key}", delete_fact, "end a fact",
          schemas.Fact, query=schemas.InNamespace, tag="profile"),
    Route("GET", "/v1/profile/{subject}/{key}/versions", fact_versions,
          "every value a fact has had", schemas.Memories, query=schemas.InNamespace,
          tag="profile"),
)  # fmt: skip
