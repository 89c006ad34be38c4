"""The flat engine: every allowed code is looked at, the best are re-scored from their records.

A search estimates all allowed distances from one-bit codes, keeps a shortlist of ``effort`` slots
and orders those of it that may be near by the distances of the lasting records. A small allowed
set skips the estimate and is exact (``planner`` decides). Spaces of 2 bits a coordinate or fewer
have no codes: their records are scanned. Inserting and deleting touch only the slots concerned. It
owns one directory and knows nothing of records, rows or LMDB; ``protocol.py`` says how a change
becomes visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import settings
from memdb.errors import InvalidArgument, NotFound, StoreCorrupt
from memdb.index import layout
from memdb.index.calibration import Calibration
from memdb.index.codes_file import NAME as CODES_NAME
from memdb.index.codes_file import CodesFile, CodesOutdated
from memdb.index.kernels import Kernels, default_kernels
from memdb.index.planner import plan_search
from memdb.index.protocol import (
    NO_SLOT,
    Change,
    Encoded,
    SearchPlan,
    SpaceSpec,
    as_slots,
    as_vectors,
)
from memdb.index.quantise import Quantiser
from memdb.index.records_file import NAMES as RECORDS_NAMES
from memdb.index.records_file import RecordsFile
from memdb.index.row_access import RowAccess
from memdb.index.slots import SlotSet

_PART = 4096  # vectors worked on at a time


class FlatIndex(RowAccess):
    """Vectors of one space in ``directory``, which exists.

    Raises ``StoreCorrupt`` or ``PermissionDenied`` when the records cannot be opened. Missing or
    damaged codes do not: searches then score the records themselves, ``codes_problem`` says why,
    and ``rebuild_codes`` mends it. Thread-safe for searches; one thread writes at a time.
    """

    def __init__(
        self,
        directory: Path,
        spec: SpaceSpec,
        *,
        writable: bool,
        threads: int = 1,
        kernels: Kernels | None = None,
        calibration: Calibration | None = None,
        rows: bool = False,
    ) -> None:
        """``rows``: codes that are made are in rows, for a graph before them."""
        if threads < 1:
            raise InvalidArgument("threads must be at least 1", field="threads")
        self.directory = Path(directory)
        self.codes_problem: StoreCorrupt | None = None
        self.kernels = kernels or default_kernels()
        self._spec = spec
        self.rows = rows
        self._calibration = calibration
        self._planned: tuple[SlotSet, tuple[object, ...], SearchPlan] | None = None
        self._writable = writable
        self._threads = threads
        self._quantiser = Quantiser(spec, self.kernels)
        self._codes: CodesFile | None = None
        self._records: RecordsFile | None = None
        self._open_records()
        self._open_codes()

    # --- files -----------------------------------------------------------------------------

    def _open_records(self) -> None:
        path = self.directory / RECORDS_NAMES[self._quantiser.precision]
        if self._writable or path.exists():
            self._records = RecordsFile(
                self.directory, self._spec, self.kernels, writable=self._writable
            )
        elif self._spec.epoch:
            raise StoreCorrupt(f"{path.name} is missing", path=str(path))

    def _open_codes(self) -> None:
        path = self.directory / CODES_NAME
        self.codes_problem = None
        if not self._spec.has_codes:
            return
        try:
            if path.exists():
                self._codes = CodesFile(self.directory, self._spec, writable=self._writable)
            elif self._spec.epoch:
                raise StoreCorrupt(f"{CODES_NAME} is missing", path=str(path))
        except StoreCorrupt as error:
            self._codes, self.codes_problem = None, error

    def _need_records(self) -> RecordsFile:
        if self._records is None:
            self._open_records()
        if self._records is None:
            raise NotFound("the index holds no vectors yet")
        return self._records

    def _need_codes(self) -> CodesFile:
        if self._codes is None:
            raise self.codes_problem or InvalidArgument(
                "the index is not trained", hint="call train with a sample of the vectors first"
            )
        return self._codes

    def _need_writable(self) -> None:
        if not self._writable:
            raise InvalidArgument("the index was opened for reading", field="writable")

    @property
    def spec(self) -> SpaceSpec:
        return self._spec

    @property
    def trained(self) -> bool:
        return self._codes is not None if self._spec.has_codes else self._spec.epoch > 0

    @property
    def centre(self) -> NDArray[np.float32]:
        """(dim,) rotated, about which codes are made; empty where the space has none."""
        return self._epoch_and_centre()[1]

    @property
    def codes_outdated(self) -> bool:
        """Whether an earlier memdb wrote the codes; ``rebuild_codes`` makes them again."""
        return isinstance(self.codes_problem, CodesOutdated)

    def refresh(self, spec: SpaceSpec | None = None) -> None:
        """See what another process wrote: growth, or files that took the place of others."""
        if spec is not None:
            if replace(spec, epoch=0, shortlist=0) != replace(self._spec, epoch=0, shortlist=0):
                raise InvalidArgument("only the epoch of a space changes", field="spec")
            self._spec = spec
        if self._records is None:
            self._open_records()
        else:
            self._records.refresh()
        if self._codes is None:
            self._open_codes()
            return
        if self._codes.file.is_replaced():
            self._open_codes()  # searches that have the old file end with it
            return
        try:
            self._codes.refresh()
        except StoreCorrupt as error:
            self._codes, self.codes_problem = None, error

    def close(self) -> None:
        """Idempotent."""
        self._space = None
        for file in (self._codes, self._records):
            if file is not None:
                file.close()

    # --- training --------------------------------------------------------------------------

    def train(self, sample: ArrayLike, *, encoded: SlotSet | None = None) -> SpaceSpec:
        """Fix the centre on ``sample`` (n, dim) and write a new codes file, durably.

        ``encoded``: the slots in use, whose codes are made again about the new centre. Returns
        the spec with its epoch raised, for the caller to commit; a crash before that is harmless,
        because the file describes itself.
        """
        self._need_writable()
        records = self._quantiser.to_records(as_vectors(sample, self._spec.dim, field="sample"))
        return self._write_codes(records, encoded or SlotSet.empty())

    def rebuild_codes(self, encoded: SlotSet) -> SpaceSpec:
        """Make codes.bin again from the records of the slots in use; the epoch is raised.

        The centre is taken from up to 4,096 of them, evenly spread.
        """
        self._need_writable()
        slots = encoded.array
        sample = self._need_records().read(slots[:: max(1, len(slots) // _PART)])
        return self._write_codes(sample, encoded)

    def _write_codes(self, sample: NDArray[np.uint8], encoded: SlotSet) -> SpaceSpec:
        """New codes about the centre of ``sample`` (n, record bytes); measures the shortlist."""
        known = max(self._spec.epoch, self._codes.epoch if self._codes else 0)
        if not self._spec.has_codes:
            self._spec = replace(self._spec, epoch=known + 1)
            return self._spec
        centre = self._quantiser.centre(sample)
        shortlist = self._quantiser.shortlist(sample, centre)
        spec = replace(self._spec, epoch=known + 1, shortlist=shortlist)

        def parts() -> Iterator[tuple[NDArray[np.uint32], Encoded]]:
            # Cut where groups end, so that each group is written once.
            slots = encoded.array
            for number in np.unique(slots // layout.GROUP_ROWS):
                part = slots[slots // layout.GROUP_ROWS == number]
                records = self._need_records().read(part)
                yield part, self._quantiser.encode(records, centre, spec.epoch)

        CodesFile.make(self.directory, spec, centre, parts(), rows=self.rows)
        if self._codes is not None:
            self._codes.close()
        self._spec = spec
        self._open_codes()
        return spec

    # --- changes ---------------------------------------------------------------------------

    def encode(self, vectors: ArrayLike) -> Encoded:
        """Quantise (n, dim) vectors; no file is touched. About 10 us a vector at 384-d.

        Raises ``InvalidArgument``, ``DimensionMismatch``.
        """
        epoch, centre = self._epoch_and_centre()
        given = as_vectors(vectors, self._spec.dim)
        parts = [
            self._quantiser.encode(
                self._quantiser.to_records(given[first : first + _PART]), centre, epoch
            )
            for first in range(0, max(1, len(given)), _PART)
        ]
        if len(parts) == 1:
            return parts[0]
        return Encoded(
            epoch,
            np.concatenate([part.records for part in parts]),
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.factors for part in parts]),
        )

    def _epoch_and_centre(self) -> tuple[int, NDArray[np.float32]]:
        if not self._spec.has_codes and self.trained:
            return self._spec.epoch, _NOTHING
        codes = self._need_codes()
        return codes.epoch, codes.centre

    def prepare(self, slots: ArrayLike, encoded: Encoded) -> Change:
        """Write records, then codes, at slots that nobody reads yet; durable on return."""
        self._need_writable()
        (epoch, centre), records = self._epoch_and_centre(), self._need_records()
        chosen = as_slots(slots)
        if len(chosen) != len(encoded):
            raise InvalidArgument("as many slots as vectors are needed", field="slots")
        order = np.argsort(chosen, kind="stable")
        ordered = chosen[order]
        if len(ordered) and (ordered[1:] == ordered[:-1]).any():
            raise InvalidArgument("a slot is given twice", field="slots")
        if encoded.epoch != epoch:  # trained again meanwhile: the record still holds
            encoded = self._quantiser.encode(encoded.records, centre, epoch)
        sorted_records = np.ascontiguousarray(encoded.records[order])
        records.write(ordered, sorted_records)
        if self._codes is not None:
            self._codes.write(
                ordered,
                Encoded(
                    epoch,
                    sorted_records,
                    encoded.codes[order],
                    encoded.factors[order],
                ),
            )
        return Change(ordered, epoch)

    def publish(self, change: Change) -> None:
        """After the caller's commit: this process sees the change."""
        self.refresh()

    def clear(self, slots: ArrayLike) -> None:
        """Zero slots in every file, durably. Nobody may be reading them any more."""
        self._need_writable()
        chosen = np.unique(as_slots(slots))
        records = self._need_records()
        records.clear(chosen[chosen < records.capacity])
        if self._codes is not None:
            self._codes.clear(chosen[chosen < self._codes.capacity])

    def punch(self, first: int, last: int) -> bool:
        """Give the disk back what slots first ... last - 1 take; multiples of ``layout.BLOCK_ROWS``
        within one group of codes. Nobody reads them, and who writes one later writes all of it.

        False where the system cannot; on Linux most file systems can.
        """
        self._need_writable()
        done = self._need_records().punch(first, last)
        return (self._codes is None or self._codes.punch(first, last)) and done

    # --- reading ---------------------------------------------------------------------------

    def fetch(self, slots: ArrayLike) -> NDArray[np.float32]:
        """(n, dim) float32 vectors at the profile's precision.

        Raises ``StoreCorrupt`` naming the file for a slot that holds no sound record.
        """
        chosen = as_slots(slots)
        if not len(chosen):
            return np.empty((0, self._spec.dim), np.float32)
        return self._quantiser.to_vectors(self._need_records().read(chosen))

    def seals(self, slots: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """(n,) checksums that records carry: another one means another vector. 0: no record."""
        records = self._need_records().records
        inside = slots < len(records)
        found = np.zeros(len(slots), np.uint32)
        found[inside] = records[slots[inside], -4:].copy().view("<u4").reshape(-1)
        return found

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        allowed: SlotSet,
        effort: int | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The min(k, allowed.count) nearest of ``allowed`` to each of (q, dim) queries.

        Returns (q, k) slots padded with 2**32 - 1 and (q, k) float32 distances, ascending, padded
        with +inf; equal distances are in slot order. ``effort``: how many are re-scored, as many
        as training measured unless told; recall grows with it. ``exact`` re-scores all of them.
        """
        given = as_vectors(queries, self._spec.dim, field="queries")
        _check_search(k, effort)
        found = min(k, allowed.count)
        if not found or not len(given):
            return _padded(len(given), k)
        records, codes = self._files_for(allowed)
        plan = self._plan(allowed, k, effort, exact, codes)
        scanned = codes if plan.name in ("scan", "gather") else None
        one_by_one = self.one_by_one(given, allowed, found, plan, scanned)
        if one_by_one is not None:
            return _padded(len(given), k, one_by_one)
        slots, distances, bad = self.kernels.search(
            groups=scanned.groups if scanned is not None else None,
            records=records.records,
            metric=layout.METRICS[self._spec.metric],
            precision=self._quantiser.precision,
            queries=self._quantiser.queries(given),
            signs=self._quantiser.signs,
            centre=scanned.centre if scanned is not None else _NOTHING,
            allowed=allowed.bitset,
            k=found,
            keep=plan.rescored,
            threads=self._threads,
            rough=plan.name == "records",
        )
        if bad >= 0:
            raise records.damaged(bad)
        return _padded(len(given), k, (slots, distances))

    def plan(
        self, allowed: SlotSet, k: int, *, effort: int | None = None, exact: bool = False
    ) -> SearchPlan:
        """What ``search`` with the same arguments does, a query."""
        _check_search(k, effort)
        codes = self._files_for(allowed)[1] if allowed else self._codes
        return self._plan(allowed, k, effort, exact, codes)

    def _plan(
        self, allowed: SlotSet, k: int, effort: int | None, exact: bool, codes: CodesFile | None
    ) -> SearchPlan:
        capacity = self._records.capacity if self._records is not None else 0
        rows = codes is not None and codes.rows
        asked = (self._spec, k, effort, exact, codes is None, rows, capacity)
        known = self._planned
        if known is not None and known[0] is allowed and known[1] == asked:
            return known[2]
        plan = plan_search(
            self._spec,
            allowed,
            k,
            effort=effort,
            exact=exact,
            codes=codes is not None,
            rows=rows,
            capacity=capacity,
            calibration=self.calibration,
        )
        self._planned = (allowed, asked, plan)  # most searches repeat the one before
        return plan

    def _files_for(self, allowed: SlotSet) -> tuple[RecordsFile, CodesFile | None]:
        """The open files, both long enough for ``allowed``."""
        records, codes = self._need_records(), self._codes
        short = codes is not None and codes.capacity < allowed.limit
        if short or records.capacity < allowed.limit:
            self.refresh()
            records, codes = self._need_records(), self._codes
        if records.capacity < allowed.limit:
            raise records.file.corrupt(f"ends before slot {allowed.limit - 1}")
        if codes is not None and codes.capacity < allowed.limit:
            self.codes_problem = codes.corrupt(f"ends before slot {allowed.limit - 1}")
            return records, None
        return records, codes

    def within(
        self, query: ArrayLike, radius: float, *, allowed: SlotSet
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Every allowed slot no farther than ``radius`` from one query, nearest first.

        Exact with respect to the records. Returns (m,) slots and (m,) distances.
        """
        given = as_vectors(query, self._spec.dim, field="query")
        if len(given) != 1:
            raise InvalidArgument("within takes one query", field="query")
        if np.isnan(radius):
            raise InvalidArgument("radius must be a number", field="radius")
        slots = allowed.array
        if not len(slots):
            return slots, np.empty(0, np.float32)
        self._files_for(allowed)
        distances = self.score(given, slots)
        near = np.flatnonzero(distances <= radius)
        order = near[np.lexsort((slots[near], distances[near]))]
        return slots[order], distances[order]

    def all_codes(self, at_once: int) -> Iterator[NDArray[np.uint8]]:
        """Every code in the file, (n, code bytes) at a time, published or not; for audits."""
        codes = self._codes
        if codes is not None:
            for first in range(0, codes.capacity, at_once):
                last = min(first + at_once, codes.capacity)
                yield codes.read(np.arange(first, last, dtype=np.uint32))[0]

    # --- care ------------------------------------------------------------------------------

    def verify(self, slots: ArrayLike) -> None:
        """Check every record, and that every code is the one its record gives.

        Raises ``StoreCorrupt`` naming the damaged file.
        """
        chosen = as_slots(slots)
        records = self._need_records()
        if self.codes_problem is not None and not self.codes_outdated:
            raise self.codes_problem
        for first in range(0, len(chosen), _PART):
            part = chosen[first : first + _PART]
            stored = records.read(part)
            codes = self._codes
            if codes is None or codes.epoch != self._spec.epoch:
                continue  # made for a spec whose commit a crash prevented: of other records
            if int(part.max()) >= codes.capacity:
                raise codes.corrupt(f"ends before slot {int(part.max())}")
            same = self._quantiser.codes_hold(stored, codes.centre, *codes.read(part))
            if not same.all():
                raise codes.corrupt(f"has a damaged code at slot {int(part[~same][0])}")

    def stats(self) -> dict[str, int]:
        """Bytes on disk by file, bytes of mapped codes, and the slots there is room for."""
        codes, records = self._codes, self._records
        return {
            "codes_disk_bytes": codes.file.disk_bytes() if codes else 0,
            "records_disk_bytes": records.file.disk_bytes() if records else 0,
            "codes_mapped_bytes": len(codes.groups) if codes else 0,
            "capacity": records.capacity if records else 0,
            "record_bytes": records.size if records else 0,
            "epoch": self._spec.epoch,
        }


def _check_search(k: int, effort: int | None) -> None:
    if not 1 <= k <= settings.MAX_K:
        raise InvalidArgument(f"k must be in 1 ... {settings.MAX_K}", field="k")
    if effort is not None and effort < 1:
        raise InvalidArgument("effort must be at least 1", field="effort")


def _padded(
    queries: int,
    k: int,
    found: tuple[NDArray[np.uint32], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """What was found, filled up to ``k`` columns."""
    if found is not None and found[0].shape[1] == k:
        return found
    slots = np.full((queries, k), NO_SLOT, np.uint32)
    distances = np.full((queries, k), np.inf, np.float32)
    if found is not None:
        some = found[0].shape[1]
        slots[:, :some], distances[:, :some] = found
    return slots, distances


_NOTHING = np.zeros(0, np.float32)
