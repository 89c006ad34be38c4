"""The hnsw engine: hnswlib's graph in memory, before the files and the scan of the flat engine.

The vectors and their codes lie in the files exactly as for ``flat``; the graph is derived from the
records, belongs to this process, and may lag or be missing. A search walks it when the allowed set
is about what is linked, and scores what it found from the records, so that distances are those of
every other engine; slots that wait to be linked are scanned in the same query. Filtered searches,
and searches that meet a change of the graph or for which it finds too few, are answered by the scan
of codes: a search has min(k, allowed) results, and waits for nobody. It starts no thread and knows
no LMDB: the caller says when to link and when to save.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import settings
from memdb.errors import FormatTooNew, PermissionDenied, StoreCorrupt, StoreFull
from memdb.index import exact as brute
from memdb.index import hnsw_file
from memdb.index.flat import FlatIndex
from memdb.index.hnsw_graph import DEAD, LINKED, Graph, GraphParams
from memdb.index.kernels import Kernels
from memdb.index.over_flat import OverFlat
from memdb.index.planner import UNMEASURED_EFFORT
from memdb.index.protocol import (
    NO_SLOT,
    Change,
    Encoded,
    SearchPlan,
    SpaceSpec,
    as_slots,
    as_vectors,
)
from memdb.index.slots import SlotSet

_EFFORT_PER_RESULT: Final = 4
_UNFILTERED: Final = 0.9  # of what is linked: a set that holds less is a filter
_WORTH_SAVING: Final = 256  # one in that many elements changed: linking them again costs more
_SEALS_AT_ONCE: Final = 65_536

Slots = NDArray[np.uint32]
Ranked = tuple[NDArray[np.uint32], NDArray[np.float32]]


def _breadth(k: int, effort: int | None) -> int:
    return max(k, effort or max(UNMEASURED_EFFORT, _EFFORT_PER_RESULT * k))


@dataclass(frozen=True, slots=True)
class _View:
    """An allowed set as the graph divides it; kept for the searches that bring the same set."""

    allowed: SlotSet
    version: int
    linked: int
    inside: SlotSet
    waiting: SlotSet
    all_found_is_inside: bool

    def walked(self, keep: int) -> bool:
        """Whether the graph answers best: the set is about what is linked, and not small."""
        return (
            2 * keep <= self.linked
            and self.inside.count >= _UNFILTERED * self.linked
            and self.waiting.count <= self.inside.count
        )


class HnswIndex(OverFlat):
    """Vectors of one space in ``directory``; the contract is ``protocol.Linking``.

    Raises ``MissingDependency`` without hnswlib, and what ``FlatIndex`` raises. A saved graph that
    is missing, damaged or another's is no error: ``graph_problem`` says why, and everything waits
    to be linked.
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
    ) -> None:
        self.graph_problem: StoreCorrupt | FormatTooNew | PermissionDenied | StoreFull | None = None
        self._params = params or GraphParams()
        self._graph = Graph(spec, self._params, threads=threads)
        self._threads = threads
        self._flat = FlatIndex(directory, spec, writable=writable, threads=threads, kernels=kernels)
        self._writable = writable
        self._changed = 0  # elements since the graph was loaded or saved
        self._walked = 0
        self._view: _View | None = None
        self._load()

    def _load(self) -> None:
        directory = self._flat.directory
        if not (directory / hnsw_file.NAME).exists():
            return
        try:
            hnsw_file.load(directory, self.spec, self._graph)
        except (StoreCorrupt, FormatTooNew, PermissionDenied) as problem:
            self.graph_problem = problem
            return
        self._compare(self._graph.slots(LINKED))

    # --- what is the flat engine's -----------------------------------------------------------

    def verify(self, slots: ArrayLike) -> None:
        self._flat.verify(slots)

    def refresh(self, spec: SpaceSpec | None = None) -> None:
        self._flat.refresh(spec)

    def close(self) -> None:
        """Idempotent. Saves nothing: ``save`` does."""
        self._graph.close()
        self._flat.close()

    # --- changes -----------------------------------------------------------------------------

    def prepare(self, slots: ArrayLike, encoded: Encoded) -> Change:
        change = self._flat.prepare(slots, encoded)
        self._unlink(change.slots)
        return change

    def clear(self, slots: ArrayLike) -> None:
        """Zero the slots in every file, durably: a saved graph that may hold them is removed."""
        chosen = as_slots(slots)
        self._flat.clear(chosen)
        self._unlink(chosen)
        if len(chosen) and hnsw_file.drop(self._flat.directory):
            self._changed += self._graph.count(LINKED)

    def _unlink(self, slots: Slots) -> None:
        before = self._graph.count(LINKED)
        self._graph.unlink(slots)
        self._changed += before - self._graph.count(LINKED)

    def recheck(self, slots: Slots | None) -> None:
        """Another process may have written ``slots`` (None: any): let go of those it did."""
        linked = self._graph.linked
        if slots is None:
            self._compare(linked.array)
        else:
            self._compare(slots[linked.contains(slots)])

    def _compare(self, slots: Slots) -> None:
        for first in range(0, len(slots), _SEALS_AT_ONCE):
            part = slots[first : first + _SEALS_AT_ONCE]
            self._unlink(self._graph.changed(part, self._flat.seals(part)))

    # --- linking and saving ------------------------------------------------------------------

    def waiting(self, allowed: SlotSet) -> SlotSet:
        """The slots of ``allowed`` that are not in the graph."""
        return allowed - self._graph.linked

    def link(self, allowed: SlotSet, most: int) -> int:
        """Link up to ``most`` of the slots of ``allowed`` that wait, and bury those that are gone;
        how many in all. The caller keeps the slots from being cleared meanwhile."""
        slots = self.waiting(allowed).array[:most]
        done = len(slots)
        if done:
            seals = self._flat.seals(slots)
            self._graph.link(slots, self._flat.fetch(slots), seals)
            self._changed += done
        if self._graph.count(DEAD):
            done += self._graph.bury()
        return done

    @property
    def unsaved(self) -> float:
        """The share of the graph that would have to be linked again without ``save``."""
        linked = self._graph.count(LINKED)
        return self._changed / linked if self._writable and linked else 0.0

    def save(self) -> None:
        """Write the graph, so that the next process need not build it; when it is worth it.

        One process at a time does this, which the caller sees to, and no other changes files
        meanwhile. Where it cannot be written (``graph_problem``) nothing is lost.
        """
        if self.unsaved * _WORTH_SAVING < 1:
            return
        self._compare(self._graph.slots(LINKED))  # of what others cleared nothing is written again
        if not self._graph.count(LINKED):
            return
        self._graph.bury()
        try:
            hnsw_file.save(self._flat.directory, self.spec, self._graph)
        except (StoreFull, StoreCorrupt, PermissionDenied) as problem:
            self.graph_problem = problem
        else:
            self._changed, self.graph_problem = 0, None

    def memory_bytes(self, slots: int) -> int:
        """What the graph of that many slots takes, beside codes."""
        return self._graph.bytes_for(slots)

    def stats(self) -> dict[str, int]:
        """Those of the flat engine, and: elements linked, queries that the graph has answered, and
        its bytes in memory and on disk."""
        return {
            **self._flat.stats(),
            "linked": self._graph.count(LINKED),
            "walked": self._walked,
            "graph_memory_bytes": self._graph.memory_bytes(),
            "graph_disk_bytes": hnsw_file.disk_bytes(self._flat.directory),
        }

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

        ``effort`` is the breadth of the walk (ef), 200 or 4 k unless told; the rest is as for
        ``FlatIndex.search``, which answers what the graph does not.
        """
        given = as_vectors(queries, self.spec.dim, field="queries")
        if not exact and 1 <= k <= settings.MAX_K and (effort is None or effort > 0):
            found = self._walk(given, k, allowed, _breadth(k, effort))
            if found is not None:
                self._walked += len(given)
                return self._completed(given, k, found, allowed, effort)
        return self._flat.search(given, k, allowed=allowed, effort=effort, exact=exact)

    def plan(
        self, allowed: SlotSet, k: int, *, effort: int | None = None, exact: bool = False
    ) -> SearchPlan:
        """What ``search`` does while nobody changes the graph."""
        flat = self._flat.plan(allowed, k, effort=effort, exact=exact)
        keep, view = _breadth(k, effort), self._viewed(allowed)
        if exact or not view.walked(keep):
            return flat
        rescored = min(k, view.inside.count)
        size = self._flat.stats()["record_bytes"]
        reason = f"{view.inside.count} of {view.linked} linked vectors are allowed: ef is {keep}"
        return SearchPlan("graph", reason, allowed.count, 0, rescored, rescored * size, 0.0)

    def _walk(
        self, queries: NDArray[np.float32], k: int, allowed: SlotSet, keep: int
    ) -> tuple[NDArray[np.uint64], _View] | None:
        """(q, keep) slots of the graph, dead and forbidden ones among them; None: scan instead."""
        with self._graph.gate.search() as free:
            if not free:
                return None
            view = self._viewed(allowed)
            if not view.walked(keep):
                return None
            labels = self._graph.nearest(queries, keep)
            return None if labels is None else (labels, view)

    def _viewed(self, allowed: SlotSet) -> _View:
        view, version = self._view, self._graph.version
        if view is None or view.allowed is not allowed or view.version != version:
            linked = self._graph.linked
            inside = allowed & linked
            whole = inside.count == linked.count and not self._graph.count(DEAD)
            view = _View(allowed, version, linked.count, inside, allowed - inside, whole)
            self._view = view
        return view

    def _completed(
        self,
        queries: NDArray[np.float32],
        k: int,
        walked: tuple[NDArray[np.uint64], _View],
        allowed: SlotSet,
        effort: int | None,
    ) -> Ranked:
        """The walk's answer on the records' scale, with what waits, and scans where it is short."""
        labels, view = walked
        needed = min(k, view.inside.count)
        slots = np.full((len(queries), k), NO_SLOT, np.uint32)
        distances = np.full((len(queries), k), np.inf, np.float32)
        short = []
        numbers = labels.astype(np.uint32)
        sound = None if view.all_found_is_inside else view.inside.contains(numbers)
        for at, query in enumerate(queries):
            row = numbers[at] if sound is None else numbers[at][sound[at]]
            best = row[:needed]
            if len(best) < needed:
                short.append(at)
                continue
            scores = self._flat.score(query[None], best)
            order = np.lexsort((best, scores))
            slots[at, :needed], distances[at, :needed] = best[order], scores[order]
        if view.waiting:
            rest = self._flat.search(queries, k, allowed=view.waiting, effort=effort)
            merged, distances = brute.merge([(slots, distances), rest], k, padding=NO_SLOT)
            slots = merged.astype(np.uint32)
        if short:
            scanned = self._flat.search(queries[short], k, allowed=allowed, effort=effort)
            slots[short], distances[short] = scanned
        return slots, distances
