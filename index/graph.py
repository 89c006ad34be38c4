"""The ssd engine: a graph on pages of a file, before the records and the scan of the flat engine.

Vectors and codes lie in the files as for ``flat``, the codes in rows; ``graph.bin`` is derived from
them and may lag, be torn or be missing. A search walks it by estimates and scores the best of what
it found from the records; what is not linked is scanned in the same query. The planner sends small
allowed sets to the scan, and so goes a query whose walk gives up: a search has min(k, allowed)
results. Which slots are linked the caller's database says (``mark_linked``): this file knows no
LMDB and starts no thread; the caller builds (``begin``, ``graph_build``), commits, and installs,
or links in place (``live``, ``graph_live``) and commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.errors import FormatTooNew, PermissionDenied, StoreCorrupt
from memdb.index import graph_file, layout, planner
from memdb.index.calibration import Calibration
from memdb.index.flat import FlatIndex
from memdb.index.graph_build import GraphBuild, GraphParams, linking_of
from memdb.index.graph_file import MOST_SLOTS, GraphFile
from memdb.index.graph_kernels import NONE, NOWHERE, GraphArrays, SpaceArrays, Walked
from memdb.index.graph_live import LiveGraph
from memdb.index.kernels import Kernels
from memdb.index.over_flat import OverFlat
from memdb.index.protocol import (
    NO_SLOT,
    Change,
    Encoded,
    SearchPlan,
    SpaceSpec,
    as_slots,
    as_vectors,
)
from memdb.index.reads import Access, GraphReads, RecordReads, native_of
from memdb.index.slots import SlotSet

Slots = NDArray[np.uint32]
Floats = NDArray[np.float32]
Ranked = tuple[Slots, Floats]

PLACE_BYTES: Final = 4
_NO_PAGES: Final = np.zeros((0, layout.GRAPH_PAGE_BYTES), np.uint8)
_UNFILTERED: Final = 0.95  # of what is in the graph: a set that holds less is a filter


@dataclass(frozen=True, slots=True)
class _State:
    """A graph and the slots that it is trusted with; replaced as a whole."""

    file: GraphFile
    arrays: GraphArrays
    placed: SlotSet
    linked: SlotSet
    torn: int
    reads: GraphReads | None
    """How its pages are read, where they are not mapped."""


@dataclass(frozen=True, slots=True)
class _View:
    """An allowed set as the graph divides it; kept for the searches that bring the same set."""

    allowed: SlotSet
    state: _State
    inside: SlotSet
    waiting: SlotSet

    @property
    def filtered(self) -> bool:
        """Whether much of what a walk meets is not allowed; a little costs it nothing."""
        return self.inside.count < _UNFILTERED * self.state.placed.count


class GraphIndex(OverFlat):
    """Vectors of one space in ``directory``; the contract is ``protocol.Drafting``.

    Raises what ``FlatIndex`` raises. A graph that is missing, damaged or another's is no error:
    ``graph_problem`` says why, and everything counts as not linked.
    """

    def __init__(
        self,
        directory: Path,
        spec: SpaceSpec,
        *,
        writable: bool,
        threads: int = 1,
        params: GraphParams | None = None,
        kernels: Kernels | None = None,
        calibration: Calibration | None = None,
        access: Access | None = None,
    ) -> None:
        """``access``: what stays in memory, and how the rest is reached; all is mapped without."""
        self.graph_problem: Exception | None = None
        self._params = params or GraphParams()
        self._threads = threads
        self._writable = writable
        self._access = access
        self._flat = FlatIndex(
            directory,
            spec,
            writable=writable,
            threads=threads,
            kernels=kernels,
            calibration=calibration,
            rows=True,
        )
        self._native = native_of(self.kernels)
        self._said = SlotSet.empty()  # linked, as the caller's database has it
        self._stale = False
        self._state: _State | None = None
        self._view: _View | None = None
        self._planned: tuple[_View, tuple[object, ...], SearchPlan] | None = None
        self._counts = {"walked": 0, "hops": 0, "estimated": 0, "scored": 0, "given_up": 0}
        self._load()

    # --- the graph's file --------------------------------------------------------------------

    def _load(self) -> None:
        directory, file = self._flat.directory, None
        self.graph_problem = None
        if (directory / graph_file.NAME).exists():
            try:
                file = GraphFile(directory, self.spec, writable=self._writable)
            except (StoreCorrupt, FormatTooNew, PermissionDenied) as problem:
                self.graph_problem = problem
        self._show(file)

    def _show(self, file: GraphFile | None) -> None:
        """Begin to use a file, or what is known of the present one now."""
        space = self._flat.space_arrays()
        if file is None or space is None:
            self._state = None
            return
        torn = file.torn()
        if torn:
            self.graph_problem = file.file.corrupt(f"has {torn} torn pages")
        placed = file.placed()
        rows = space.rows
        entries = file.entries[self._said.contains(file.entries)]
        if not len(entries):  # they were torn, or all of them are gone
            entries = graph_file.spread((self._said & placed).array)
        entries = entries[entries < len(rows)]
        reads = self._reads_of(file)
        arrays = GraphArrays(
            file.pages if reads is None else _NO_PAGES,
            file.checked,
            file.degree,
            file.places,
            np.ascontiguousarray(entries),
            np.ascontiguousarray(rows[entries]),
        )
        linked = self._said & placed if len(entries) else SlotSet.empty()
        self._state = _State(file, arrays, placed, linked, torn, reads)

    def _reads_of(self, file: GraphFile) -> GraphReads | None:
        """How pages and records are read; None, and they are mapped, where that is the way."""
        flat, access, native = self._flat, self._access, self._native
        records = flat.records_file
        kept = flat.room * (self._kept_bytes + (access.beside_bytes if access else 0))
        both = file.file.body_bytes + records.body_bytes
        if access is None or native is None or not access.reads(kept, both):
            for each in (file.file, records):
                each.keep_mapped(True)
            flat.record_reads = None
            return None
        direct = access.io == "direct"
        known, there = flat.record_reads, self._state.reads if self._state else None
        if known is None or known.identity != records.identity:
            known = RecordReads(native, records, direct=direct)
        cache_bytes = access.cache_bytes(kept, len(file.checked))
        same = there is not None and there.identity == file.file.identity
        if (
            there is None
            or not same
            or there.records is not known
            or (not cache_bytes * 2 > there.cache_bytes > cache_bytes * 0.9)
        ):
            there = GraphReads(
                native,
                file.file,
                known,
                cache_bytes=cache_bytes,
                depth=access.depth,
                direct=direct,
            )
        flat.record_reads = known
        for each in (file.file, records):
            each.keep_mapped(False)
        return there

    @property
    def _kept_bytes(self) -> int:
        """Of a slot, in memory: its code and its place."""
        return layout.row_bytes(self.spec.dim) + PLACE_BYTES

    def mark_linked(self, linked: SlotSet) -> None:
        """The slots that the caller's database says are linked."""
        state = self._state
        if linked is not self._said or self._stale:
            self._said, self._stale = linked, False
            if state is not None:
                state.file.refresh()
            self._show(state.file if state else self._file_anew())

    def changed(self, pages: Slots | None) -> None:
        """Pages of the graph were written anew, as a commit says; None: any may have been.
        ``mark_linked`` follows."""
        if self._state is not None and (pages is None or len(pages)):
            self._state.file.changed(pages)
            self.drop_cached(pages)
            self._stale = True

    def _file_anew(self) -> GraphFile | None:
        self._load()
        return self._state.file if self._state else None

    def refresh(self, spec: SpaceSpec | None = None) -> None:
        """See what another process wrote."""
        self._flat.refresh(spec)
        state = self._state
        there = (self._flat.directory / graph_file.NAME).exists()
        if state is None:
            if there and self.graph_problem is None:
                self._load()
        elif not there or state.file.file.is_replaced():
            self._load()

    # --- what is the flat engine's -----------------------------------------------------------

    def prepare(self, slots: ArrayLike, encoded: Encoded) -> Change:
        return self._flat.prepare(slots, encoded)

    def verify(self, slots: ArrayLike) -> None:
        self._flat.verify(slots)
        if self._state is not None:
            self._state.file.verify()

    def clear(self, slots: ArrayLike) -> None:
        """Zero the slots in every file, durably. Those that are in the graph still are taken out,
        which one process at a time may do. Edges that lead to them lead nowhere then."""
        chosen = np.unique(as_slots(slots))
        state = self._state
        if state is not None:
            state.file.refresh()
            inside = chosen[chosen < state.file.slots]
            if (state.file.places[inside] != NOWHERE).any():
                self._take_out(inside)
        self._flat.clear(chosen)

    def _take_out(self, slots: Slots) -> None:
        live = self.live()
        if live is not None:
            try:
                live.unlink(slots)
                self.changed(live.flush())
                self.mark_linked(self._said)
            finally:
                live.close()

    def close(self) -> None:
        """Idempotent."""
        state, self._state = self._state, None
        if state is not None:
            state.file.close()
        self._flat.close()

    # --- linking -----------------------------------------------------------------------------

    def waiting(self, allowed: SlotSet) -> SlotSet:
        """The slots of ``allowed`` that are not in the graph."""
        return allowed - self._state.linked if self._state else allowed

    def linkable(self, encoded: SlotSet) -> int:
        """How many of the slots a build would link."""
        if self._flat.space_arrays() is None:
            return 0
        waiting = self.waiting(encoded)
        if waiting.limit > MOST_SLOTS:
            waiting = waiting & SlotSet.all(MOST_SLOTS)
        return waiting.count

    def begin(self, encoded: SlotSet, *, memory_bytes: int) -> GraphBuild | None:
        """A build that links what waits; None where there are no codes to link by. The caller
        keeps slots of ``encoded`` from being cleared during this call, and other builds away."""
        space = self._flat.space_arrays()
        if space is None:
            return None
        state = self._state
        return GraphBuild(
            self._flat,
            space,
            state.file if state else None,
            state.linked if state else SlotSet.empty(),
            encoded,
            self._params,
            threads=self._threads,
            memory_bytes=memory_bytes,
        )

    def worth_building(self, waiting: int) -> bool:
        return planner.wants_build(self.placed_count, waiting, self._params.L_build)

    @property
    def has_graph(self) -> bool:
        return self._state is not None

    @property
    def placed_count(self) -> int:
        state = self._state
        return state.placed.count if state else 0

    def live(self) -> LiveGraph | None:
        """The graph, to be changed in place; None where there is none that could be. The caller
        keeps others from doing the same, and builds from being installed meanwhile."""
        if self._state is None or self._flat.space_arrays() is None:
            return None
        file = GraphFile(self._flat.directory, self.spec, writable=True)
        try:
            return LiveGraph(self._flat, file, linking_of(self._params, 1))
        except BaseException:
            file.close()
            raise

    def install(self) -> None:
        """Put the draft that a build wrote in the graph's place; ``refresh`` shows it."""
        graph_file.install(self._flat.directory)

    def memory_bytes(self, slots: int) -> int:
        """Private memory of a graph of that many slots."""
        return PLACE_BYTES * slots

    def stats(self) -> dict[str, int]:
        """Those of the flat engine, and of the graph: slots linked, pages, bytes, and what searches
        did in this process: queries walked, nodes looked at, estimates, records scored, walks that
        were given up."""
        state = self._state
        disk = state.file.file.disk_bytes() if state else 0
        return {
            **self._flat.stats(),
            **self._counts,
            "linked": state.linked.count if state else 0,
            "graph_pages": len(state.arrays.checked) if state else 0,
            "torn_pages": state.torn if state else 0,
            "graph_disk_bytes": disk,
            "graph_memory_bytes": self.memory_bytes(state.file.slots) if state else 0,
            **(state.reads.stats() if state and state.reads else {}),
        }

    @property
    def io(self) -> str:
        """Whether pages and records are "mapped", or "read" ("direct": past the page cache)."""
        if self._access is None or self._state is None or self._state.reads is None:
            return "mapped"
        return "direct" if self._access.io == "direct" else "read"

    def drop_cached(self, pages: Slots | None = None) -> None:
        """Pages (None: all) that are read are read again when they are needed."""
        state = self._state
        if state is not None and state.reads is not None:
            state.reads.drop(pages)

    # --- searching ---------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        allowed: SlotSet,
        effort: int | None = None,
        exact: bool = False,
    ) -> Ranked:
        """The min(k, allowed.count) nearest of ``allowed`` to each of (q, dim) queries.

        ``effort`` is how long the list of the walk is, all of which may be scored; the rest is as
        for ``FlatIndex.search``, which answers what the graph does not.
        """
        given = as_vectors(queries, self.spec.dim, field="queries")
        plan = self.plan(allowed, k, effort=effort, exact=exact)
        space, view = self._space(), self._view
        if plan.name != "graph" or space is None or view is None or not len(given):
            return self._flat.search(given, k, allowed=allowed, effort=effort, exact=exact)
        if view.allowed is not allowed:  # another thread's search came in between
            view = self._viewed(allowed)
        if view is None:
            return self._flat.search(given, k, allowed=allowed, effort=effort, exact=exact)
        walked = self._walk(given, k, space, view, max(k, plan.rescored), effort)
        if view.state.file.torn() != view.state.torn:  # it met torn pages: scanned, then
            if self._state is view.state:
                self._show(view.state.file)
            return self.search(given, k, allowed=allowed, effort=effort)
        return self._completed(given, k, walked, view, effort)

    def _space(self) -> SpaceArrays | None:
        return self._flat.space_arrays(mapped=self._flat.record_reads is None)

    def plan(
        self, allowed: SlotSet, k: int, *, effort: int | None = None, exact: bool = False
    ) -> SearchPlan:
        """What ``search`` with the same arguments does, unless a walk gives up."""
        view = self._viewed(allowed)
        known, asked = self._planned, (k, effort, exact)
        if known is not None and known[0] is view and known[1] == asked:
            return known[2]  # most searches repeat the one before
        flat = self._flat.plan(allowed, k, effort=effort, exact=exact)
        if exact or view is None:
            return flat
        plan = planner.plan_graph(
            self.spec,
            flat,
            k,
            effort=effort,
            inside=view.inside.count,
            waiting=view.waiting.count,
            linked=view.state.linked.count,
            degree=view.state.arrays.degree,
            calibration=self._flat.calibration,
        )
        self._planned = (view, asked, plan)
        return plan

    def _viewed(self, allowed: SlotSet) -> _View | None:
        view, state = self._view, self._state
        if state is None or allowed.limit > self._flat.room:
            return None
        if view is None or view.allowed is not allowed or view.state is not state:
            inside = allowed & state.linked
            view = _View(allowed, state, inside, allowed - inside)
            self._view = view
        return view

    def _walk(
        self, queries: Floats, k: int, space: SpaceArrays, view: _View, breadth: int,
        effort: int | None,
    ) -> Walked:  # fmt: skip
        """The walk's answer, with what waits: estimated beside it, scored in the same list."""
        waiting = view.waiting.count
        if effort is None:
            effort = planner.default_effort(self.spec, waiting, k, capacity=self._flat.room)
        most_hops = planner.most_hops(
            self.spec,
            breadth,
            inside=view.inside.count,
            linked=view.state.linked.count,
            degree=view.state.arrays.degree,
            calibration=self._flat.calibration,
        )
        reads = view.state.reads
        if reads is None and not len(space.records):  # not mapped any more: another mode since
            space = self._flat.space_arrays() or space
        search = self._flat.kernels.graph_search if reads is None else reads.search
        walked = search(
            view.state.arrays,
            space,
            self._flat.prepared(queries),
            allowed=view.inside.bitset,
            inside=view.filtered,
            k=min(k, view.inside.count),
            breadth=breadth,
            most_hops=most_hops,
            threads=self._threads,
            beside=view.waiting.array if waiting else NONE,
            beside_keep=min(waiting, max(k, effort)),
        )
        if walked.damaged >= 0:
            raise self._flat.damaged(walked.damaged)
        counts = self._counts
        counts["walked"] += len(queries)
        counts["hops"] += walked.hops
        counts["estimated"] += walked.estimated
        counts["scored"] += walked.scored
        return walked

    def _completed(
        self, queries: Floats, k: int, walked: Walked, view: _View, effort: int | None
    ) -> Ranked:
        """The walk's answer, and scans of all that is allowed where it is short."""
        short = np.flatnonzero(walked.found < k)
        if not len(short):
            return walked.slots, walked.distances
        self._counts["given_up"] += len(short)
        slots = np.full((len(queries), k), NO_SLOT, np.uint32)
        distances = np.full((len(queries), k), np.inf, np.float32)
        found = walked.slots.shape[1]
        slots[:, :found], distances[:, :found] = walked.slots, walked.distances
        scanned = self._flat.search(queries[short], k, allowed=view.allowed, effort=effort)
        slots[short], distances[short] = scanned
        return slots, distances
