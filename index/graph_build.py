"""A graph in memory while slots are linked into it: begun empty or from a file, written as a draft.

The way of Vamana: a walk for each slot, robust prune, edges back; slots in random order, several
threads side by side. What it is linked by are codes in rows and numbers of 8 bits, taken from the
records when the build begins: a slot that is written meanwhile is told by its seal, the checksum of
its record. This file knows arrays and drafts; who may link, and what is committed, it does not.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.index import files, graph_file, layout
from memdb.index.flat import FlatIndex
from memdb.index.graph_file import MOST_ENTRIES, MOST_SLOTS, GraphFile
from memdb.index.graph_kernels import MOST_DEGREE, LinkArrays, Linking, SpaceArrays
from memdb.index.slots import SlotSet

_LEAST_DEGREE: Final = 4
_MOST_BREADTH: Final = 10_000
_SLACK: Final = 1.3  # neighbours a list may have before it is pruned: one prune for many edges
_PART: Final = 8192
_LEAST_ENTRIES: Final = 8
_SAMPLE_PER_ENTRY: Final = 16
_ROUNDS: Final = 4
_LONGEST: Final = 1e15  # what keeps the distances of damaged records finite

Slots = NDArray[np.uint32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GraphParams:
    """``R``: neighbours of a node; ``L_build``: breadth of the walk when one is linked; ``alpha``:
    how much nearer a neighbour must be to a point than a node is, to lead there in its stead."""

    R: int = 32
    L_build: int = 96
    alpha: float = 1.2

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("R", self.R, _LEAST_DEGREE, 48),
            ("L_build", self.L_build, 1, _MOST_BREADTH),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidArgument(
                    f"{name} must be an integer in {least} ... {most}", field="params"
                )
        alpha = self.alpha
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 1 <= alpha <= 2:
            raise InvalidArgument("alpha must be a number in 1 ... 2", field="params")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def room_of(degree: int) -> int:
    return min(MOST_DEGREE, round(degree * _SLACK))


def linking_of(params: GraphParams, threads: int) -> Linking:
    return Linking(params.R, max(params.R, params.L_build), params.alpha, threads)


def node_bytes(params: GraphParams) -> int:
    """Memory of a slot while it is linked: its list, its shape and its seal."""
    return 4 * (1 + room_of(params.R)) + 16 + 4


class GraphBuild:
    """One go at linking what waits; of one engine's files as they were when it began."""

    def __init__(
        self,
        flat: FlatIndex,
        space: SpaceArrays,
        graph: GraphFile | None,
        linked: SlotSet,
        encoded: SlotSet,
        params: GraphParams,
        *,
        threads: int,
        memory_bytes: int,
    ) -> None:
        """``linked`` of ``encoded`` are in ``graph``; the others wait. Both sets hold sound slots
        that nobody clears during this call. An array that would take more than half of
        ``memory_bytes`` lies in a file without a name: the rest is for those beside it."""
        self._most_bytes = memory_bytes // 2
        self.flat = flat
        self._space = space
        self._how = linking_of(params, threads)
        self._longest = 0.0  # squared, of inner products
        self._slots = min(len(space.rows), len(space.records), encoded.limit, MOST_SLOTS)
        self.linked = linked & encoded
        chosen = (encoded - self.linked).array
        chosen = chosen[chosen < self._slots]
        room = room_of(params.R)
        if graph is None:
            self.lists = self._array((self._slots, 1 + room), np.uint32)
        else:
            self.lists = self._array((self._slots, 1 + room), np.uint32)
            graph.fill(self.lists)
            gone = SlotSet.all(self._slots) - self.linked
            self.lists[gone.array] = 0
        self.seals = np.zeros(self._slots, np.uint32)
        numbers, offset, shapes = self._numbers(encoded.array)
        self._rng = np.random.default_rng(flat.spec.seed)
        entries = self._entries(encoded, graph)
        self._arrays = LinkArrays(
            space.groups,
            flat.spec.dim,
            numbers,
            offset,
            shapes,
            self.lists,
            entries[:0],
            space.rows[:0],
            space.centre,
        )
        self._entries_wanted = entries
        waiting_entries = entries[~self.linked.contains(entries)]
        rest = self._rng.permutation(chosen[~np.isin(chosen, waiting_entries)])
        self._order = np.concatenate((waiting_entries, rest)).astype(np.uint32)
        self._first = len(waiting_entries)
        self._done = 0
        self.seals[chosen] = flat.seals(chosen)

    def _array(self, shape: tuple[int, int], dtype: type[np.generic]) -> NDArray[Any]:
        """Zeros, in memory or, where they are too many, in a file that goes with the array."""
        size = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if size <= self._most_bytes:
            return np.zeros(shape, dtype)
        path = self.flat.directory / "graph.bin"
        with files.typed_errors(path), tempfile.TemporaryFile(dir=self.flat.directory) as handle:
            handle.truncate(size)
            return np.asarray(np.memmap(handle, dtype, "r+", shape=shape))

    # --- what distances are made of --------------------------------------------------------

    def _numbers(self, slots: Slots) -> tuple[NDArray[np.uint8], int, Floats]:
        """8-bit numbers by slot, the column they begin at, and shapes (slots, 4)."""
        spec, records = self.flat.spec, self._space.records
        slots = slots[slots < self._slots]
        shapes = np.zeros((self._slots, 4), np.float32)
        if spec.precision == layout.INT8:
            numbers, offset = records, layout.RECORD_HEAD_BYTES
            for first in range(0, len(slots), _PART):
                part = slots[first : first + _PART]
                heads = records[part, 4:12].copy().view("<f4")
                shapes[part] = self._shapes(heads[:, 0], heads[:, 1])
        else:
            numbers, offset = self._array((self._slots, spec.dim), np.uint8), 0
            for first in range(0, len(slots), _PART):
                part = slots[first : first + _PART]
                payload, scales, norms = self.flat.in_eight_bits(part)
                numbers[part] = payload.view(np.uint8)
                shapes[part] = self._shapes(scales, norms)
        if spec.metric == "ip" and len(slots):
            longest = shapes[:, 1].max()
            self._longest = float(longest)
            shapes[slots, 2] = np.sqrt(np.maximum(longest - shapes[slots, 1], 0))
            shapes[slots, 1] = longest
        return numbers, offset, shapes

    def _shapes(self, scales: Floats, norms: Floats) -> Floats:
        shapes = np.zeros((len(scales), 4), np.float32)
        with np.errstate(all="ignore"):  # damaged records may hold anything
            if self.flat.spec.metric == "cosine":
                shapes[:, 0], shapes[:, 1] = scales / norms, 1
            else:
                shapes[:, 0], shapes[:, 1] = scales, norms * norms
        shapes[~np.isfinite(shapes).all(axis=1)] = 0
        return np.clip(shapes, -_LONGEST, _LONGEST**2).astype(np.float32)

    # --- where walks begin -----------------------------------------------------------------

    def _entries(self, encoded: SlotSet, graph: GraphFile | None) -> Slots:
        """(e,) slots nearest to the centroids of a sample; those of ``graph`` while it has not
        doubled, so that old and new parts of the graph share them."""
        if graph is not None and encoded.count < 2 * self.linked.count:
            kept = graph.entries[self.linked.contains(graph.entries)]
            if len(kept):
                return kept.astype(np.uint32)
        slots = encoded.array[encoded.array < self._slots]
        wanted = int(np.sqrt(len(slots)))
        wanted = min(len(slots), MOST_ENTRIES // 2, max(_LEAST_ENTRIES, wanted))
        size = min(len(slots), wanted * _SAMPLE_PER_ENTRY)
        sample = np.sort(self._rng.choice(slots, size, replace=False))
        vectors = self.flat.rotated(sample)
        vectors -= self._space.centre
        centroids = vectors[self._rng.choice(size, wanted, replace=False)]
        for _ in range(_ROUNDS):
            nearest = _nearest(vectors, centroids)
            counts = np.bincount(nearest, minlength=wanted)
            order = np.argsort(nearest, kind="stable")
            starts = np.searchsorted(nearest[order], np.flatnonzero(counts))
            sums = np.add.reduceat(vectors[order], starts, axis=0)
            centroids = (sums / counts[counts > 0, None]).astype(np.float32)
            wanted = len(centroids)
        return np.unique(sample[_nearest(centroids, vectors)]).astype(np.uint32)

    def _with_entries(self, entries: Slots) -> LinkArrays:
        rows = np.ascontiguousarray(self._space.rows[entries])
        return replace(self._arrays, entries=entries, entry_rows=rows)

    # --- linking ---------------------------------------------------------------------------

    @property
    def linked_now(self) -> int:
        """How many slots this build has linked."""
        return self._done

    def link(self, most: int) -> int:
        """Link up to ``most`` of the slots that wait; how many."""
        kernels = self.flat.kernels
        if self._done < self._first:  # entries first: each of them by those that are there
            there = self._entries_wanted[self.linked.contains(self._entries_wanted)]
            begun = there if len(there) else self._order[:1]
            kernels.graph_link(
                self._with_entries(begun), self._order[: self._first], replace(self._how, threads=1)
            )
            self._done = self._first
        part = self._order[self._done : self._done + most]
        if len(part):
            kernels.graph_link(self._with_entries(self._entries_wanted), part, self._how)
        self._done += len(part)
        return len(part)

    def write(self) -> tuple[Slots, Slots]:
        """Write what is linked as a draft; the slots that this build linked, and their seals."""
        kernels = self.flat.kernels
        linked_now = np.sort(self._order[: self._done])
        everyone = (self.linked | SlotSet.from_slots(linked_now)).array
        everyone = everyone[everyone < self._slots]
        kernels.graph_trim(self._with_entries(self._entries_wanted), everyone, self._how)
        entries = self._entries_wanted
        entries = entries[np.isin(entries, everyone)]
        if not len(entries):
            entries = everyone[:1]
        # What no walk reaches is where some begin.
        for _ in range(_ROUNDS):
            reached = kernels.graph_reached(self.lists, entries)
            astray = everyone[~reached[everyone]]
            if not len(astray) or len(entries) >= MOST_ENTRIES:
                break
            entries = np.concatenate((entries, astray[: MOST_ENTRIES - len(entries)][:64]))
        together = layout.graph_records(self._how.degree)
        graph_file.write_draft(
            self.flat.directory,
            self.flat.spec,
            self._how.degree,
            self.lists,
            kernels.graph_order(self.lists, everyone, entries, together),
            entries.astype(np.uint32),
            self._longest,
        )
        return linked_now, self.seals[linked_now]


def _nearest(vectors: Floats, centroids: Floats) -> NDArray[np.int64]:
    """(n,) the centroid nearest to each vector."""
    squares = np.einsum("ij,ij->i", centroids, centroids)
    found = np.empty(len(vectors), np.int64)
    for first in range(0, len(vectors), _PART):
        part = vectors[first : first + _PART]
        found[first : first + _PART] = np.argmin(squares - 2 * (part @ centroids.T), axis=1)
    return found
