"""``VectorIndex``: the index on its own, for those who bring vectors and 64-bit ids.

A directory holds the engine's files and a small ``kv/``, whose commits alone say what is in the
index. New vectors are *fresh* (durable in ``kv/``, scanned exactly) and are moved into the files
4,096 at a time; large batches go there at once. Any number of processes may read and write: writers
take turns by LMDB's lock, readers see a commit at their next call. This file checks arguments and
answers; how changes are ordered is ``vector_shared``'s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import vector_book
from memdb.errors import (
    InvalidArgument,
    MemdbError,
    NotFound,
    PermissionDenied,
)
from memdb.index import engines, exact
from memdb.index.protocol import as_vectors
from memdb.index.slots import SlotSet
from memdb.sizes import parse_bytes
from memdb.vector_book import Book, Ids
from memdb.vector_shared import SharedIndex, Wanted

NO_ID = 2**64 - 1
"""Pads answers that have fewer than k results; their distance is +inf."""

_BATCH_ROWS = 65_536  # one transaction; what a crash in a larger add may leave behind
_KINDS = ("auto", *engines.KINDS)
_LATER = {"kind": ("ssd",), "metric": ("hamming",)}


class VectorIndex:
    """Nearest neighbours of vectors named by integers, durable in one directory.

    ``dim`` is needed to make an index; on an existing one None means as stored, and another
    value is ``DimensionMismatch`` (dim) or ``Conflict`` (metric, kind, profile). ``metric`` is
    "cosine" (1 - cos), "ip" (-ip) or "l2" (squared), "cosine" for a new index; ``profile`` is
    "standard" (8 bits a coordinate) or "exact" (float16). ``kind`` "auto" is as stored, "flat" for
    a new index; "hnsw" keeps hnswlib's graph in memory (the extra ``hnsw``, else
    ``MissingDependency``) and takes ``params`` M (16) and ef_construction (200). ``memory_budget``
    bounds what stays in memory: codes, ids and graph; beyond it ``add`` raises ``BudgetExceeded``.
    Thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dim: int | None = None,
        metric: str | None = None,
        kind: str | None = "auto",
        profile: str | None = None,
        params: Mapping[str, Any] | None = None,
        memory_budget: int | str = "128MiB",
        threads: int = 1,
        readonly: bool = False,
    ) -> None:
        for field, value in (("kind", kind), ("metric", metric)):
            if value in _LATER[field]:
                raise InvalidArgument(f"{field} {value!r} is not offered yet", field=field)
        if kind is not None and kind not in _KINDS:
            raise InvalidArgument(f"kind must be one of {_KINDS}", field="kind")
        chosen = None if kind == "auto" else kind
        self._budget_bytes = parse_bytes(memory_budget, "memory_budget")
        self.path = Path(path).expanduser().resolve()
        wanted = Wanted(dim, metric, chosen, profile, params)
        self._shared = SharedIndex.open(self.path, wanted, threads=threads, readonly=readonly)
        self._readonly = readonly
        self._closed = False

    # --- reading ---------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        allowed: ArrayLike | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """The min(k, matches) nearest of the index, or of the ids ``allowed``.

        ``queries`` is (dim,) or (q, dim); ``allowed`` an integer array or a pyroaring bitmap.
        Returns (q, k) uint64 ids padded with 2**64 - 1 and (q, k) float32 distances, ascending,
        padded with +inf. ``effort`` is how many are examined closely (re-scored; ef of a graph):
        recall grows with it; ``exact`` re-scores all. Raises ``DimensionMismatch``,
        ``InvalidArgument``, ``StoreCorrupt``.
        """
        shared = self._open_shared()
        wanted = None if allowed is None else _as_ids(_unpacked(allowed), "allowed")
        with shared.snapshot() as (_, book):
            return _search(shared, book, queries, k, wanted, effort, exact)

    def get(self, ids: ArrayLike) -> NDArray[np.float32]:
        """(n, dim) float32 vectors at the profile's precision; ``NotFound`` for an unknown id."""
        shared = self._open_shared()
        numbers = _as_ids(ids, "ids")
        with shared.snapshot() as (txn, book):
            slots_by_id = vector_book.find_slots(txn, numbers)
            for number in numbers.tolist():
                if number not in slots_by_id:
                    raise NotFound(f"id {number} is not in the index")
            slots = np.array([slots_by_id[number] for number in numbers.tolist()], np.uint32)
            vectors = np.empty((len(slots), shared.spec.dim), np.float32)
            in_files = book.states[slots] == vector_book.ENCODED
            vectors[in_files] = shared.files.fetch(slots[in_files])
            places = np.argsort(book.fresh_slots)
            at = np.searchsorted(book.fresh_slots, slots[~in_files], sorter=places)
            vectors[~in_files] = book.fresh[places[at]]
        return vectors

    def __len__(self) -> int:
        with self._open_shared().snapshot() as (_, book):
            return book.state.count

    def __contains__(self, id: object) -> bool:
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < NO_ID:
            return False
        with self._open_shared().snapshot() as (txn, _):
            return vector_book.has_id(txn, int(id))

    def stats(self) -> dict[str, Any]:
        """Counts by state, settings, and bytes by file."""
        shared = self._open_shared()
        with shared.snapshot() as (_, book):
            counts = np.bincount(book.states, minlength=4).tolist()
            return {
                "count": book.state.count,
                "kind": book.state.kind,
                "dim": shared.spec.dim,
                "metric": shared.spec.metric,
                "profile": shared.spec.profile,
                "fresh": counts[vector_book.FRESH],
                "encoded": counts[vector_book.ENCODED],
                "retired": counts[vector_book.RETIRED],
                "memory_bytes": shared.memory_bytes(len(book.states)),
                "kernels": shared.files.kernels.name,
                **shared.files.stats(),
                **_graph_stats(shared, book),
            }

    # --- writing ---------------------------------------------------------------------------

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Enter (n, dim) vectors under n ids, replacing those of ids that exist; durable.

        An id given twice keeps its last vector. Batches of up to 65,536 are atomic. Raises
        ``DimensionMismatch``, ``InvalidArgument``, ``BudgetExceeded``, ``StoreFull``.
        """
        shared = self._for_writing()
        numbers = _as_ids(ids, "ids")
        matrix = as_vectors(vectors, shared.spec.dim)
        if len(numbers) != len(matrix):
            raise InvalidArgument("as many ids as vectors are needed", field="ids")
        _, last = np.unique(numbers[::-1], return_index=True)
        if len(last) < len(numbers):
            kept = np.sort(len(numbers) - 1 - last)
            numbers, matrix = numbers[kept], np.ascontiguousarray(matrix[kept])
        for first in range(0, len(numbers), _BATCH_ROWS):
            part = slice(first, first + _BATCH_ROWS)
            shared.add(numbers[part], matrix[part], self._budget_bytes)

    def remove(self, ids: ArrayLike) -> int:
        """Take ids out; how many were in. Their bytes go when no reader can see them."""
        shared = self._for_writing()
        return shared.remove(_as_ids(ids, "ids"))

    def wait(self) -> None:
        """Return when background work has caught up: bytes of what was removed are zeroed, and
        what was added is linked. Raises what has kept the graph from being built."""
        self._open_shared().wait()

    # --- life ------------------------------------------------------------------------------

    def _open_shared(self) -> SharedIndex:
        if self._closed:
            raise MemdbError("the index is closed", hint="open it again")
        if self._shared.forked:
            raise MemdbError(
                "the index was opened before this process forked",
                hint="open it again in the child process",
            )
        return self._shared

    def _for_writing(self) -> SharedIndex:
        if self._readonly:
            raise PermissionDenied("the index was opened with readonly=True")
        return self._open_shared()

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            self._shared.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VectorIndex({str(self.path)!r})"


def _search(
    shared: SharedIndex,
    book: Book,
    queries: ArrayLike,
    k: int,
    wanted: Ids | None,
    effort: int | None,
    exactly: bool,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Files and fresh vectors of one snapshot, merged."""
    given = as_vectors(queries, shared.spec.dim, field="queries")
    encoded, fresh_slots, fresh = book.encoded, book.fresh_slots, book.fresh
    if wanted is not None:
        chosen = np.isin(book.ids, wanted) & book.present()
        encoded = encoded & SlotSet(np.packbits(chosen, bitorder="little"))
        fresh_slots, fresh = fresh_slots[chosen[fresh_slots]], fresh[chosen[fresh_slots]]
    slots, distances = shared.files.search(given, k, allowed=encoded, effort=effort, exact=exactly)
    ids = _ids_at(book, slots, np.isfinite(distances))
    if not len(fresh_slots):
        return ids, distances
    places, fresh_distances = exact.scan(given, fresh, k, shared.spec.metric)
    near = np.isfinite(fresh_distances)
    fresh_ids = _ids_at(book, fresh_slots[np.where(near, places, 0)], near)
    return exact.merge([(ids, distances), (fresh_ids, fresh_distances)], k, padding=NO_ID)


