"""hnswlib's graph in this process's memory, without its traps. Labels are slots.

hnswlib (0.8) leaves to its caller what this file does: searches and changes must not overlap, so a
search that meets a change is told so and turns elsewhere; room is doubled as it is needed; the
breadth of a search is its ``k``, because ``set_ef`` is one number for all threads; a search that
finds fewer than ``k`` raises and leaks its answer, so what was once too much is not asked again;
``allow_replace_deleted`` loses labels when a label comes back, so it stays off: an element that is
written again is found by its label and replaced in its place. It knows no files and no records.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument, MissingDependency
from memdb.index.protocol import Metric, SpaceSpec
from memdb.index.slots import SlotSet

Slots = NDArray[np.uint32]
Floats = NDArray[np.float32]

# What an element of the graph is. The order is that of its life.
NONE: Final = 0
LINKED: Final = 1  # holds the vector whose seal is kept
DEAD: Final = 2  # its slot holds another vector or none; searches find it still
BURIED: Final = 3  # marked as deleted: walked through, never found

_LEAST_ROOM: Final = 1024
_MOST_M: Final = 512
_MOST_EF: Final = 10_000
_LABEL_LOCKS_BYTES: Final = 65_536 * 40
_SPACES: Final[dict[Metric, str]] = {"cosine": "ip", "ip": "ip", "l2": "l2"}


@dataclass(frozen=True, slots=True)
class GraphParams:
    """``M``: links of an element on upper levels, twice that at the bottom; ``ef_construction``:
    candidates examined when one is linked."""

    M: int = 16
    ef_construction: int = 200

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("M", self.M, 2, _MOST_M),
            ("ef_construction", self.ef_construction, 1, _MOST_EF),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidArgument(
                    f"{name} must be an integer in {least} ... {most}", field="params"
                )


@dataclass(frozen=True, slots=True)
class Written:
    """What a payload holds: (l,) linked slots and their seals, (b,) buried ones."""

    linked: Slots
    seals: NDArray[np.uint32]
    buried: Slots
    payload_bytes: int


def hnswlib() -> Any:
    """The module; ``MissingDependency`` where the extra is not installed."""
    try:
        import hnswlib as module
    except ImportError as error:
        raise MissingDependency(
            "kind='hnsw' needs hnswlib, which is not installed", extra="hnsw"
        ) from error
    return module


def element_bytes(dim: int, params: GraphParams) -> int:
    """Memory of one element: links, vector, label, lock, level, mark, and its place by label."""
    bottom = 4 * (2 * params.M + 1) + 4 * dim + 8
    upper = (4 * (params.M + 1) + 16) // (params.M - 1) + 1  # a share 1 / M has a level more
    return bottom + upper + 8 + 40 + 4 + 2 + 48 + 5


class _Gate:
    """Searches share it and never wait; a change has it alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turn = threading.Lock()
        self._searches = 0
        self._changing = False

    @contextmanager
    def search(self) -> Iterator[bool]:
        """Whether the block may look at the graph."""
        with self._condition:
            free = not self._changing
            self._searches += free
        try:
            yield free
        finally:
            if free:
                with self._condition:
                    self._searches -= 1
                    self._condition.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Searches that come meanwhile are told so."""
        with self._turn:
            with self._condition:
                self._changing = True
                self._condition.wait_for(lambda: not self._searches)
            try:
                yield
            finally:
                with self._condition:
                    self._changing = False


class Graph:
    """The graph of one space. Searches from any thread; changes from any, one after another."""

    def __init__(self, spec: SpaceSpec, params: GraphParams, *, threads: int) -> None:
        self.params = params
        self.version = 0  # of what is linked
        self.gate = _Gate()
        self._library = hnswlib()
        self._dim = spec.dim
        self._metric = spec.metric
        self._seed = spec.seed & 0x7FFF_FFFF
        self._threads = threads
        self._index: Any = None
        self._room = 0
        self._too_many: float = np.inf  # candidates that a search could not find
        self._guard = threading.Lock()  # of the three arrays
        self._states = np.zeros(0, np.uint8)  # by slot
        self._seals = np.zeros(0, np.uint32)  # by slot: checksum of the record that was linked
        self._counts = [0, 0, 0, 0]  # slots by state, but for NONE
        self._linked: tuple[int, SlotSet] = (0, SlotSet.empty())

    # --- what is in it -----------------------------------------------------------------------

    @property
    def linked(self) -> SlotSet:
        version, known = self._linked
        if version != self.version:
            with self._guard:
                version = self.version
                known = SlotSet(np.packbits(self._states == LINKED, bitorder="little"))
            self._linked = (version, known)
        return known

    def count(self, *states: int) -> int:
        return sum(self._counts[state] for state in states)

    def slots(self, *states: int) -> Slots:
        """(n,) ascending slots whose element is in one of ``states``."""
        return np.flatnonzero(np.isin(self._states, states)).astype(np.uint32)

    def changed(self, slots: Slots, seals: NDArray[np.uint32]) -> Slots:
        """Of linked ``slots``, those whose records have other seals than when they were linked."""
        other: NDArray[np.bool_] = self._seals[slots] != seals
        return slots[other]

    def memory_bytes(self) -> int:
        """An estimate: hnswlib tells nothing, and its pages are private to this process."""
        return self.bytes_for(len(self._states))

    def bytes_for(self, slots: int) -> int:
        """What a graph of that many slots takes."""
        return _LABEL_LOCKS_BYTES + slots * element_bytes(self._dim, self.params) if slots else 0

    # --- changes -----------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A change of the graph; one that fails half-way leaves an empty graph, not half a one."""
        with self.gate.change():
            try:
                yield
            except BaseException:
                self._empty()
                raise

    def _empty(self) -> None:
        with self._guard:
            self._index, self._room, self._counts = None, 0, [0, 0, 0, 0]
            self._states = np.zeros(0, np.uint8)
            self._seals = np.zeros(0, np.uint32)
            self.version += 1

    def close(self) -> None:
        """Free its memory."""
        with self.gate.change():
            self._empty()

    def link(self, slots: Slots, vectors: Floats, seals: NDArray[np.uint32]) -> None:
        """Enter (n, dim) vectors at distinct slots; elements that are there are replaced."""
        prepared = self._prepared(vectors)
        with self._changing():
            self._reserve(int(slots.max()) + 1, self.count(LINKED, DEAD, BURIED) + len(slots))
            there = self._states[slots] != NONE
            if not there.all():
                self._index.add_items(prepared[~there], slots[~there], num_threads=self._threads)
            if there.any():  # replacing is not made for threads
                self._index.add_items(prepared[there], slots[there], num_threads=1)
            self._set(slots, LINKED, seals)
            self._too_many = np.inf

    def unlink(self, slots: Slots) -> None:
        """These slots hold other vectors, or none: no search finds them from now on."""
        slots = slots[slots < len(self._states)]
        slots = slots[self._states[slots] == LINKED]
        if len(slots):
            self._set(slots, DEAD, None)

    def bury(self) -> int:
        """Mark what is dead as deleted; how much was."""
        with self._changing():
            slots = self.slots(DEAD)
            for slot in slots.tolist():
                self._index.mark_deleted(slot)
            if len(slots):
                self._set(slots, BURIED, None)
            return len(slots)

    def _set(self, slots: Slots, state: int, seals: NDArray[np.uint32] | None) -> None:
        with self._guard:
            for old, count in enumerate(np.bincount(self._states[slots], minlength=4).tolist()):
                self._counts[old] -= count
            self._counts[state] += len(slots)
            self._states[slots] = state
            self._seals[slots] = 0 if seals is None else seals
            self.version += 1

    def _reserve(self, slots: int, elements: int) -> None:
        with self._guard:
            missing = slots - len(self._states)
            if missing > 0:
                self._states = np.pad(self._states, (0, missing))
                self._seals = np.pad(self._seals, (0, missing))
        if self._index is None:
            self._room = max(_LEAST_ROOM, elements)
            self._index = self._library.Index(space=_SPACES[self._metric], dim=self._dim)
            self._index.init_index(
                max_elements=self._room,
                M=self.params.M,
                ef_construction=self.params.ef_construction,
                random_seed=self._seed,
            )
        elif elements > self._room:
            room = max(elements, 2 * self._room)
            self._index.resize_index(room)
            self._room = room

    # --- searching ---------------------------------------------------------------------------

    def nearest(self, queries: Floats, count: int) -> NDArray[np.uint64] | None:
        """(q, count) slots, nearest first, inside ``gate.search()``; dead slots among them.

        None when the graph cannot give that many to each query.
        """
        if self._index is None or count >= self._too_many:
            return None
        if count > self.count(LINKED, DEAD):
            return None
        try:
            labels, _ = self._index.knn_query(
                self._prepared(queries), k=count, num_threads=self._threads
            )
        except RuntimeError:  # parts of the graph are out of reach
            self._too_many = min(self._too_many, count)
            return None
        found: NDArray[np.uint64] = labels
        return found

    def _prepared(self, vectors: Floats) -> Floats:
        """Of unit length for cosine; hnswlib's own way takes short vectors for long ones."""
        if self._metric != "cosine":
            return vectors
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        return (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)

    # --- bytes on disk -----------------------------------------------------------------------

    def write(self, path: str) -> Written:
        """Write the payload. hnswlib says nothing when the disk is full: the caller compares the
        size. Nothing may be DEAD: the vector of what is marked as deleted can be told by that."""
        with self.gate.change():
            linked = self.slots(LINKED)
            self._index.save_index(path)
            size = int(self._index.index_file_size())
            return Written(linked, self._seals[linked], self.slots(BURIED), size)

    def read(self, path: str, slots: Slots, seals: NDArray[np.uint32], linked: int) -> None:
        """Load a payload whose checksum was verified: the first ``linked`` slots are LINKED.

        Raises ``RuntimeError`` when hnswlib refuses it.
        """
        room = max(_LEAST_ROOM, len(slots))
        index = self._library.Index(space=_SPACES[self._metric], dim=self._dim)
        index.load_index(path, max_elements=room)
        if index.get_current_count() != len(slots):
            raise RuntimeError("the payload holds another number of elements")
        with self.gate.change(), self._guard:
            size = int(slots.max()) + 1
            self._states, self._seals = np.zeros(size, np.uint8), np.zeros(size, np.uint32)
            self._states[slots] = BURIED
            self._states[slots[:linked]] = LINKED
            self._seals[slots[:linked]] = seals
            self._counts = [0, linked, 0, len(slots) - linked]
            self._index, self._room = index, room
            self.version += 1
