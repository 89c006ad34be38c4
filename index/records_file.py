"""refine.*: the one lasting copy of every vector, a sealed record a slot.

    refine.* := header | record...                          record of slot s at s * record bytes
    fields   := dim u32 | precision u8 | 0 u8 | 0 u16 | seed u64
    record   := slot u32 | scale f32 | norm f32 | payload | crc32c u32 of all before it
    payload  := i8[dim]    of the rotated vector                  (refine.8)
              | f16[dim]   of the vector                          (refine.f16)
              | level[dim] of the rotated vector, a bit stream    (refine.5, .4, .2, .1)
              | bit[dim]   the vector                             (refine.bits)

Streams begin at the low end of each byte. ``quantise`` says what the numbers mean. A slot that is
not in use reads as zeros. This file knows no distances.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memdb.index import files, layout
from memdb.index.kernels import Kernels
from memdb.index.protocol import SpaceSpec

MAGIC = b"MDBREFIN"
NAMES = {
    layout.INT8: "refine.8",
    layout.FLOAT16: "refine.f16",
    layout.INT5: "refine.5",
    layout.INT4: "refine.4",
    layout.INT2: "refine.2",
    layout.INT1: "refine.1",
    layout.BITS: "refine.bits",
}
_FIELDS = struct.Struct("<IBBHQ")


class RecordsFile:
    """The open refinement file of one space; made where there is none and ``writable``."""

    def __init__(
        self, directory: Path, spec: SpaceSpec, kernels: Kernels, *, writable: bool
    ) -> None:
        precision = spec.precision
        path = directory / NAMES[precision]
        fields = _FIELDS.pack(spec.dim, precision, 0, 0, spec.seed)
        if writable and not path.exists():
            files.create(path, MAGIC, fields)
        self._kernels = kernels
        self.size = layout.record_bytes(spec.dim, precision)
        self.file = files.MappedFile(path, MAGIC, writable=writable)
        if self.file.fields != fields:
            self.file.close()
            raise self.file.corrupt("belongs to another space")

    @property
    def capacity(self) -> int:
        """How many slots the file has room for."""
        return self.file.body_bytes // self.size

    @property
    def records(self) -> NDArray[np.uint8]:
        """(capacity, record bytes) of the mapped file."""
        body = self.file.body
        count = len(body) // self.size
        return body[: count * self.size].reshape(count, self.size)

    def read(self, slots: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """(n, record bytes), checked; ``StoreCorrupt`` for a slot that holds no sound record."""
        records = self.records
        if len(slots) and int(slots.max()) >= len(records):
            self.file.refresh()
            records = self.records
            if int(slots.max()) >= len(records):
                raise self.file.corrupt(f"ends before slot {int(slots.max())}")
        chosen = records[slots]
        bad = self._kernels.check(chosen, slots)
        if bad >= 0:
            raise self.damaged(int(slots[bad]))
        return chosen

    def damaged(self, slot: int) -> Exception:
        return self.file.corrupt(f"has a damaged record at slot {slot}")

    def write(self, slots: NDArray[np.uint32], records: NDArray[np.uint8]) -> None:
        """Seal ``records`` (changed in place) for ascending ``slots`` and write them, durably."""
        self._kernels.seal(records, slots)
        self._put(slots, records)

    def clear(self, slots: NDArray[np.uint32]) -> None:
        """Zero the records of ascending ``slots``, durably."""
        self._put(slots, np.zeros((len(slots), self.size), np.uint8))

    def punch(self, first: int, last: int) -> bool:
        """Give back the blocks of slots first ... last - 1, which nobody reads any more."""
        last = min(last, self.capacity)
        return last <= first or self.file.punch(first * self.size, (last - first) * self.size)

    def _put(self, slots: NDArray[np.uint32], records: NDArray[np.uint8]) -> None:
        if not len(slots):
            return
        cuts = np.flatnonzero(np.diff(slots) != 1) + 1  # each run of neighbours is one write
        for first, last in zip([0, *cuts], [*cuts, len(slots)], strict=True):
            run = records[first:last].reshape(-1)
            self.file.write(int(slots[first]) * self.size, run.data)
        self.file.sync()
        self.file.refresh()

    def refresh(self) -> None:
        self.file.refresh()

    def close(self) -> None:
        self.file.close()
