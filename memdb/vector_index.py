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
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import vector_book, vector_check, vector_convert
from memdb.errors import (
    DimensionMismatch,
    InvalidArgument,
    MemdbError,
    NotFound,
    PermissionDenied,
)
from memdb.index import engines, exact
from memdb.index.convert import check_target
from memdb.index.protocol import Drafting, Metric, Profile, SearchPlan, SpaceSpec, as_vectors
from memdb.progress import Progress, reporting
from memdb.sizes import parse_bytes
from memdb.vector_book import Book, Floats, Ids, Slots
from memdb.vector_filter import NO_ID, Allowed, VectorFilter, allowed_of, as_ids
from memdb.vector_shared import SharedIndex
from memdb.vector_shown import View
from memdb.vector_wanted import Wanted

_BATCH_ROWS = 65_536  # one transaction; what a crash in a larger add may leave behind
_KINDS = ("auto", *engines.KINDS)
_METRICS = get_args(Metric)
_PROFILES = get_args(Profile)


class VectorIndex:
    """Nearest neighbours of vectors named by integers, durable in one directory.

    ``dim`` is needed to make an index; on an existing one None means as stored, and another
    value is ``DimensionMismatch`` (dim) or ``Conflict`` (metric, kind, profile). ``metric`` is
    "cosine" (1 - cos), "ip" (-ip), "l2" (squared) or "hamming" (bits that differ), "cosine" for a
    new index; ``profile`` is what a coordinate keeps: "exact" 16 bits, "standard" 8, "compact" 5,
    "nano" 2. Vectors of a Hamming index are packed: (n, dim / 8) uint8. ``kind`` "auto" is as
    stored; a new index begins "flat" and becomes "ssd" when scans would take too long. "ssd" has a
    graph in a file, linked in the background by the one process that has the time, and takes
    ``params`` R (32), L_build (96), alpha (1.2), and ``io``, which is the handle's and not stored:
    graph and vectors are mapped where they fit the budget and read where they do not ("auto"), or
    one of it anyway ("mapped", "read"; "direct" reads past the system's page cache). "hnsw" keeps
    hnswlib's graph in memory (the extra ``hnsw``, else ``MissingDependency``) and takes M (16) and
    ef_construction (200). A graph needs codes: "hamming" and profiles "nano" and "pico" are flat.
    ``memory_budget`` bounds what stays in memory: codes, ids and graph; beyond it ``add`` raises
    ``BudgetExceeded``. Thread-safe.
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
        for field, value, known in (
            ("kind", kind, _KINDS),
            ("metric", metric, _METRICS),
            ("profile", profile, _PROFILES),
        ):
            if value is not None and value not in known:
                raise InvalidArgument(f"{field} must be one of {', '.join(known)}", field=field)
        chosen = None if kind == "auto" else kind
        self._budget_bytes = parse_bytes(memory_budget, "memory_budget")
        self.path = Path(path).expanduser().resolve()
        wanted = Wanted(dim, metric, chosen, profile, params)
        self._shared = SharedIndex.open(
            self.path,
            wanted,
            threads=threads,
            readonly=readonly,
            budget_bytes=self._budget_bytes,
        )
        self._readonly = readonly
        self._closed = False

    # --- reading ---------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        allowed: ArrayLike | VectorFilter | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """The min(k, matches) nearest of the index, or of the ids ``allowed``.

        ``queries`` is (dim,) or (q, dim); ``allowed`` an integer array, a pyroaring bitmap, or what
        ``filter`` made of one. Returns (q, k) uint64 ids padded with 2**64 - 1 and (q, k) float32
        distances, ascending, padded with +inf. ``effort`` is how many are examined closely
        (re-scored; ef of a graph): recall grows with it; ``exact`` re-scores all. Raises
        ``DimensionMismatch``, ``InvalidArgument``, ``StoreCorrupt``.
        """
        shared = self._open_shared()
        given = _vectors(shared.spec, queries, "queries")
        with shared.snapshot() as view:
            chosen = allowed_of(view.txn, view.book, allowed)
            return _search(view, given, k, chosen, effort, exact)

    def within(
        self, query: ArrayLike, radius: float, allowed: ArrayLike | VectorFilter | None = None
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Every vector at a distance of at most ``radius`` from one query, nearest first.

        Returns (m,) ids and (m,) distances; exact with respect to what the profile keeps. Raises
        ``DimensionMismatch``, ``InvalidArgument``, ``StoreCorrupt``.
        """
        shared = self._open_shared()
        given = _vectors(shared.spec, query, "query")
        with shared.snapshot() as (txn, book, files):
            chosen = allowed_of(txn, book, allowed)
            slots, distances = files.within(given, radius, allowed=chosen.encoded)
            fresh = _fresh_distances(shared.spec, given, chosen.fresh)[0]
        near = fresh <= radius
        ids = np.concatenate((book.ids[slots], book.ids[chosen.fresh_slots[near]]))
        distances = np.concatenate((distances, fresh[near]))
        order = np.lexsort((ids, distances))
        return ids[order], distances[order]

    def filter(self, ids: ArrayLike) -> VectorFilter:
        """Compile a set of ids, for use as ``allowed`` in many searches.

        ``ids`` is an integer array or a pyroaring bitmap. The filter stays right when the index
        changes. Raises ``InvalidArgument``.
        """
        shared = self._open_shared()
        compiled = VectorFilter(ids)
        with shared.snapshot() as (txn, book, _):
            compiled.allowed(txn, book)
        return compiled

    def plan(
        self,
        k: int = 10,
        allowed: ArrayLike | VectorFilter | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> SearchPlan:
        """What a search with these arguments does: which way, why, and what it touches a query."""
        shared = self._open_shared()
        with shared.snapshot() as (txn, book, files):
            chosen = allowed_of(txn, book, allowed)
            plan = files.plan(chosen.encoded, k, effort=effort, exact=exact)
            return replace(plan, fresh=len(chosen.fresh_slots))

    def get(self, ids: ArrayLike) -> NDArray[np.float32] | NDArray[np.uint8]:
        """(n, dim) float32 vectors at the profile's precision, or (n, dim / 8) uint8 packed bits.

        Raises ``NotFound`` for an unknown id.
        """
        shared = self._open_shared()
        numbers = as_ids(ids, "ids")
        with shared.snapshot() as (txn, book, files):
            slots_by_id = vector_book.find_slots(txn, numbers)
            for number in numbers.tolist():
                if number not in slots_by_id:
                    raise NotFound(f"id {number} is not in the index")
            slots = np.array([slots_by_id[number] for number in numbers.tolist()], np.uint32)
            vectors = np.empty((len(slots), shared.spec.dim), np.float32)
            in_files = vector_book.in_files(book.states[slots])
            vectors[in_files] = files.fetch(slots[in_files])
            places = np.argsort(book.fresh_slots)
            at = np.searchsorted(book.fresh_slots, slots[~in_files], sorter=places)
            vectors[~in_files] = book.fresh[places[at]]
        if shared.spec.metric == "hamming":
            return np.packbits(vectors > 0, axis=1, bitorder="little")
        return vectors

    def __len__(self) -> int:
        with self._open_shared().snapshot() as (_, book, _):
            return book.state.count

    def __contains__(self, id: object) -> bool:
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < NO_ID:
            return False
        with self._open_shared().snapshot() as (txn, _, _):
            return vector_book.has_id(txn, int(id))

    def stats(self) -> dict[str, Any]:
        """Counts by state, settings, and bytes by file."""
        shared = self._open_shared()
        with shared.snapshot() as view:
            _, book, files = view
            counts = np.bincount(book.states, minlength=5).tolist()
            return {
                "count": book.state.count,
                "kind": book.state.kind,
                "dim": shared.spec.dim,
                "metric": shared.spec.metric,
                "profile": files.spec.profile,
                "converting": vector_convert.progress_of(book),
                "fresh": counts[vector_book.FRESH],
                "encoded": counts[vector_book.ENCODED] + counts[vector_book.LINKED],
                "retired": counts[vector_book.RETIRED],
                "memory_bytes": shared.memory_bytes(len(book.states)),
                "kernels": files.kernels.name,
                **files.stats(),
                **_graph_stats(view),
                **shared.builder.counts(view.files),
            }

    def check(self) -> dict[str, Any]:
        """Read everything: {"ok", "problems", "checked"}. A page of the graph that a crash tore is
        told until ``wait``; it costs speed, and is made again."""
        return vector_check.check(self._open_shared())

    # --- writing ---------------------------------------------------------------------------

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Enter (n, dim) vectors under n ids, replacing those of ids that exist; durable.

        An id given twice keeps its last vector. Batches of up to 65,536 are atomic. Raises
        ``DimensionMismatch``, ``InvalidArgument``, ``BudgetExceeded``, ``StoreFull``.
        """
        shared = self._for_writing()
        numbers = as_ids(ids, "ids")
        matrix = _vectors(shared.spec, vectors, "vectors")
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
        return shared.remove(as_ids(ids, "ids"))

    def convert(self, profile: str, *, progress: Progress = None) -> None:
        """Keep vectors at a smaller ``profile`` from now on; returns when that is so.

        Others read and write meanwhile. A conversion that is cut off goes on when it is called
        again, in any process; another ``profile`` begins anew, the present one gives it up.
        ``progress``: True for a bar on a terminal, or a callable given (vectors done, vectors).
        Raises ``Conflict`` for a profile that would keep more than there is.
        """
        shared = self._for_writing()
        target = check_target(shared.spec, profile)
        with reporting(progress, len(self), f"to {target}") as report:
            shared.convert(target, report)

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
    view: View,
    queries: Floats,
    k: int,
    allowed: Allowed,
    effort: int | None,
    exactly: bool,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Files and fresh vectors of one snapshot, merged."""
    _, book, files = view
    slots, distances = files.search(
        queries, k, allowed=allowed.encoded, effort=effort, exact=exactly
    )
    ids = _ids_at(book, slots, np.isfinite(distances))
    if not len(allowed.fresh_slots):
        return ids, distances
    places, fresh_distances = exact.scan(queries, allowed.fresh, k, files.spec.metric)
    near = np.isfinite(fresh_distances)
    fresh_ids = _ids_at(book, allowed.fresh_slots[np.where(near, places, 0)], near)
    return exact.merge([(ids, distances), (fresh_ids, fresh_distances)], k, padding=NO_ID)


def _fresh_distances(spec: SpaceSpec, query: Floats, fresh: Floats) -> Floats:
    if not len(fresh):
        return np.empty((1, 0), np.float32)
    return exact.distances(query, fresh, spec.metric)


def _vectors(spec: SpaceSpec, values: ArrayLike, field: str) -> Floats:
    """(n, dim) float32 of what the caller gave; packed bits become zeros and ones."""
    if spec.metric != "hamming":
        return as_vectors(values, spec.dim, field=field)
    given = np.asarray(values)
    if given.dtype != np.uint8 or given.ndim not in (1, 2):
        raise InvalidArgument(f"{field} of a hamming index are packed bits, uint8", field=field)
    packed = given.reshape(1, -1) if given.ndim == 1 else given
    if packed.shape[1] * 8 != spec.dim:
        raise DimensionMismatch(
            f"{field} have {8 * packed.shape[1]} bits, not {spec.dim}", field=field
        )
    return np.unpackbits(packed, axis=1, bitorder="little").astype(np.float32)


def _graph_stats(view: View) -> dict[str, Any]:
    graph, book = view.graph, view.book
    if graph is None:
        return {}
    problem = graph.graph_problem
    return {
        "params": dict(book.state.params),
        "waiting": graph.waiting(book.encoded).count,
        **({"io": graph.io} if isinstance(graph, Drafting) else {}),
        "graph_problem": None if problem is None else str(problem),
    }


def _ids_at(book: Book, slots: Slots, sound: NDArray[np.bool_]) -> Ids:
    if sound.all():  # as most searches find
        return book.ids[slots]
    ids = np.full(slots.shape, NO_ID, np.uint64)
    ids[sound] = book.ids[slots[sound]]
    return ids
