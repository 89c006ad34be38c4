"""``VectorIndex``: the index on its own, for those who bring vectors and 64-bit ids.

A directory holds the engine's files and a small ``kv/``, whose commits alone say what is in the
index. New vectors are *fresh* (durable in ``kv/``, scanned exactly) and are moved into the files
4,096 at a time; large batches go there at once. Any number of processes may read and write: writers
take turns by LMDB's lock, readers see a commit at their next call. Ids and slots are kept by
``vector_book``; distances by ``memdb.index``. This file joins the two and checks arguments.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import settings, vector_book
from memdb.errors import (
    BudgetExceeded,
    Conflict,
    DimensionMismatch,
    InvalidArgument,
    MemdbError,
    NotFound,
    PermissionDenied,
)
from memdb.index import exact, layout
from memdb.index.flat import FlatIndex
from memdb.index.protocol import Encoded, Metric, Profile, SpaceSpec, as_vectors
from memdb.index.slots import SlotSet
from memdb.sizes import parse_bytes
from memdb.storage.environment import Environment, ReadTxn, WriteTxn
from memdb.vector_book import Book, Draft, Floats, Ids, State

NO_ID = 2**64 - 1
"""Pads answers that have fewer than k results; their distance is +inf."""

_DIRECT_ROWS = 512  # batches of at least this many are encoded without being fresh first
_BATCH_ROWS = 65_536  # one transaction; what a crash in a larger add may leave behind
_REAP_AT = 256  # retired slots worth two syncs
_BOOK_BYTES = 9  # memory a slot takes in the book
_KINDS = ("auto", "flat")
_LATER = {"kind": ("hnsw", "ssd"), "metric": ("hamming",)}


class VectorIndex:
    """Nearest neighbours of vectors named by integers, durable in one directory.

    ``dim`` is needed to make an index; on an existing one None means as stored, and another
    value is ``DimensionMismatch`` (dim) or ``Conflict`` (metric, kind, profile). ``metric`` is
    "cosine" (1 - cos), "ip" (-ip) or "l2" (squared), "cosine" for a new index; ``profile`` is
    "standard" (8 bits a coordinate) or "exact" (float16). ``memory_budget`` bounds what stays in
    memory: codes and ids; beyond it ``add`` raises ``BudgetExceeded``. Thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dim: int | None = None,
        metric: str | None = None,
        kind: str = "auto",
        profile: str | None = None,
        params: Mapping[str, Any] | None = None,
        memory_budget: int | str = "128MiB",
        threads: int = 1,
        readonly: bool = False,
    ) -> None:
        for field, value in (("kind", kind), ("metric", metric)):
            if value in _LATER[field]:
                raise InvalidArgument(f"{field} {value!r} is not offered yet", field=field)
        if kind not in _KINDS:
            raise InvalidArgument(f"kind must be one of {_KINDS}", field="kind")
        if params:
            raise InvalidArgument("a flat index takes no params", field="params")
        self._budget_bytes = parse_bytes(memory_budget, "memory_budget")
        self.path = Path(path).expanduser().resolve()
        self._shared = _Shared.open(
            self.path, dim, metric, profile, threads=threads, readonly=readonly
        )
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
        padded with +inf. ``effort`` is how many are re-scored: recall grows with it; ``exact``
        re-scores all. Raises ``DimensionMismatch``, ``InvalidArgument``, ``StoreCorrupt``.
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
        """Return when background work has caught up: bytes of what was removed are zeroed."""
        shared = self._open_shared()
        if not self._readonly:
            shared.reap()

    # --- life ------------------------------------------------------------------------------

    def _open_shared(self) -> _Shared:
        if self._closed:
            raise MemdbError("the index is closed", hint="open it again")
        if self._shared.forked:
            raise MemdbError(
                "the index was opened before this process forked",
                hint="open it again in the child process",
            )
        return self._shared

    def _for_writing(self) -> _Shared:
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


