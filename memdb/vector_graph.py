"""Who builds the graph that all processes of a ``VectorIndex`` share and keeps it, and when.

One process at a time, the holder of ``graph.lock``. Where there is no graph, or so much waits that
writing all of it anew costs less than linking in place, it links what waits in memory, writes a
draft beside the present graph, and installs it in one transaction, until which nothing has changed,
whatever ends the process; some more say which slots are linked. Everything else is done in place
(``vector_live``). An index that may choose its kind becomes "ssd" here. This file knows drafts of
the book and when work is due; linking itself is ``memdb.index``'s.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from memdb import settings, vector_book
from memdb.errors import StoreCorrupt
from memdb.index import engines, planner
from memdb.index.flat import FlatIndex
from memdb.index.protocol import Build, Drafting
from memdb.storage.environment import WriteTxn
from memdb.storage.lease import Lease
from memdb.vector_book import Book, Draft, Slots
from memdb.vector_linker import Linker
from memdb.vector_live import LiveWork, too_many_retired

if TYPE_CHECKING:
    from memdb.vector_shared import SharedIndex

LOCK: Final = "graph.lock"
_LINKED_AT_ONCE: Final = 1024
_POLL_S: Final = 0.05
_PARTS: Final = 16  # commits that say what a build has linked; of so many slots or more
_PART_SLOTS: Final = 4096


class Builder:
    """The building of one index's graph by this process. ``step`` is for one thread."""

    def __init__(self, shared: SharedIndex) -> None:
        self._shared = shared
        self._lease = Lease(shared.path / LOCK)
        self._guard = threading.RLock()  # of a step: who writes may take one
        self.live = LiveWork(shared)
        self._build: Build | None = None
        self._want_all = False
        self._others_turn = False
        self._built = 0
        self._failed_with = 0  # so many slots waited when a build failed

    # --- when ------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether ``step`` has something to do."""
        shared = self._shared
        book, files = shared.book, shared.files
        if shared.readonly or book is None:
            return False
        return (
            self._build is not None
            or self._switch_due(book)
            or self._build_due(book, files)
            or self._live_due(book, files)
        )

    def _build_due(self, book: Book, files: engines.AnyEngine) -> bool:
        """Whether so much waits that linking all of it at once, in memory, costs less."""
        if not isinstance(files, Drafting) or not book.encoded:
            return False
        waiting = files.linkable(book.encoded)
        if self._want_all and not files.placed_count:
            return waiting > 0
        least = max(settings.GRAPH_BUILD_AT, 2 * self._failed_with)
        return waiting >= least and files.worth_building(waiting)

    def _live_due(self, book: Book, files: engines.AnyEngine) -> bool:
        return isinstance(files, Drafting) and self.live.is_due(
            book, files, all_of_it=self._want_all
        )

    def _switch_due(self, book: Book) -> bool:
        """Whether an index of kind "auto" is to have a graph."""
        shared, files = self._shared, self._shared.files
        if not book.state.auto or book.state.kind != "flat" or not isinstance(files, FlatIndex):
            return False
        if not files.spec.has_codes or not files.trained or book.state.converting is not None:
            return False
        if not planner.wants_graph(files.spec, book.encoded.count, files.calibration):
            return False
        slots = len(book.states)
        return shared.memory_bytes(slots) + engines.graph_bytes(slots) <= shared.budget_bytes

    def want_all(self, linker: Linker) -> None:
        """Link whatever waits, however little."""
        self._want_all = True
        linker.wake()

    def wait_for_others(self, linker: Linker) -> None:
        """Return when no other process is linking what waits."""
        while self._others_turn:
            time.sleep(_POLL_S)
            self._others_turn = False
            with self._shared.snapshot():
                self.want_all(linker)
            linker.wait()

    def counts(self, files: engines.AnyEngine) -> dict[str, int]:
        """What was done in place by this process, and graphs it built; of kind "ssd"."""
        if not isinstance(files, Drafting):
            return {}
        return {**self.live.counts, "graphs_built": self._built}

    # --- what ------------------------------------------------------------------------------

    def step(self) -> bool:
        """A little work; whether there may be more. What fails is begun again later."""
        with self._guard:
            try:
                return self._step()
            except BaseException:
                with self._shared.snapshot() as view:
                    files = view.files
                    waiting = (
                        files.linkable(view.book.encoded) if isinstance(files, Drafting) else 0
                    )
                self._failed_with = max(1, waiting)
                self.live.give_up()
                self._give_up()
                raise

    def _step(self) -> bool:
        shared = self._shared
        if shared.readonly:
            return False
        if self._build is not None:
            if self._build.link(_LINKED_AT_ONCE) == 0:
                self._commit(self._build)
            return True
        with shared.snapshot() as view:
            switch = self._switch_due(view.book)
            build = not switch and self._build_due(view.book, view.files)
            if not (switch or build or self._live_due(view.book, view.files)):
                self._want_all = False
                self._lease.release()
                return False
        if not self._has_lease():
            self._others_turn = True
            return False
        if switch:
            shared.write(self._become_ssd)
            return True
        if build:
            self.live.close()
            return self._begin()
        if self.live.step(all_of_it=self._want_all):
            return True
        self._want_all = False
        self._lease.release()
        return False

    def _has_lease(self) -> bool:
        if self._lease.held:
            return True
        if not self._lease.try_acquire():
            return False
        self.live.resume()
        return True

    def relieve(self) -> None:
        """Take out what was removed, where so much has gathered that files would grow by it."""
        book = self._shared.book
        while book is not None and too_many_retired(book):
            with self._guard:  # the thread that links takes its turn in between
                if self._build is not None or not self._has_lease() or not self.live.relieve():
                    return
            book = self._shared.book

    def _begin(self) -> bool:
        """The snapshot keeps slots from being cleared while their numbers are taken."""
        with self._shared.snapshot() as view:
            if isinstance(view.files, Drafting) and view.files.linkable(view.book.encoded):
                budget = self._shared.budget_bytes
                self._build = view.files.begin(view.book.encoded, memory_bytes=budget)
        if self._build is None:
            self._give_up()
        return self._build is not None

    def _commit(self, build: Build) -> None:
        """Install the draft and say which slots are linked. A commit that said it of all would
        write half of the book anew and leave as much free; those after the first use what was left
        before them. What a kill keeps from being said waits, and is linked again."""
        slots, seals = build.write()
        count = max(1, min(_PARTS, len(slots) // _PART_SLOTS))
        parts = zip(np.array_split(slots, count), np.array_split(seals, count), strict=True)
        for number, (mine, sealed) in enumerate(parts):

            def publish(
                _: WriteTxn, draft: Draft, mine: Slots = mine, sealed: Slots = sealed,
                first: bool = number == 0,
            ) -> None:  # fmt: skip
                files = self._shared.files
                if not isinstance(files, Drafting):
                    raise StoreCorrupt("the index is of another kind than it was", path="kv")
                if first:
                    files.install()
                    draft.pages = None
                inside = mine < len(draft.states)
                mine, sealed = mine[inside], sealed[inside]
                held = draft.states[mine] == vector_book.ENCODED
                held &= engines.files_of(self._shared.files).seals(mine) == sealed
                draft.link(mine[held])

            self._shared.write(publish)
        self._built += 1
        self._failed_with = 0
        self._give_up()

    def _become_ssd(self, _: WriteTxn, draft: Draft) -> None:
        """Rewrite the codes in rows; with the commit the index is of the other kind."""
        files = self._shared.files
        if draft.kind != "flat" or not isinstance(files, FlatIndex) or not files.trained:
            return
        files.rows = True
        files.rearrange()
        draft.kind, draft.params = "ssd", engines.complete_params("ssd", None)

    def _give_up(self) -> None:
        self._build = None
        self._lease.release()

    def let_go(self) -> None:
        """In a forked child: the build and the lock are the parent's."""
        self._build = None
        self._guard = threading.RLock()
        self.live.forget()
        self._lease.let_go()

    def close(self) -> None:
        """Keep what was linked so far; the thread that calls ``step`` has ended."""
        build = self._build
        try:
            if build is not None and build.linked_now >= settings.GRAPH_BUILD_AT:
                self._commit(build)
            self.live.close()
        finally:
            self._give_up()
