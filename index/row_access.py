"""What a graph asks of the flat engine's files: codes row by row, and vectors in 8 bits.

The part of ``FlatIndex`` that serves codes in rows; it has no state of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.index import layout
from memdb.index.calibration import Calibration, default_calibration
from memdb.index.codes_file import CodesFile
from memdb.index.graph_kernels import SpaceArrays
from memdb.index.kernels import Kernels
from memdb.index.protocol import SearchPlan, SpaceSpec
from memdb.index.quantise import Quantiser
from memdb.index.records_file import RecordsFile
from memdb.index.slots import SlotSet


class RowAccess:
    """Mixed into ``FlatIndex``, whose attributes these are."""

    directory: Path
    kernels: Kernels
    rows: bool
    """Whether codes that are made are in rows."""
    _spec: SpaceSpec
    _threads: int
    _calibration: Calibration | None
    _quantiser: Quantiser
    _codes: CodesFile | None
    _records: RecordsFile | None

    if TYPE_CHECKING:

        def _need_records(self) -> RecordsFile: ...

        def _need_writable(self) -> None: ...

        def refresh(self, spec: SpaceSpec | None = None) -> None: ...

    def space_arrays(self) -> SpaceArrays | None:
        """The open files as a graph reads them; None where there are no sound codes in rows."""
        codes, records = self._codes, self._records
        if codes is None or records is None or not codes.rows:
            return None
        return SpaceArrays(
            codes.groups,
            records.records,
            layout.METRICS[self._spec.metric],
            self._quantiser.precision,
            self._quantiser.signs,
            codes.centre,
        )

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
    def room(self) -> int:
        """One past the greatest slot that the open files have room for."""
        codes = self._codes.capacity if self._codes is not None else 2**32
        return min(codes, len(self._records.records) if self._records is not None else 0)

    @property
    def calibration(self) -> Calibration:
        """What things cost on this machine, measured when first needed."""
        if self._calibration is None:
            self._calibration = default_calibration()
        return self._calibration

    def damaged(self, slot: int) -> Exception:
        """What to raise for a slot whose record a kernel found damaged."""
        return self._need_records().damaged(slot)

    def gather(
        self, queries: NDArray[np.float32], allowed: SlotSet, k: int, plan: SearchPlan
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """(q, k) slots and distances of an allowed set, its codes estimated row by row."""
        space = self.space_arrays()
        if space is None:
            raise InvalidArgument("the codes are in blocks", field="rows")
        slots, distances, bad = self.kernels.gather(
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

    def rearrange(self) -> None:
        """Write codes that are in blocks anew in rows, durably; the caller keeps other writers
        away. A damaged file stays as it is: ``rebuild_codes`` makes it again."""
        self._need_writable()
        if self._codes is not None and self._codes.rows != self.rows:
            self._codes.rearrange(self.directory, self._spec, rows=self.rows)
            self.refresh()
