"""Keeping the graph of a ``VectorIndex`` up to date in place: what waits is linked, what was
removed is taken out and zeroed, some 64 slots at a time.

For the holder of ``graph.lock``, who alone changes graph.bin. Pages are durable before the commit
that says their slots are linked, and before the one that frees slots; a crash in between leaves
slots that wait, which are linked again. Who begins writes its name down first: where it finds
another's, it looks the file over for what that one may have left. This file orders steps; linking
itself is ``memdb.index``'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from memdb import settings, vector_book
from memdb.index import engines
from memdb.index.protocol import Drafting, Live
from memdb.storage.environment import WriteTxn
from memdb.vector_book import Book, Draft, Slots

if TYPE_CHECKING:
    from memdb.vector_shared import SharedIndex

AT_ONCE: Final = 64
_QUEUED: Final = 8192
_PATIENCE_MS: Final = 250  # some five times what a change of so many slots takes
_SHARE_RETIRED: Final = 16  # one in so many of all slots: more, and who writes helps
_NO_PAGES: Final = np.empty(0, np.uint32)


def retired(book: Book) -> int:
    """How many slots wait to be zeroed."""
    return int(np.count_nonzero(book.states == vector_book.RETIRED))


def too_many_retired(book: Book) -> bool:
    """Whether files would grow by what was removed, were it not taken out soon."""
    return retired(book) > max(settings.GRAPH_RETIRED_MOST, len(book.states) // _SHARE_RETIRED)


class LiveWork:
    """The work in place of one process; one step at a time, while it holds the lock."""

    def __init__(self, shared: SharedIndex) -> None:
        self._shared = shared
        self._name = os.urandom(16)
        self._live: Live | None = None
        self._of: engines.AnyEngine | None = None
        self._queue: Slots = np.empty(0, np.uint32)
        self._linked: list[Slots] = []
        self.counts = {"linked_in_place": 0, "taken_out": 0}

    def is_due(self, book: Book, files: Drafting, *, all_of_it: bool) -> bool:
        """Whether enough waits, or is to be taken out."""
        if self._linked or len(self._queue):
            return True
        waiting = files.linkable(book.encoded)
        return waiting >= (1 if all_of_it else AT_ONCE) or retired(book) >= (
            1 if all_of_it else settings.GRAPH_REAP_AT
        )

    def step(self, *, all_of_it: bool) -> bool:
        """Some tens of milliseconds of work; whether there was any."""
        live = self._begun()
        if live is not None:  # nobody waits for it, unless all of it was asked for
            live.patience_ms = 0 if all_of_it else _PATIENCE_MS
        if self._reap(live, settings.GRAPH_REAP_AT):
            return True
        if live is not None and (self._link(live) or self._queued(live)):
            return True
        return all_of_it and self._reap(live, 1)

    def _begun(self) -> Live | None:
        """The graph as this process changes it, begun anew where another was at it since; None
        where there is none."""
        files = self._shared.files
        live = self._live
        if live is not None and (self._of is not files or live.is_replaced):
            self._let_go()
            live = None
        if live is None and isinstance(files, Drafting) and files.has_graph:
            self._shared.write(lambda txn, _: vector_book.begin_session(txn, self._name))
            live = self._live = files.live()
            self._of = files if live is not None else None
        return live

    def resume(self) -> None:
        """The lock was taken again: what is known holds if nobody else began meanwhile."""
        if self._live is not None:
            with self._shared.snapshot() as view:
                if vector_book.graph_session(view.txn) != self._name:
                    self._let_go()

    # --- linking ---------------------------------------------------------------------------

    def _queued(self, live: Live) -> bool:
        """Take what waits, those near to each other together."""
        with self._shared.snapshot() as view:
            files = view.files
            if files is not self._of or not isinstance(files, Drafting):
                return True
            waiting = files.waiting(view.book.encoded)
            if not waiting or not files.linkable(view.book.encoded):
                return False
            self._queue = live.ordered(waiting.array[:_QUEUED])
        return self._link(live)

    def _link(self, live: Live) -> bool:
        part, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
        if len(part):
            with self._shared.snapshot() as view:
                states = view.book.states
            part = part[part < len(states)]
            part = np.ascontiguousarray(part[vector_book.in_files(states[part])])
            live.link(part)
            self._linked.append(part)
        if not self._linked:
            return False
        if not len(self._queue) or sum(map(len, self._linked)) >= settings.GRAPH_COMMIT_AT:
            self._commit(live)
        return True

    def _commit(self, live: Live) -> None:
        slots, pages = np.concatenate(self._linked), live.flush()
        self._linked.clear()

        def publish(_: WriteTxn, draft: Draft) -> None:
            held = slots[slots < len(draft.states)]
            held = held[draft.states[held] == vector_book.ENCODED]
            draft.link(held)
            draft.pages = pages

        self._shared.write(publish)
        self.counts["linked_in_place"] += len(slots)

    # --- taking out ------------------------------------------------------------------------

    def relieve(self) -> bool:
        """Take out and zero some of what was removed; whether there was enough of it."""
        live = self._begun()
        if live is not None:
            live.patience_ms = 0
        return self._reap(live, settings.GRAPH_REAP_AT)

    def _reap(self, live: Live | None, least: int) -> bool:
        """Take out of the graph, zero and free what no snapshot can see; whether there was any."""
        slots, keys = self._shared.due(settings.GRAPH_REAP_AT)
        if len(slots) < least:
            return False
        if live is not None:
            if self._linked:
                self._commit(live)
            self._queue = self._queue[~np.isin(self._queue, slots)]
            placed = slots[live.is_placed(slots)]
            live.unlink(placed)
            self.counts["taken_out"] += len(placed)
        pages = live.flush() if live is not None else _NO_PAGES

        def clear(_: WriteTxn, draft: Draft) -> None:
            self._shared.zero(draft, slots, keys)
            draft.pages = pages

        self._shared.write(clear)
        return True

    # --- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Commit what was linked; the thread that steps has ended."""
        live = self._live
        try:
            if live is not None and self._linked:
                self._commit(live)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        live, self._live, self._of = self._live, None, None
        self._linked.clear()
        self._queue = np.empty(0, np.uint32)
        if live is not None:
            live.close()

    def give_up(self) -> None:
        """Something failed: what is known may be wrong, and what was not committed waits."""
        self._let_go()

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self._live = self._of = None
        self._linked.clear()
