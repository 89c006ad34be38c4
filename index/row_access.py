"""What a graph asks of the flat engine's files: codes row by row, and vectors in 8 bits.

The part of ``FlatIndex`` that serves codes in rows; it has no state of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.index import layout
from memdb.index.calibration import Calibration, default_calibration
from memdb.index.codes_file import CodesFile
from memdb.index.files import MappedFile
from memdb.index.graph_kernels import SpaceArrays
from memdb.index.kernels import Kernels
from memdb.index.protocol import SearchPlan, SpaceSpec, as_vectors
from memdb.index.quantise import Quantiser
from memdb.index.reads import RecordReads
from memdb.index.records_file import RecordsFile
from memdb.index.slots import SlotSet

_READ_NS: Final = (
    3000.0  # a record that is read: some 1,000 from the page cache, 11,000 from a disk
)


class RowAccess:
    """Mixed into ``FlatIndex``, whose attributes these are."""

    directory: Path
    kernels: Kernels
    rows: bool
    """Whether codes that are made are in rows."""
    record_reads: RecordReads | None = None
    """How records are read by searches, where they are not mapped."""
    _spec: SpaceSpec
    _threads: int
    _calibration: Calibration | None
    _quantiser: Quantiser
    _codes: CodesFile | None
    _records: RecordsFile | None
    _space: tuple[tuple[object, ...], SpaceArrays] | None = None

    if TYPE_CHECKING:

        def _need_records(self) -> RecordsFile: ...

        def _need_writable(self) -> None: ...

        def refresh(self, spec: SpaceSpec | None = None) -> None: ...

    def space_arrays(self, *, mapped: bool = True) -> SpaceArrays | None:
        """The open files as a graph reads them; None where there are no sound codes in rows.

        Without ``mapped`` there are no records in it: for searches that read them."""
        codes, records = self._codes, self._records
        if codes is None or records is None or not codes.rows:
            return None
        of = (codes.file.body, codes.centre, records.file.body if mapped else None, self._quantiser)
        known = self._space
        if known is not None and all(a is b for a, b in zip(known[0], of, strict=True)):
            return known[1]  # most searches meet the files as the one before left them
        space = SpaceArrays(
            codes.groups,
            records.records if mapped else np.zeros((0, records.size), np.uint8),
            layout.METRICS[self._spec.metric],
            self._quantiser.precision,
            self._quantiser.signs,
            codes.centre,
        )
        if not mapped or records.file.stays_mapped:  # else it goes with this call
            self._space = of, space
        return space

    def prepared(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """(q, dim) queries as kernels take them: of unit length for cosine."""
        return self._quantiser.queries(queries)

    def rotated(self, slots: NDArray[np.uint32]) -> NDArray[np.float32]:
        """(n, dim) rotated vectors, of unit length for cosine, of records that nobody checks: what
        is not finite is 0."""
        with np.errstate(all="ignore"):
            found = self._quantiser.rotated(self._need_records().records[slots])
        return np.nan_to_num(found, copy=False, posinf=0, neginf=0)

    def in_eight_bits(
        self, slots: NDArray[np.uint32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """The same as (n, dim) int8 numbers, (n,) scales and lengths."""
        numbers, scales = self.kernels.quantise8(self.rotated(slots))
        wide = numbers.astype(np.float32)
        return numbers, scales, np.sqrt(np.einsum("ij,ij->i", wide, wide)) * scales

    @property
    def records_file(self) -> MappedFile:
        """The file of the records."""
        return self._need_records().file

    @property
    def room(self) -> int:
        """One past the greatest slot that the open files have room for."""
        codes = self._codes.capacity if self._codes is not None else 2**32
        return min(codes, self._records.capacity if self._records is not None else 0)

    @property
    def calibration(self) -> Calibration:
        """What things cost on this machine, measured when first needed."""
        if self._calibration is None:
            self._calibration = default_calibration()
        if self.record_reads is not None:
            return replace(self._calibration, record_ns=self._calibration.record_ns + _READ_NS)
        return self._calibration

    def damaged(self, slot: int) -> Exception:
        """What to raise for a slot whose record a kernel found damaged."""
        return self._need_records().damaged(slot)

    def gather(
        self, queries: NDArray[np.float32], allowed: SlotSet, k: int, plan: SearchPlan
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """(q, k) slots and distances of an allowed set, its codes estimated row by row."""
        reads = self.record_reads
        space = self.space_arrays(mapped=reads is None)
        if space is None:
            raise InvalidArgument("the codes are in blocks", field="rows")
        slots, distances, bad = (self.kernels if reads is None else reads).gather(
            space,
            self._quantiser.queries(queries),
            allowed.array,
            k=k,
            keep=plan.rescored,
            threads=self._threads,
        )
        if bad >= 0:
            raise self.damaged(bad)
        return slots, distances

    def one_by_one(
        self,
        queries: NDArray[np.float32],
        allowed: SlotSet,
        k: int,
        plan: SearchPlan,
        codes: CodesFile | None,
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]] | None:
        """(q, k) slots and distances of a search that looks at rows or records one by one; None
        for one of whole blocks, or of records that are mapped."""
        if codes is not None:
            return self.gather(queries, allowed, k, plan) if codes.rows else None
        if self.record_reads is None:
            return None
        slots = np.empty((len(queries), k), np.uint32)
        distances = np.empty((len(queries), k), np.float32)
        listed = allowed.array
        for at in range(len(queries)):
            found = self.score(queries[at : at + 1], listed)
            near = np.flatnonzero(found <= np.partition(found, k - 1)[k - 1])
            near = near[np.lexsort((listed[near], found[near]))[:k]]
            slots[at], distances[at] = listed[near], found[near]
        return slots, distances

    def measure(self, query: NDArray[np.float32], slots: NDArray[np.uint32]) -> NDArray[np.float32]:
        """(n,) distances of one query (dim,) to the records at ``slots``, in their order, as an
        exact search finds them. Raises ``StoreCorrupt`` for a slot that holds no sound record."""
        given = as_vectors(query, self._spec.dim, field="query")
        if not len(slots):
            return np.empty(0, np.float32)
        last = int(slots.max())
        if self._need_records().capacity <= last:
            self.refresh()
            if self._need_records().capacity <= last:
                raise self.records_file.corrupt(f"ends before slot {last}")
        return self.score(given, slots)

    def score(self, query: NDArray[np.float32], slots: NDArray[np.uint32]) -> NDArray[np.float32]:
        """(n,) distances of a (1, dim) query to the records at ``slots``, which the file has."""
        records = self._need_records()
        prepared = self._quantiser.queries(query)
        if self._quantiser.precision not in (layout.FLOAT16, layout.BITS):
            prepared = self.kernels.rotate(prepared, self._quantiser.signs)
        metric, precision = layout.METRICS[self._spec.metric], self._quantiser.precision
        if self.record_reads is not None:
            distances, bad = self.record_reads.rescore(metric, precision, prepared[0], slots)
        else:
            distances, bad = self.kernels.rescore(
                records.records, self._spec.dim, metric, precision, prepared[0], slots
            )
        if bad >= 0:
            raise records.damaged(bad)
        return distances

    def rearrange(self) -> None:
        """Write codes that are in blocks anew in rows, durably; the caller keeps other writers
        away. A damaged file stays as it is: ``rebuild_codes`` makes it again."""
        self._need_writable()
        if self._codes is not None and self._codes.rows != self.rows:
            self._codes.rearrange(self.directory, self._spec, rows=self.rows)
            self.refresh()
