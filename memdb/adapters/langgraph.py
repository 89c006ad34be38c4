"""``MemdbStore``: the long-term memory of a LangGraph graph, in a memdb directory.

An item of LangGraph is a memory: its namespace below ``namespace``, its key the ``external_id``,
its value the ``data``. The texts of ``fields`` in the value (without fields: every string in it)
are what a search by meaning and words looks at. ``index=False`` keeps an item out of searches by
query. Deleting is forgetting: the owner can restore it for seven days.

Differences to ``InMemoryStore``: ``created_at`` is when the key was first put and stays through
later puts; without a query items come in the order in which their keys were first put, whatever
their namespace; a namespace without items is not listed; a query needs no ``index`` configuration.
A time to live is renewed by a read once a sixteenth of it has passed, and an item lives a sixteenth
longer than asked, so that reading does not write every time and nothing goes early.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Protocol, Self

from memdb import Database, InvalidArgument, Memory, MissingDependency
from memdb.adapters.handles import Place, joined, own_handle, parted

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        tokenize_path,
    )
    from langgraph.store.base import validate_op_namespace as validate
except ImportError as error:
    raise MissingDependency("this adapter needs langgraph", extra="langgraph") from error

SOURCE: Final = "app:langgraph"
KIND: Final = "item"
_GRACE: Final = 1 / 16  # of a time to live
_MATCHED_AT_ONCE: Final = 64
_LONGEST_TAG: Final = 200  # characters of a value that the filter's index may narrow by
_NOT_INDEXED: Final = "not-indexed"


class Clock(Protocol):
    """Where the present comes from, as ``memdb.open`` takes it."""

    def now(self) -> datetime: ...


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class MemdbStore(BaseStore):
    """A ``BaseStore`` over a memdb database.

    ``place``: a directory, or an open ``Database`` of it. ``namespace``: where its items are.
    ``fields``: paths in a value that are searched ("text", "chapters[*].title"); None is every
    string. ``ttl``: LangGraph's ``TTLConfig``. ``clock``: that of the database, if it has its own.
    Close it, or use it as a context manager.
    """

    supports_ttl = True

    def __init__(
        self,
        place: Place,
        *,
        namespace: str = "langgraph",
        fields: Sequence[str] | None = None,
        ttl: TTLConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._db: Database = own_handle(place, namespace, SOURCE)
        self._root = namespace
        self._fields = None if fields is None else list(fields)
        self.ttl_config = ttl
        self._now = (clock or _SystemClock()).now

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- operations ---------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Reads see what was there before; then the last put of each key is written, together."""
        results: list[Result] = []
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        for op in ops:
            validate(op)
            if isinstance(op, PutOp):
                puts[(op.namespace, op.key)] = op
                results.append(None)
            elif isinstance(op, GetOp):
                results.append(self._get(op))
            elif isinstance(op, SearchOp):
                results.append(self._search(op))
            elif isinstance(op, ListNamespacesOp):
                results.append(self._list_namespaces(op))
            else:
                raise InvalidArgument(f"no operation of type {type(op).__name__}", field="ops")
        self._put(list(puts.values()))
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As ``batch``, on a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    # --- writing ------------------------------------------------------------------------

    def _put(self, puts: list[PutOp]) -> None:
        stored = [self._memory_fields(op) for op in puts if op.value is not None]
        if stored:
            self._db.remember_many(stored, on_conflict="replace", dedup="off")
        gone = [self._held(op.namespace, op.key) for op in puts if op.value is None]
        ids = [memory.id for memory in gone if memory is not None]
        if ids:
            self._db.forget(ids)

    def _memory_fields(self, op: PutOp) -> dict[str, Any]:
        value = dict(op.value or {})
        found: dict[str, Any] = {
            "data": value,
            "kind": KIND,
            "namespace": joined(self._root, op.namespace),
            "external_id": op.key,
            "metadata": {"values": _narrowing(value)},
        }
        if op.index is False:
            found["tags"] = [_NOT_INDEXED]
        else:
            text = "\n".join(self._texts(value, op.index))
            if text.strip():
                found["text"] = text
        if op.ttl is not None:
            found["metadata"]["ttl_minutes"] = op.ttl
            found["expires_at"] = self._expiry(op.ttl)
        return found

    def _texts(self, value: dict[str, Any], index: Sequence[str] | None) -> Iterator[str]:
        paths = index if index is not None else self._fields
        if paths is None:
            yield from _strings(value)
            return
        for path in paths:
            yield from get_text_at_path(value, tokenize_path(path) if path != "$" else path)

    # --- reading ------------------------------------------------------------------------

    def _held(self, namespace: tuple[str, ...], key: str) -> Memory | None:
        return self._db.get(external_id=key, namespace=joined(self._root, namespace))

    def _get(self, op: GetOp) -> Item | None:
        memory = self._held(op.namespace, op.key)
        if memory is None:
            return None
        if op.refresh_ttl:
            self._renew([memory])
        return Item(**self._shown(memory))

    def _search(self, op: SearchOp) -> list[SearchItem]:
        wanted = max(0, op.offset) + max(0, op.limit)
        found: list[tuple[Memory, float | None]] = []
        if op.query:
            found.extend(self._ranked(op, wanted))
        if len(found) < wanted:
            ranked = {memory.id for memory, _ in found}
            rest = (one for one in self._matching(op) if one.id not in ranked)
            first = heapq.nsmallest(wanted - len(found), rest, key=lambda memory: memory.id)
            found.extend((memory, None) for memory in first)
        page = found[max(0, op.offset) : wanted]
        if op.refresh_ttl:
            self._renew([memory for memory, _ in page])
        return [SearchItem(**self._shown(memory), score=score) for memory, score in page]

    def _ranked(self, op: SearchOp, wanted: int) -> list[tuple[Memory, float | None]]:
        """What the query finds, best first: more is asked for until enough passes the filter."""
        where = {**self._where(op), "tags": {"$nin": [_NOT_INDEXED]}}
        k = max(1, wanted) if not op.filter else max(_MATCHED_AT_ONCE, 2 * wanted)
        while True:
            hits = self._db.recall(op.query, min(k, 10_000), where, time="off")
            passed = [(hit.memory, hit.score) for hit in hits if _passes(hit.memory, op.filter)]
            if len(passed) >= wanted or len(hits) < k or k >= 10_000:
                return [(memory, score) for memory, score in passed[:wanted]]
            k *= 4

    def _matching(self, op: SearchOp) -> Iterator[Memory]:
        found = self._db.iter(self._where(op))
        return (memory for memory in found if _passes(memory, op.filter))

    def _where(self, op: SearchOp) -> dict[str, Any]:
        """The namespace, and what of the filter the index can decide: strings that are equal."""
        where: dict[str, Any] = {"kind": KIND}
        if op.namespace_prefix:
            top = joined(self._root, op.namespace_prefix)
            where["$or"] = [{"namespace": top}, {"namespace": {"$prefix": top + "/"}}]
        for key, expected in (op.filter or {}).items():
            if isinstance(expected, Mapping) and set(expected) == {"$eq"}:
                expected = expected["$eq"]
            if _narrows(key, expected):
                where.setdefault("$and", []).append(
                    {"metadata.values": {"$contains": _pair(key, expected)}}
                )
        return where

    def _renew(self, memories: list[Memory]) -> None:
        """Give what was read its time to live anew, once enough of it has passed."""
        for memory in memories:
            minutes = memory.metadata.get("ttl_minutes")
            if minutes is None or memory.expires_at is None:
                continue
            if memory.expires_at - self._now() < timedelta(minutes=minutes):
                self._db.update(memory.id, expires_at=self._expiry(minutes))

    def _expiry(self, minutes: float) -> datetime:
        return self._now() + timedelta(minutes=minutes * (1 + _GRACE))

    def _shown(self, memory: Memory) -> dict[str, Any]:
        return {
            "namespace": parted(self._root, memory.namespace),
            "key": memory.external_id or memory.id,
            "value": memory.data,
            "created_at": _born(memory.id),
            "updated_at": memory.recorded_at or _born(memory.id),
        }

    def _list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        known = [parted(self._root, name) for name in self._db.namespaces()]
        conditions = op.match_conditions or ()
        found = {
            labels[: op.max_depth]
            for labels in known
            if labels and all(_fits(condition, labels) for condition in conditions)
        }
        return sorted(found)[op.offset : op.offset + op.limit]