class _Shared:
    """One directory while this process has it open, for all its handles."""

    def __init__(
        self,
        path: Path,
        dim: int | None,
        metric: str | None,
        profile: str | None,
        *,
        threads: int,
        readonly: bool,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self.forked = False
        self._references = 1
        self._write_guard = threading.RLock()
        self._book_guard = threading.Lock()
        self._book: Book | None = None
        kv = path / "kv"
        if readonly and not kv.is_dir():
            raise NotFound(f"there is no index at {path}")
        _make_directory(path, kv)
        self._env = Environment(kv, readonly=readonly)
        try:
            state = self._load_or_make(dim, metric, profile)
            self._check_settings(state, dim, metric, profile)
            spec = SpaceSpec.from_dict(state.spec)
            self.files = FlatIndex(path, spec, writable=not readonly, threads=threads)
        except BaseException:
            self._env.close()
            raise
        _all_shared.add(self)

    @classmethod
    def open(
        cls,
        path: Path,
        dim: int | None,
        metric: str | None,
        profile: str | None,
        *,
        threads: int,
        readonly: bool,
    ) -> _Shared:
        """The process's one view of a directory: LMDB must not be opened twice in a process."""
        with _registry_guard:
            shared = _registry.get(path)
            if shared is None:
                shared = cls(path, dim, metric, profile, threads=threads, readonly=readonly)
                _registry[path] = shared
                return shared
            if shared.readonly and not readonly:
                raise InvalidArgument(
                    "this process has the index open read-only already", field="readonly"
                )
            with shared.snapshot() as (_, book):
                shared._check_settings(book.state, dim, metric, profile)
            shared._references += 1
            return shared

    def release(self) -> None:
        with _registry_guard:
            self._references -= 1
            if self._references or self.forked:
                return
            _registry.pop(self.path, None)
        self.files.close()
        self._env.close()

    def _load_or_make(self, dim: int | None, metric: str | None, profile: str | None) -> State:
        with self._env.read() as txn:
            state = vector_book.load_state(txn)
        if state is not None:
            return state
        if self.readonly:
            raise NotFound(f"there is no index at {self.path}")
        if dim is None:
            raise InvalidArgument("dim is needed to make an index", field="dim")
        spec = SpaceSpec(
            dim=dim,
            metric=cast(Metric, metric or "cosine"),
            profile=cast(Profile, profile or settings.DEFAULT_PROFILE),
        )
        with self._env.write() as txn:
            state = vector_book.load_state(txn)  # another process may have been first
            if state is None:
                state = State(spec=spec.to_dict())
                vector_book.save_state(txn, state)
        return state

    @staticmethod
    def _check_settings(
        state: State, dim: int | None, metric: str | None, profile: str | None
    ) -> None:
        spec = SpaceSpec.from_dict(state.spec)
        if dim is not None and dim != spec.dim:
            raise DimensionMismatch(f"the index has {spec.dim} dimensions, not {dim}", field="dim")
        for field, wanted, stored in (
            ("metric", metric, spec.metric),
            ("profile", profile, spec.profile),
        ):
            if wanted is not None and wanted != stored:
                raise Conflict(f"the index has {field} {stored!r}, not {wanted!r}")

    @property
    def spec(self) -> SpaceSpec:
        return self.files.spec

    def memory_bytes(self, capacity: int) -> int:
        """What ``capacity`` slots keep in memory: codes with their factors, and the book."""
        return capacity * (8 * layout.words_of(self.spec.dim) + 8 + _BOOK_BYTES)

    # --- transactions ----------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[tuple[ReadTxn, Book]]:
        """One state of everything, kept from being overwritten until the block ends."""
        with self._env.read() as txn:
            yield txn, self._current_book(txn)

    def _current_book(self, txn: ReadTxn) -> Book:
        state = vector_book.load_state(txn)
        if state is None:
            raise NotFound(f"there is no index at {self.path}")
        with self._book_guard:
            known = self._book
            if known is not None and known.sequence == state.sequence:
                return known
            book = vector_book.load_book(txn, state, self.spec.dim, known)
            if known is None or known.sequence < book.sequence:
                self._book = book
                self.files.refresh(SpaceSpec.from_dict(state.spec))
            return book

    def _write(self, change: Callable[[WriteTxn, Draft], None]) -> None:
        """Commit one change of the book, then show it to this process."""
        with self._write_guard:
            with self._env.write() as txn:
                draft = Draft(txn, self._current_book(txn))
                change(txn, draft)
                book = draft.save()
            with self._book_guard:
                self._book = book
                self.files.refresh(SpaceSpec.from_dict(book.state.spec))

    # --- changes ---------------------------------------------------------------------------

    def add(self, ids: Ids, vectors: Floats, budget_bytes: int) -> None:
        with self._write_guard:
            direct = len(ids) >= _DIRECT_ROWS and self.files.trained
            encoded = self.files.encode(vectors) if direct else None

            def enter(txn: WriteTxn, draft: Draft) -> None:
                draft.drop(vector_book.find_slots(txn, ids), self._next_transaction())
                if encoded is None and len(ids) >= settings.FRESH_VECTORS_MAX:
                    self._train(draft, vectors)
                self._enter(draft, ids, vectors, encoded, budget_bytes)

            self._write(enter)
            book = self._book
            if book is not None and len(book.fresh_slots) >= settings.FRESH_VECTORS_MAX:
                self._write(lambda txn, draft: self._encode_fresh(txn, draft))
            self._reap_when_worth_it()

    def _enter(
        self,
        draft: Draft,
        ids: Ids,
        vectors: Floats,
        encoded: Encoded | None,
        budget_bytes: int,
    ) -> None:
        slots = draft.take(len(ids))
        needed = self.memory_bytes(len(draft.states))
        if needed > budget_bytes:
            raise BudgetExceeded(
                f"the index would keep {needed} bytes in memory; memory_budget is {budget_bytes}"
            )
        if encoded is None and len(ids) >= _DIRECT_ROWS and self.files.trained:
            encoded = self.files.encode(vectors)
        if encoded is not None:
            self.files.prepare(slots, encoded)
        draft.enter(ids, slots, None if encoded is not None else vectors)

    def _train(self, draft: Draft, sample: Floats) -> None:
        """Fix the centre on what is there, unless another process has done so."""
        if self.files.trained:
            return
        stride = max(1, len(sample) // settings.FRESH_VECTORS_MAX)
        draft.spec = self.files.train(sample[::stride]).to_dict()

    def _encode_fresh(self, txn: WriteTxn, draft: Draft) -> None:
        book = self._current_book(txn)
        if not len(book.fresh_slots):
            return
        self._train(draft, book.fresh)
        self.files.prepare(book.fresh_slots, self.files.encode(book.fresh))
        draft.encode(book.fresh_slots)

    def remove(self, ids: Ids) -> int:
        removed = 0

        def drop(txn: WriteTxn, draft: Draft) -> None:
            nonlocal removed
            found = vector_book.find_slots(txn, ids)
            draft.drop(found, self._next_transaction())
            removed = len(found)

        self._write(drop)
        self._reap_when_worth_it()
        return removed

    def _next_transaction(self) -> int:
        """The id of the write transaction that is open."""
        return self._env.info()["last_txnid"] + 1

    def _horizon(self) -> int:
        """Snapshots older than this transaction are gone, in every process."""
        last = self._env.info()["last_txnid"]
        oldest = self._env.oldest_reader()
        return last if oldest is None else min(last, oldest)

    def _reap_when_worth_it(self) -> None:
        with self._env.read() as txn:
            retired = len(vector_book.due_slots(txn, self._horizon())[0])
        if retired >= _REAP_AT:
            self.reap()

    def reap(self) -> None:
        """Zero the slots that were removed and that no reader can see, and free them."""

        def clear(txn: WriteTxn, draft: Draft) -> None:
            slots, keys = vector_book.due_slots(txn, self._horizon())
            if len(slots):
                self.files.clear(slots)
                draft.free(slots, keys)

        with self._env.read() as txn:
            pending = vector_book.due_slots(txn, 2**63)[0]
        if len(pending):
            self._write(clear)


def _search(
    shared: _Shared,
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


def _make_directory(path: Path, kv: Path) -> None:
    if (path / "FORMAT").exists():
        raise InvalidArgument("the directory is a memdb database", field="path")
    try:
        kv.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionDenied("the index's directory cannot be made there") from error


_registry: dict[Path, _Shared] = {}
_registry_guard = threading.Lock()
_all_shared: weakref.WeakSet[_Shared] = weakref.WeakSet()


def _disown_after_fork() -> None:
    """A forked child must not use its parent's environments: LMDB's locks would break."""
    global _registry_guard
    _registry_guard = threading.Lock()
    for shared in list(_all_shared):
        shared.forked = True
    _registry.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_after_fork)
