"""A database's space on its way to a smaller profile, a batch at a time, under the lease.

The record of the space names the target; which rows were copied is a set beside that of the encoded
ones, so that rows encoded meanwhile are simply not in it. Batches are copied outside transactions.
The last transaction copies the few that an import has added since and puts the new files in place;
and since rows keep their slots and nothing is cleared, the new files also serve snapshots from
before it. The old ones are removed when no such snapshot is read any more.

This file knows sets of rows and files; it does not know threads, or who holds the lease.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap

from memdb.errors import PermissionDenied
from memdb.index.convert import Conversion, check_target, other_files, remove_others, resumable
from memdb.index.protocol import SpaceSpec
from memdb.storage import spaces
from memdb.storage.filters import FilterIndex
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Store, Writer

if TYPE_CHECKING:
    from memdb.space_vectors import SpaceVectors

_BATCH_ROWS: Final = 8192  # some 0.4 s, in which others bring fewer
_LAST_ROWS: Final = 1024  # in a transaction: writers wait for that
_READERS_END_S: Final = 0.02


class Job(NamedTuple):
    """What a conversion has done and has to do, in rows."""

    profile: str
    done: int
    total: int


def job_of(txn: Reader, filters: FilterIndex, record: SpaceRecord) -> Job | None:
    """None where a space is not being converted."""
    if record.converting is None:
        return None
    encoded = filters.get_set(txn, f"encoded/{record.number}")
    done = len(filters.get_set(txn, converted(record)))
    return Job(record.converting, done, len(encoded))


def converted(record: SpaceRecord) -> str:
    """The name of the set of rows that the files of the target hold."""
    return f"converted/{record.number}"


def forget(txn: Writer, filters: FilterIndex, record: SpaceRecord) -> None:
    """What was copied no longer counts."""
    name = converted(record)
    filters.set_discard(txn, name, filters.get_set(txn, name))


def aim(txn: Writer, filters: FilterIndex, record: SpaceRecord, profile: str) -> SpaceRecord:
    """Make ``profile`` the target; the present one gives up the conversion there is.

    Raises ``InvalidArgument``, and ``Conflict`` for one that would keep more than there is.
    """
    target = check_target(_spec(record), profile)
    wanted = None if target == record.profile else target
    if wanted == record.converting:
        return record
    forget(txn, filters, record)
    changed = msgspec.structs.replace(record, converting=wanted)
    spaces.put_space(txn, changed)
    txn.layout_moved()
    return changed


def _spec(record: SpaceRecord) -> SpaceSpec:
    if record.index:
        return SpaceSpec.from_dict(record.index)
    return SpaceSpec(dim=record.dim, metric=record.metric, profile=record.profile)


def step(space: SpaceVectors, store: Store, filters: FilterIndex) -> bool:
    """Copy one batch, or end; False when there is nothing to do. Lease holder only."""
    with store.read() as txn:
        record = spaces.get_space(txn, space.record.number)
        if record is not None and record.converting is not None:
            layout = space.layout_view(txn)
            copied = filters.get_set(txn, converted(record))
            if layout.files is not None and layout.files.codes_problem is not None:
                space.rebuild_codes(txn)  # the new codes need their centre
                return True
    if record is None:
        return False
    if record.converting is None:
        tidy(space, store, _READERS_END_S)
        return False
    if layout.files is None:  # nothing is in files
        store.write(lambda txn: _end(txn, filters, record, {}))
        return True
    if not resumable(layout.files, record.converting):
        if copied:  # a file counts as holding what the set says: first the set, then the file
            store.write(lambda txn: forget(txn, filters, record))
            return True
        remove_others(space.directory, layout.files.spec)
    conversion = Conversion(layout.files, record.converting)
    try:
        pending = layout.encoded - copied
        batch = BitMap(pending[:_BATCH_ROWS])
        _copy(space, conversion, layout.allocation, batch)

        installed = False

        def commit(txn: Writer) -> None:
            nonlocal installed
            present = spaces.get_space(txn, record.number)
            if installed or present is None or present.converting != record.converting:
                return  # dropped or given up meanwhile; or run again, when the files are closed
            filters.set_add(txn, converted(record), batch)
            rest = filters.get_set(txn, f"encoded/{record.number}") - copied - batch
            if len(batch) < len(pending) or len(rest) > _LAST_ROWS:
                return
            # What an import added meanwhile is copied here, where it cannot add more.
            _copy(space, conversion, spaces.allocation(txn, record.number), rest)
            installed = True
            _end(txn, filters, record, conversion.install().to_dict())

        store.write(commit)
    finally:
        conversion.close()
    return True


def _copy(
    space: SpaceVectors, conversion: Conversion, allocation: spaces.Allocation, rows: BitMap
) -> None:
    with space.files_guard:
        conversion.copy(allocation.slots(np.frombuffer(rows.to_array(), dtype=np.uint32)))


def _end(txn: Writer, filters: FilterIndex, record: SpaceRecord, index: dict[str, object]) -> None:
    """From the commit of ``txn`` on, the space has the target's profile and ``index``."""
    present = spaces.get_space(txn, record.number)
    if present is None or record.converting is None or present.converting != record.converting:
        return
    forget(txn, filters, record)
    spaces.put_space(
        txn,
        msgspec.structs.replace(present, profile=record.converting, converting=None, index=index),
    )
    txn.layout_moved()


def drop_files(space: SpaceVectors, spec: SpaceSpec) -> None:
    """Remove the files besides those of ``spec``; Windows keeps what somebody has mapped."""
    with suppress(PermissionDenied):
        remove_others(space.directory, spec)


def tidy(space: SpaceVectors, store: Store, timeout_s: float) -> None:
    """Remove what conversions left that ended or were given up; lease holder only.

    Not before every snapshot from before is done, and not where Windows has it mapped: then the
    next time.
    """
    with store.read() as txn:
        record = spaces.get_space(txn, space.record.number)
    if record is None or record.converting is not None:
        return
    if other_files(space.directory, _spec(record)) and store.wait_for_readers(timeout_s):
        with suppress(PermissionDenied):
            remove_others(space.directory, _spec(record))
