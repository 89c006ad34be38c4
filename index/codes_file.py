"""codes.bin: what a scan reads, or a walk. Sign codes of groups of 4,096 rows, and their factors.

    codes.bin := header (version 2: in blocks, 3: in rows) | group...
    fields    := dim u32 | metric u8 | code bits u8 | 0 u16 | epoch u32 | 0 u32 | seed u64
                 | centre f32[dim], rotated
    group     := block[128] | factor[4096]                     in blocks, for scans
               | (u8[8 words] | factor)[4096]                  in rows, for a graph
    factor    := offset u16 | slope u16: the upper halves of floats
    block     := u8[8 words][32]: byte b of each of 32 rows

The body holds whole groups. All of it is derived from the records: losing this file costs speed,
and ``FlatIndex.rebuild_codes`` makes it again. This file knows no distances.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.index import files, layout
from memdb.index.layout import BLOCK_ROWS, FACTOR_BYTES, GROUP_BLOCKS, GROUP_ROWS
from memdb.index.protocol import Encoded, SpaceSpec

NAME = "codes.bin"
MAGIC = b"MDBCODES"
VERSION = 2
ROWS_VERSION = 3
_FIELDS = struct.Struct("<IBBHIIQ")
_REBUILD = "the vectors are safe: run `memdb check --repair` to make the codes again"


def _pack_fields(spec: SpaceSpec, centre: NDArray[np.float32]) -> bytes:
    fixed = (spec.dim, layout.METRICS[spec.metric], spec.code_bits, 0, spec.epoch, 0, spec.seed)
    return _FIELDS.pack(*fixed) + centre.astype("<f4").tobytes()


class CodesOutdated(StoreCorrupt):
    """An earlier memdb wrote the codes: nothing is damaged, they are to be made again."""


class CodesFile:
    """An open codes.bin of one space."""

    def __init__(
        self, directory: Path, spec: SpaceSpec, *, writable: bool, name: str = NAME
    ) -> None:
        self.dim = spec.dim
        self._code_bytes = 8 * layout.words_of(spec.dim)
        self._group_bytes = layout.group_bytes(spec.dim)
        self._wanted = (spec.dim, layout.METRICS[spec.metric], spec.code_bits)
        path = directory / name
        self.file = files.MappedFile(path, MAGIC, writable=writable, version=ROWS_VERSION)
        try:
            self._load_fields()
        except BaseException:
            self.file.close()
            raise

    @staticmethod
    def make(
        directory: Path,
        spec: SpaceSpec,
        centre: NDArray[np.float32],
        encoded: Iterator[tuple[NDArray[np.uint32], Encoded]],
        name: str = NAME,
        *,
        rows: bool = False,
    ) -> None:
        """Write a whole file with these slots, ascending, in place of any older one."""
        size = layout.group_bytes(spec.dim)
        with files.replacing(directory / name) as handle:
            version = ROWS_VERSION if rows else VERSION
            head = files.seal_header(MAGIC, _pack_fields(spec, centre), version)
            handle.write(head)
            for slots, part in encoded:
                for number in np.unique(slots // GROUP_ROWS):
                    first, last = np.searchsorted(
                        slots, [number * GROUP_ROWS, (int(number) + 1) * GROUP_ROWS]
                    )
                    body = np.zeros(size, np.uint8)
                    chosen = slice(int(first), int(last))
                    group = layout.group_at(body, spec.dim, 0, rows=rows)
                    _place(group, slots[chosen] % GROUP_ROWS, part, chosen)
                    handle.seek(len(head) + int(number) * size)
                    handle.write(body.data)

    def _load_fields(self) -> None:
        fields = self.file.fields
        self.rows = self.file.version == ROWS_VERSION
        if self.file.version < VERSION:
            raise CodesOutdated(f"{NAME} has an older layout", path=str(self.file.path))
        if len(fields) != _FIELDS.size + 4 * self.dim:
            raise self.corrupt("has fields of another length")
        dim, metric, bits, _, epoch, _, seed = _FIELDS.unpack_from(fields)
        if (dim, metric, bits) != self._wanted:
            raise self.corrupt("belongs to another space")
        self.epoch, self.seed = epoch, seed
        self.centre = np.frombuffer(fields, "<f4", offset=_FIELDS.size).astype(np.float32)
        if not np.isfinite(self.centre).all():
            raise self.corrupt("has a centre that is not finite")

    def corrupt(self, what: str) -> StoreCorrupt:
        return self.file.corrupt(what, hint=_REBUILD)

    def refresh(self) -> None:
        if self.file.refresh():
            self._load_fields()

    @property
    def groups(self) -> NDArray[np.uint8]:
        """(bytes,) of whole groups; what a scan takes."""
        body = self.file.body
        return body[: len(body) // self._group_bytes * self._group_bytes]

    @property
    def capacity(self) -> int:
        """One past the greatest slot that the mapped groups have room for."""
        return len(self.file.body) // self._group_bytes * GROUP_ROWS

    def write(self, slots: NDArray[np.uint32], encoded: Encoded) -> None:
        """Put the codes of ascending ``slots``, durably."""
        self._change(slots, encoded)

    def clear(self, slots: NDArray[np.uint32]) -> None:
        """Zero the codes and factors of ascending ``slots``, durably."""
        self._change(slots, None)

    def punch(self, first: int, last: int) -> bool:
        """Give back the blocks of slots first ... last - 1 of one group, which nobody reads."""
        if first >= self.capacity:
            return True
        start = first // GROUP_ROWS * self._group_bytes
        low, high = first % GROUP_ROWS, (last - 1) % GROUP_ROWS + 1
        factors = GROUP_ROWS * self._code_bytes
        ranges = (
            (low * self._code_bytes, high * self._code_bytes),
            (factors + low * FACTOR_BYTES, factors + high * FACTOR_BYTES),
        )
        codes, weights = (self.file.punch(start + a, b - a) for a, b in ranges)
        return codes and weights

    def _change(self, slots: NDArray[np.uint32], encoded: Encoded | None) -> None:
        if not len(slots):
            return
        self.file.grow((int(slots[-1]) // GROUP_ROWS + 1) * self._group_bytes)
        self.file.refresh()
        numbers = slots // GROUP_ROWS
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for first, last in zip([0, *cuts], [*cuts, len(slots)], strict=True):
            self._change_group(int(numbers[first]), slots, slice(int(first), int(last)), encoded)
        self.file.sync()

    def _change_group(
        self, number: int, slots: NDArray[np.uint32], chosen: slice, encoded: Encoded | None
    ) -> None:
        """Write back the touched range of blocks; its other rows get the bytes they had."""
        rows = slots[chosen] % GROUP_ROWS
        start = number * self._group_bytes
        lowest, highest = int(rows[0]) // BLOCK_ROWS, int(rows[-1]) // BLOCK_ROWS + 1
        block_bytes = BLOCK_ROWS * self._code_bytes
        factors = GROUP_BLOCKS * block_bytes
        row_bytes = BLOCK_ROWS * FACTOR_BYTES
        ranges = [
            (lowest * block_bytes, highest * block_bytes),
            (factors + row_bytes * lowest, factors + row_bytes * highest),
        ]
        if self.rows:
            whole = block_bytes + row_bytes
            ranges = [(lowest * whole, highest * whole)]
        body = np.zeros(self._group_bytes, np.uint8)
        for low, high in ranges:
            body[low:high] = self.file.body[start + low : start + high]
        _place(layout.group_at(body, self.dim, 0, rows=self.rows), rows, encoded, chosen)
        for low, high in ranges:
            self.file.write(start + low, body[low:high].data)

    def read(self, slots: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Codes (n, bytes) and factors (n,) of slots within the capacity."""
        codes = np.empty((len(slots), self._code_bytes), np.uint8)
        factors = np.empty(len(slots), np.uint32)
        groups = self.groups
        for number in np.unique(slots // GROUP_ROWS):
            at = np.flatnonzero(slots // GROUP_ROWS == number)
            rows = slots[at] % GROUP_ROWS
            group = layout.group_at(groups, self.dim, int(number), rows=self.rows)
            codes[at] = group.codes[rows // BLOCK_ROWS, :, rows % BLOCK_ROWS]
            factors[at] = group.factors[rows]
        return codes, factors

    def rearrange(self, directory: Path, spec: SpaceSpec, *, rows: bool) -> None:
        """Write the same codes anew, in blocks or in ``rows``, in this file's place."""
        no_records = np.zeros((0, 0), np.uint8)

        def parts() -> Iterator[tuple[NDArray[np.uint32], Encoded]]:
            for first in range(0, self.capacity, GROUP_ROWS):
                part = np.arange(first, first + GROUP_ROWS, dtype=np.uint32)
                yield part, Encoded(self.epoch, no_records, *self.read(part))

        same = replace(spec, epoch=self.epoch, seed=self.seed)
        CodesFile.make(directory, same, self.centre, parts(), rows=rows)

    def close(self) -> None:
        self.file.close()


def _place(
    group: layout.Group,
    rows: NDArray[np.uint32],
    encoded: Encoded | None,
    chosen: slice,
) -> None:
    """Set rows of one group to the chosen part of ``encoded``, or to zeros."""
    at = (rows // BLOCK_ROWS, slice(None), rows % BLOCK_ROWS)
    group.codes[at] = 0 if encoded is None else encoded.codes[chosen]
    group.factors[rows] = 0 if encoded is None else encoded.factors[chosen]
