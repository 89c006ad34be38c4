"""The shapes of requests and answers, with ``schemas_owner``: the one place that defines them.

Requests are validated by decoding into these Structs, answers are encoded from them, and the
OpenAPI document is made from them, so that none of the three can differ. Names of fields are the
names of the Python parameters. What a value means (a filter, a time, an id) is checked by the
library, which says what is wrong with it. This file knows neither HTTP nor a database.

A memory is an object with the fields of ``memdb.Memory``; a field that has nothing to say (its
default) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from memdb import Memory, Why

MAX_ITEMS = 1_000  # memories in one request: one transaction of the library
MAX_IDS = 10_000
MAX_SAMPLES = 50_000
MAX_DIM = 8_192
MAX_K = 10_000

Name = Annotated[str, Meta(min_length=1, max_length=512)]
Names = Annotated[list[Name], Meta(max_length=256)]
Text = Annotated[str, Meta(min_length=1, max_length=1 << 20)]
Query = Annotated[str, Meta(min_length=1, max_length=64 << 10)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
Ids = Annotated[list[Id], Meta(max_length=MAX_IDS)]
Time = Annotated[str, Meta(min_length=1, max_length=64, examples=["2024-05-17T09:30:00Z", "2024"])]
Unit = Annotated[float, Meta(ge=0, le=1)]
Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Vector = Annotated[list[float], Meta(min_length=1, max_length=MAX_DIM)]
Where = Annotated[
    dict[str, Any],
    Meta(description="a filter, as in Python", examples=[{"tags": {"$contains": "work"}}]),
]
Purpose = Annotated[str, Meta(min_length=1, max_length=200, description="why, for the audit")]
K = Annotated[int, Meta(ge=1, le=MAX_K)]
Limit = Annotated[int, Meta(ge=1, le=10_000)]
OnConflict = Literal["error", "replace", "skip"]
Dedup = Literal["exact", "near", "off"]
Cursor = Annotated[str, Meta(min_length=1, max_length=1_024)]
Namespace = Annotated[str, Meta(max_length=512)]


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a client sends; a field it does not have is an error."""


class Answer(Struct, kw_only=True, omit_defaults=True):
    """What the server answers; what is at its default is left out."""


# --- memories ---------------------------------------------------------------------------------


class NewMemory(Request):
    """The arguments of ``remember``."""

    text: Text | None = None
    data: Any = None
    source: Name | None = None
    external_id: Name | None = None
    kind: Name = "note"
    tags: Names = []
    metadata: dict[str, Any] | None = None
    namespace: Name | None = None
    stream: Name | None = None
    position: Int64 | None = None
    subject: Name | None = None
    key: Name | None = None
    about: Names = []
    event_time: Time | None = None
    event_end: Time | None = None
    valid_from: Time | None = None
    valid_to: Time | None = None
    importance: Unit | None = None
    pinned: bool = False
    sensitivity: Name | None = None
    derived_from: Names = []
    expires_at: Time | None = None
    expires_in: Name | None = None
    vector: Vector | None = None
    space: Name | None = None


FIELDS_OF_A_MEMORY = NewMemory.__struct_fields__

if TYPE_CHECKING:

    class MemoryChanges(Request):
        """The fields that ``update`` changes; null empties one."""

    class MemoryObject(Answer):
        """``memdb.Memory`` as an object."""

        id: str

        def __init__(self, *fields: Any) -> None: ...

else:
    MemoryChanges = msgspec.defstruct(
        "MemoryChanges",
        [(f.name, f.type | UnsetType | None, UNSET) for f in msgspec.structs.fields(NewMemory)],
        bases=(Request,),
        kw_only=True,
        forbid_unknown_fields=True,
        module=__name__,
    )
    MemoryObject = msgspec.defstruct(
        "Memory",
        [
            (f.name, f.type)
            if f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT
            else (f.name, f.type, f.default if f.default is not msgspec.NODEFAULT else {})
            for f in msgspec.structs.fields(Memory)
        ],
        omit_defaults=True,
        module=__name__,
    )


def memory_object(memory: Memory) -> MemoryObject:
    """A memory as it is answered."""
    return MemoryObject(*msgspec.structs.astuple(memory))


class AddMemories(Request):
    """Memories to write, all or none. ``full``: answer with the memories as they are stored."""

    items: Annotated[list[NewMemory], Meta(min_length=1, max_length=MAX_ITEMS)]
    on_conflict: OnConflict = "error"
    dedup: Dedup = "exact"
    full: bool = False
    purpose: Purpose | None = None


class Wrote(Answer):
    """What became of one item; ``memory`` only where ``full`` was asked for."""

    id: str
    status: Literal["inserted", "duplicate", "linked", "replaced", "superseded", "erased"]
    memory: MemoryObject | None = None


class AsOf(Request):
    as_of: Time | None = None


class GetMany(Request):
    ids: Ids


class MaybeMemories(Answer):
    """The memories in the order of the ids asked for; null where there is none."""

    items: list[MemoryObject | None]


class Memories(Answer):
    items: list[MemoryObject]


class ListQuery(Request):
    """``where`` is a filter written as JSON."""

    where: Annotated[str, Meta(max_length=64 << 10)] | None = None
    order_by: Literal["event_time", "recorded_at"] = "event_time"
    descending: bool = True
    limit: Limit = 50
    cursor: Cursor | None = None


class PageOfMemories(Answer):
    """One page; ``next_cursor`` is null on the last one."""

    items: list[MemoryObject]
    next_cursor: str | None = None


