"""One ``VectorIndex`` directory while this process has it open, for all its handles.

The small LMDB environment in ``kv/`` is the only commit point: every change writes and syncs the
engine's files first, inside a write transaction of it, so that writers of all processes take
turns, and readers go on. What was removed is zeroed when no snapshot of any process can see it.
This file orders transactions, the book (``vector_book``) and the files (``memdb.index``); it does
not check what callers pass.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from memdb import (
    settings,
    vector_book,
    vector_convert,
    vector_graph,
    vector_linker,
    vector_making,
)
from memdb.errors import (
    BudgetExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    StoreCorrupt,
)
from memdb.index import engines, layout
from memdb.index.convert import remove_others
from memdb.index.protocol import Drafting, Encoded, Graphed, Linking, Profile, SpaceSpec
from memdb.storage.environment import Environment, ReadTxn, WriteTxn
from memdb.vector_book import Book, Draft, Floats, Ids, Slots, State
from memdb.vector_convert import check_profile, engine_of
from memdb.vector_shown import Shown, View
from memdb.vector_wanted import BOOK_BYTES, Wanted

_LINKED_AT_ONCE: Final = 64  # searches that come meanwhile scan
_SAVED_AT: Final = 4096  # linked slots; fewer are saved when the index is closed
_UNSAVED_SHARE: Final = 0.2
_OUTRUN: Final = 8  # snapshots that a newer book may outrun; the next one is read as it is
_LEAST_PAUSE_S: Final = 0.001  # between steps of a conversion: whoever waits for the lock gets it


class SharedIndex:
    """One directory while this process has it open, for all its handles."""

    def __init__(
        self,
        path: Path,
        wanted: Wanted,
        *,
        threads: int,
        readonly: bool,
        budget_bytes: int,
    ) -> None:
        self.path = path
        self.budget_bytes = budget_bytes
        self.readonly = readonly
        self.forked = False
        self._how: dict[str, Any] = {
            "writable": not readonly,
            "threads": threads,
            "access": wanted.access(budget_bytes),
        }
        self._references = 1
        self._write_guard = threading.RLock()
        self._book_guard = threading.Lock()
        self._shown = Shown()
        kv = path / "kv"
        if not (readonly or kv.is_dir()):
            wanted.new_state()  # what is wrong with it is said before anything is made
        with ExitStack() as undone:
            with vector_making.opening(path, kv, readonly=readonly):
                self._env = Environment(kv, readonly=readonly)
                undone.callback(self._env.close)
                state = vector_making.load_or_make(self._env, wanted, path)
            wanted.check(state)
            self.files = self._open_current(state)
            self.tidy()
            undone.pop_all()
        self.builder = vector_graph.Builder(self)
        self._linker = vector_linker.Linker(self._link)
        self._wake_linker()
        _all_open.add(self)

    @classmethod
    def open(
        cls,
        path: Path,
        wanted: Wanted,
        *,
        threads: int,
        readonly: bool,
        budget_bytes: int,
    ) -> SharedIndex:
        """The process's one view of a directory: LMDB must not be opened twice in a process."""
        with _registry_guard:
            shared = _registry.get(path)
            if shared is None:
                shared = cls(
                    path, wanted, threads=threads, readonly=readonly, budget_bytes=budget_bytes
                )
                _registry[path] = shared
                return shared
            if shared.readonly and not readonly:
                raise InvalidArgument(
                    "this process has the index open read-only already", field="readonly"
                )
            with shared.snapshot() as (_, book, _):
                wanted.check(book.state)
            shared._references += 1
            return shared

    def release(self) -> None:
        # The guard is kept: who opens the directory meanwhile must not find LMDB open still.
        with _registry_guard:
            self._references -= 1
            if self._references or self.forked:
                return
            _registry.pop(self.path, None)
            self._linker.stop()
            try:
                self.builder.close()
                self._save_graph()
            finally:
                self.files.close()
                self._env.close()

    def _open_current(self, state: State) -> engines.AnyEngine:
        """The engine of the present kind and profile, which another process may change."""
        while True:
            try:
                return self._open_engine(state)
            except StoreCorrupt:
                newer = self._stored_state()
                if engine_of(newer) == engine_of(state):
                    raise
                state = newer

    def _open_engine(self, state: State) -> engines.AnyEngine:
        spec = SpaceSpec.from_dict(state.spec)
        engine = engines.open_engine(state.kind, self.path, spec, state.params, **self._how)
        self._engine = engine_of(state)
        return engine

    def _stored_state(self) -> State:
        with self._env.read() as txn:
            return self._state(txn)

    def _state(self, txn: ReadTxn) -> State:
        state = vector_book.load_state(txn)
        if state is None:
            raise NotFound(f"there is no index at {self.path}")
        return state

    @property
    def spec(self) -> SpaceSpec:
        return self.files.spec

    @property
    def linking(self) -> Linking | None:
        return self.files if isinstance(self.files, Linking) else None

    @property
    def book(self) -> Book | None:
        """The newest that this process has seen."""
        return self._shown.book

    def memory_bytes(self, capacity: int) -> int:
        """What ``capacity`` slots keep in memory: codes, their factors, the book, and a graph."""
        files = self.files
        graph = files.memory_bytes(capacity) if isinstance(files, Graphed) else 0
        codes = layout.block_bytes(self.spec.dim) // layout.BLOCK_ROWS
        return capacity * (codes * self.spec.has_codes + BOOK_BYTES) + graph

    # --- transactions ----------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[View]:
        """One state of everything, kept from being overwritten until the block ends."""
        for attempt in itertools.count():
            with self._env.read() as txn:
                view = self._view_unless_outrun(txn, again=attempt < _OUTRUN)
                if view is not None:
                    yield view
                    return

    def _view_unless_outrun(self, txn: ReadTxn, *, again: bool) -> View | None:
        """None where a conversion has ended since: the snapshot's files may be gone; and, if it may
        be asked again, where a newer book is at hand."""
        try:
            return self._view(txn, again=again)
        except StoreCorrupt:
            if self._stored_state().spec == self._state(txn).spec:
                raise
            return None

    def _view(self, txn: ReadTxn, *, again: bool = False) -> View | None:
        """None for a snapshot from before the engine took another's place."""
        state = self._state(txn)
        view = self._shown.view(txn, state.sequence)
        if view is not None:
            return view
        self._shown.wait_for(state.sequence)
        with self._book_guard:
            view = self._shown.view(txn, state.sequence)
            if view is not None or (again and self._shown.is_past(state.sequence)):
                return view
            known = self._shown.book
            book = vector_book.load_book(txn, state, self.spec.dim, known)
            if known is None or known.sequence < book.sequence:
                since = known.sequence if known is not None else 0
                self._show(book, vector_book.pages_since(txn, since, state.sequence))
                if known is not None:
                    self._recheck(txn, known.sequence, state.sequence)
            elif engine_of(state) != self._engine:
                return None
            return View(txn, book, self.files)

    def _current_book(self, txn: WriteTxn) -> Book:
        view = self._view(txn)
        if view is None:
            raise StoreCorrupt("the index went back to an earlier state", path="kv")
        return view.book

    def _show(self, book: Book, pages: Slots | None) -> None:
        """Make a committed book the present one; of another kind or profile, with an engine of
        its own. ``pages`` of the graph were written since the one before, or any.

        Searches that have the old engine end with it: nobody closes it, and files that are mapped
        outlast their names.
        """
        if engine_of(book.state) == self._engine:
            self.files.refresh(SpaceSpec.from_dict(book.state.spec))
        else:
            self.files = self._open_engine(book.state)
        if isinstance(self.files, Drafting):
            self.files.changed(pages)
            self.files.mark_linked(book.linked)
        self._shown.put(book, self.files)

    def _recheck(self, txn: ReadTxn, known: int, wanted: int) -> None:
        linking = self.linking
        if linking is not None:
            linking.recheck(vector_book.slots_since(txn, known, wanted))
        self._wake_linker()

    def write(self, change: Callable[[WriteTxn, Draft], None]) -> None:
        """Commit one change of the book, then show it to this process."""
        with self._write_guard:
            with self._shown.committing() as coming:
                with self._env.write() as txn:
                    draft = Draft(txn, self._current_book(txn))
                    change(txn, draft)
                    book = draft.save()
                    coming(book.sequence)
                with self._book_guard:
                    self._show(book, draft.pages)
            self._wake_linker()

    # --- changes ---------------------------------------------------------------------------

    def add(self, ids: Ids, vectors: Floats, budget_bytes: int) -> None:
        with self._write_guard:
            direct = len(ids) >= settings.INDEX_ENCODE_DIRECTLY_AT and self.files.trained
            encoder = self.files
            encoded = encoder.encode(vectors) if direct else None

            def enter(txn: WriteTxn, draft: Draft) -> None:
                draft.drop(vector_book.find_slots(txn, ids), self._next_transaction())
                # Another process may have ended a conversion: encoded again, then.
                usable = encoded if encoder is self.files else None
                if usable is None and len(ids) >= settings.FRESH_VECTORS_MAX:
                    self._train(draft, vectors)
                self._enter(draft, ids, vectors, usable, budget_bytes)

            self.write(enter)
            book = self.book
            if book is not None and len(book.fresh_slots) >= settings.FRESH_VECTORS_MAX:
                self.write(lambda txn, draft: self._encode_fresh(txn, draft))
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
        if encoded is None and len(ids) >= settings.INDEX_ENCODE_DIRECTLY_AT and self.files.trained:
            encoded = self.files.encode(vectors)
        if encoded is not None:
            self._put(draft, slots, encoded)
        draft.enter(ids, slots, None if encoded is not None else vectors)

    def _put(self, draft: Draft, slots: Slots, encoded: Encoded) -> None:
        self.files.prepare(slots, encoded)
        vector_convert.written(self.path, self.files, draft, slots)

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
        self._put(draft, book.fresh_slots, self.files.encode(book.fresh))
        draft.encode(book.fresh_slots)

    def remove(self, ids: Ids) -> int:
        removed = 0

        def drop(txn: WriteTxn, draft: Draft) -> None:
            nonlocal removed
            found = vector_book.find_slots(txn, ids)
            draft.drop(found, self._next_transaction())
            removed = len(found)

        self.write(drop)
        self._reap_when_worth_it()
        return removed

    def _next_transaction(self) -> int:
        """The id of the write transaction that is open."""
        return self._env.info()["last_txnid"] + 1

    def verify_pages(self) -> int:
        return self._env.verify_pages(deep=True)

    def _horizon(self) -> int:
        """Snapshots older than this transaction are gone, in every process."""
        last = self._env.info()["last_txnid"]
        oldest = self._env.oldest_reader()
        return last if oldest is None else min(last, oldest)

    def due(self, most: int | None = None) -> tuple[Slots, list[bytes]]:
        """Slots that were removed and that no snapshot can see, up to so many, and their keys."""
        with self._env.read() as txn:
            return vector_book.due_slots(txn, self._horizon(), most)

    def _reap_when_worth_it(self) -> None:
        if isinstance(self.files, Drafting):
            self.builder.relieve()
        elif len(self.due(settings.GRAPH_REAP_AT)[0]) == settings.GRAPH_REAP_AT:
            self.reap()

    def reap(self) -> None:
        """Zero and free what ``due`` names; in a graph's file, that is the builder's work."""

        def clear(txn: WriteTxn, draft: Draft) -> None:
            if not isinstance(self.files, Drafting):
                self.zero(draft, *vector_book.due_slots(txn, self._horizon()))

        if not isinstance(self.files, Drafting) and len(self.due(1)[0]):
            self.write(clear)

    def zero(self, draft: Draft, slots: Slots, keys: list[bytes]) -> None:
        """Zero retired slots that are in no graph, and free them."""
        if len(slots):
            self.files.clear(slots)
            vector_convert.cleared(self.path, self.files, draft, slots)
            draft.free(slots, keys)

    # --- another profile -------------------------------------------------------------------

    def convert(self, target: Profile, report: Callable[[int], None]) -> None:
        """Go down to ``target``, a short write transaction at a time; ``report`` vectors done."""
        check_profile(self._stored_state(), target)
        if not self._is_at(target):
            self.write(lambda _, draft: vector_convert.begin(self.path, draft, target))
        done = self._is_at(target)
        pace = vector_convert.Pace()
        while not done:
            started = time.monotonic()

            def step(_: WriteTxn, draft: Draft) -> None:
                nonlocal done, started
                started = time.monotonic()  # writers of other processes may have been first
                done = vector_convert.step(self.path, self.files, draft, target, pace.slots)

            self.write(step)
            pace.took((time.monotonic() - started) * 1e3)
            with self.snapshot() as (_, book, _):
                job = vector_convert.progress_of(book)
                report(book.state.count if job is None else job["done"])
            time.sleep(max(_LEAST_PAUSE_S, (time.monotonic() - started) / 4))
        self.tidy()

    def _is_at(self, target: Profile) -> bool:
        state = self._stored_state()
        return state.converting is None and vector_convert.profile_of(state) == target

    def tidy(self) -> None:
        """Remove what conversions left that ended or were given up, unless one is under way."""
        if self.readonly or not vector_convert.leftovers(self._stored_state(), self.path):
            return
        with self._write_guard, self._env.write() as txn:
            state = self._state(txn)
            # Windows keeps what a search has mapped: the next time, then.
            with suppress(PermissionDenied):
                if state.converting is None:
                    remove_others(self.path, SpaceSpec.from_dict(state.spec))

    # --- the graph -------------------------------------------------------------------------

    def _wake_linker(self) -> None:
        if self.linking is not None or self.builder.is_due():
            self._linker.wake()

    def _link(self) -> bool:
        """A step of the linker. The snapshot keeps the slots from being zeroed meanwhile."""
        if self.linking is None:
            return self.builder.step()
        with self.snapshot() as view:
            linking = view.linking
            if linking is None:
                return False
            if linking.link(view.book.encoded, _LINKED_AT_ONCE):
                return True
            linked = view.book.encoded.count
        if linked >= _SAVED_AT and linking.unsaved >= _UNSAVED_SHARE:
            self._save_graph()
        return False

    def _save_graph(self) -> None:
        """Inside a write transaction, so that processes take turns and none clears slots."""
        if self.linking is not None and not self.readonly and self.linking.unsaved:
            with self._env.write() as txn:
                self._current_book(txn)
                if self.linking is not None:
                    self.linking.save()

    def wait(self) -> None:
        """Until the graph has caught up and, if this handle writes, what was removed is zeroed."""
        if not self.readonly:
            self.reap()
            self.tidy()
        with self.snapshot():  # what other processes wrote is linked too
            self.builder.want_all(self._linker)
        self._linker.wait()
        self.builder.wait_for_others(self._linker)


_registry: dict[Path, SharedIndex] = {}
_registry_guard = threading.Lock()
_all_open: weakref.WeakSet[SharedIndex] = weakref.WeakSet()


def _disown_after_fork() -> None:
    """A forked child must not use its parent's environments: LMDB's locks would break."""
    global _registry_guard
    _registry_guard = threading.Lock()
    vector_linker.forget_all()
    for shared in list(_all_open):
        shared.forked = True
        shared.builder.let_go()
    _registry.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_after_fork)