def _graph_stats(shared: SharedIndex, book: Book) -> dict[str, Any]:
    linking = shared.linking
    if linking is None:
        return {}
    problem = linking.graph_problem
    return {
        "params": dict(book.state.params),
        "waiting": linking.waiting(book.encoded).count,
        "graph_problem": None if problem is None else str(problem),
    }


def _ids_at(book: Book, slots: NDArray[np.uint32], sound: NDArray[np.bool_]) -> Ids:
    ids = np.full(slots.shape, NO_ID, np.uint64)
    ids[sound] = book.ids[slots[sound]]
    return ids


def _unpacked(allowed: Any) -> ArrayLike:
    """The array of a pyroaring bitmap, or what was given."""
    if hasattr(allowed, "to_array"):
        return np.array(allowed.to_array(), np.uint64)
    return cast(ArrayLike, allowed)


def _as_ids(values: ArrayLike, field: str) -> Ids:
    """(n,) uint64; ``InvalidArgument`` for what is not an integer in 0 ... 2**64 - 2."""
    given = np.asarray(values)
    if given.ndim == 0 and given.dtype.kind in "iu":
        given = given[None]
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        raise InvalidArgument(f"{field} must be a list of integers", field=field)
    if len(given) and (given.min() < 0 or int(given.max()) >= NO_ID):
        raise InvalidArgument(f"{field} must be in 0 ... 2**64 - 2", field=field)
    return given.astype(np.uint64)