class CountMemories(Request):
    where: Where | None = None


class Counted(Answer):
    count: int


class ValuesOf(Request):
    field: Name
    where: Where | None = None


class ValueCount(Answer):
    value: Any
    count: int


class ValueCounts(Answer):
    items: list[ValueCount]


class NamespaceNames(Answer):
    namespaces: list[str]


# --- asking -----------------------------------------------------------------------------------


class Recall(Request):
    """The arguments of ``recall``. ``tokens``: the best of the hits, as many as fit into that."""

    query: Query | None = None
    vector: Vector | None = None
    k: K = 10
    where: Where | None = None
    mode: Literal["vector", "lexical", "hybrid"] = "hybrid"
    as_of: Time | None = None
    namespace: Namespace | None = None
    space: Name | None = None
    min_score: Unit | None = None
    min_confidence: Unit | None = None
    exact: bool = False
    explain: bool = False
    stages: dict[str, bool] | None = None
    time: Literal["boost", "filter", "off"] = "boost"
    tokens: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    purpose: Purpose | None = None


class RecallWithin(Request):
    """The arguments of ``recall_within``."""

    radius: float
    query: Query | None = None
    vector: Vector | None = None
    where: Where | None = None
    namespace: Namespace | None = None
    space: Name | None = None
    purpose: Purpose | None = None


class HitObject(Struct, kw_only=True):
    """One memory that was found. ``score`` estimates, in [0, 1], that it is relevant."""

    id: str
    score: float
    memory: MemoryObject
    why: Why
    history: list[MemoryObject] = []


class Found(Struct, kw_only=True):
    """Hits, best first; ``degraded`` says what could not be searched, and why. ``confidence``
    estimates, in [0, 1], that the answer is there at all."""

    search_id: str
    hits: list[HitObject]
    degraded: str | None = None
    confidence: float | None = None
    plan: dict[str, Any] = {}


class AskContext(Request):
    """The arguments of ``context``."""

    query: Query
    tokens: Annotated[int, Meta(ge=0, le=1 << 20)] = 2000
    where: Where | None = None
    as_of: Time | None = None
    namespace: Namespace | None = None
    purpose: Purpose | None = None


class ContextPart(Answer):
    memory: MemoryObject
    role: Literal["fact", "earlier", "relevant", "neighbour", "recent"]
    score: float | None = None
    reason: str | None = None


class Packed(Struct, kw_only=True):
    """Text for a prompt, what is in it, and what was left out with the reason."""

    text: str
    items: list[ContextPart]
    dropped: list[ContextPart]
    tokens: int
    counter: str
    search_id: str | None = None


class TimelineQuery(Request):
    """The arguments of ``timeline``; ``where`` is a filter written as JSON."""

    query: Query | None = None
    start: Time | None = None
    end: Time | None = None
    where: Annotated[str, Meta(max_length=64 << 10)] | None = None
    descending: bool = False
    limit: Limit = 50
    cursor: Cursor | None = None
    namespace: Namespace | None = None


class GiveFeedback(Request):
    """Which of the memories that a search found were used."""

    search_id: Id
    used: Ids
    purpose: Purpose | None = None


class Counting(Answer):
    search_id: str
    counted: list[str]
    unchanged: list[str]


# --- profile ----------------------------------------------------------------------------------


class FactQuery(Request):
    as_of: Time | None = None
    namespace: Name | None = None


class InNamespace(Request):
    namespace: Name | None = None


class SetFact(Request):
    """The arguments of ``profile.set`` beside subject and key, and fields of a memory."""

    value: Any
    valid_from: Time | None = None
    valid_to: Time | None = None
    source: Name | None = None
    namespace: Name | None = None
    tags: Names = []
    about: Names = []
    metadata: dict[str, Any] | None = None
    sensitivity: Name | None = None
    importance: Unit | None = None
    pinned: bool = False
    full: bool = False
    purpose: Purpose | None = None


class Fact(Struct, kw_only=True):
    """A fact's value, and the memory that says it."""

    subject: str
    key: str
    value: Any
    memory: MemoryObject


class Facts(Struct, kw_only=True):
    """The values that are true now, by key."""

    items: dict[str, Any]


# --- history ----------------------------------------------------------------------------------

Sample = tuple[Time, Any]


class AppendHistory(Request):
    """One event (``text``, ``data``), or many ``samples`` of a series as [event_time, data]."""

    kind: Name
    text: Text | None = None
    data: Any = None
    event_time: Time | None = None
    stream: Name | None = None
    source: Name | None = None
    namespace: Name | None = None
    samples: Annotated[list[Sample], Meta(min_length=1, max_length=MAX_SAMPLES)] | None = None
    full: bool = False
    purpose: Purpose | None = None


class Appended(Answer):
    """How many were written; ``item`` is the one event."""

    count: int
    item: Wrote | None = None


class HistoryQuery(Request):
    """The arguments of ``history.range``; ``where`` is a filter written as JSON."""

    kind: Name | None = None
    start: Time | None = None
    end: Time | None = None
    stream: Name | None = None
    where: Annotated[str, Meta(max_length=64 << 10)] | None = None
    limit: Limit = 1_000
    reverse: bool = False
    namespace: Namespace | None = None
    cursor: Cursor | None = None


# --- errors -----------------------------------------------------------------------------------


class Problem(Answer):
    """RFC 9457. ``code`` is stable, ``hint`` names the remedy; nothing sent is repeated."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    field: str | None = None
    pid: int | None = None
    host: str | None = None
    extra: str | None = None