# --- values ---------------------------------------------------------------------------------------


def _born(id: str) -> datetime:
    """When a ULID was made: its first ten characters are milliseconds in Crockford's base 32."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    milliseconds = 0
    for sign in id[:10]:
        milliseconds = milliseconds * 32 + digits.index(sign)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _narrows(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, str) and len(value) <= _LONGEST_TAG


def _pair(key: str, value: str) -> str:
    return f"{key}={value}"


def _narrowing(value: Mapping[str, Any]) -> list[str]:
    """The strings at the top of a value, for the filter's index; the rest is checked by value."""
    return [_pair(key, inner) for key, inner in value.items() if _narrows(key, inner)][:256]


def _passes(memory: Memory, wanted: Mapping[str, Any] | None) -> bool:
    value = memory.data or {}
    return all(_equal(value.get(key), expected) for key, expected in (wanted or {}).items())


def _equal(value: Any, expected: Any) -> bool:
    """As ``InMemoryStore`` compares: a mapping with operators, or nested equality."""
    if isinstance(expected, Mapping):
        if any(str(name).startswith("$") for name in expected):
            return all(_compare(value, name, other) for name, other in expected.items())
        return isinstance(value, Mapping) and all(
            _equal(value.get(name), inner) for name, inner in expected.items()
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(map(_equal, value, expected))
        )
    return bool(value == expected)


def _compare(value: Any, operator: str, other: Any) -> bool:
    if operator == "$eq":
        return bool(value == other)
    if operator == "$ne":
        return bool(value != other)
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise InvalidArgument(f"there is no operator {operator:.20}", field="filter")
    left, right = float(value), float(other)
    if operator in ("$gt", "$gte"):
        return left > right or (operator == "$gte" and left == right)
    return left < right or (operator == "$lte" and left == right)


def _fits(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    path = condition.path
    if not path or len(labels) < len(path):
        return not path
    part = labels[: len(path)] if condition.match_type == "prefix" else labels[-len(path) :]
    return all(pattern in ("*", label) for pattern, label in zip(path, part, strict=True))
