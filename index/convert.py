"""From one profile to a smaller one, while the space is read and written.

The target's files grow beside the present ones: ``copy`` takes slots over, a batch at a time, in
any order and as often as is asked; ``install`` puts the new codes in place, and the caller's commit
of the spec it returns makes the new files those of the space. Until then the old ones are, and a
crash loses nothing but work. The caller remembers which slots were copied, copies again those that
are written meanwhile, and after its commit calls ``remove_others``.

Going down loses precision for good, so going up would only pretend: that needs the texts. This file
knows files and quantisers; it does not know commits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from memdb.errors import Conflict, InvalidArgument, StoreCorrupt
from memdb.index import files
from memdb.index.codes_file import NAME as CODES_NAME
from memdb.index.codes_file import CodesFile
from memdb.index.flat import FlatIndex
from memdb.index.protocol import Profile, SpaceSpec, as_slots
from memdb.index.quantise import Quantiser
from memdb.index.records_file import NAMES as RECORDS_NAMES
from memdb.index.records_file import RecordsFile

LADDER: Final[tuple[Profile, ...]] = ("exact", "standard", "compact", "nano", "pico")
"""Profiles from the most precise to the smallest."""

_NEXT_CODES: Final = "codes.next"
_PART: Final = 4096


def check_target(spec: SpaceSpec, profile: str) -> Profile:
    """``profile`` as one that ``spec`` can become; ``InvalidArgument`` or ``Conflict`` if not."""
    if profile not in get_args(Profile):
        raise InvalidArgument(f"profile must be one of {', '.join(LADDER)}", field="profile")
    if spec.metric == "hamming":
        raise Conflict("a hamming space keeps its bits: it has no other profile")
    if LADDER.index(cast(Profile, profile)) < LADDER.index(spec.profile):
        raise Conflict(
            f"profile {spec.profile!r} does not hold what {profile!r} would keep",
            hint="embed the texts again into a new space, or add the vectors to a new index",
        )
    return cast(Profile, profile)


def _target_spec(source: FlatIndex, profile: Profile) -> SpaceSpec:
    return replace(source.spec, profile=profile, epoch=source.spec.epoch + 1)


def resumable(source: FlatIndex, profile: Profile) -> bool:
    """Whether a ``Conversion`` would go on with the files of an earlier run; makes none.

    Who remembers what was copied must forget it, durably, before a ``Conversion`` that would not.
    """
    spec, directory = _target_spec(source, profile), source.directory
    try:
        RecordsFile(directory, spec, source.kernels, writable=False).close()
        if not spec.has_codes:
            return True
        codes = CodesFile(directory, spec, writable=False, name=_NEXT_CODES)
    except StoreCorrupt:  # missing, or not what it should be
        return False
    codes.close()
    same: bool = np.array_equal(codes.centre, source.centre)
    return same and codes.epoch == spec.epoch


class Conversion:
    """The files of ``source`` at another profile, while they are being made. Lease holder only.

    ``restarted`` says that no usable files of an earlier run were there: what had been copied is
    to be copied again.
    """

    def __init__(self, source: FlatIndex, profile: Profile) -> None:
        self.spec = _target_spec(source, profile)
        self._source = source
        self._directory = source.directory
        self._quantiser = Quantiser(self.spec, source.kernels)
        records_path = self._directory / RECORDS_NAMES[self.spec.precision]
        self.restarted = not records_path.exists()
        self._records = RecordsFile(self._directory, self.spec, source.kernels, writable=True)
        self._centre = source.centre
        self._codes: CodesFile | None = None
        if self.spec.has_codes:
            self._codes = self._open_codes()

    def _open_codes(self) -> CodesFile:
        """Those of an earlier run, if they are about the same centre; else new ones."""
        if not self.restarted and (self._directory / _NEXT_CODES).exists():
            found = CodesFile(self._directory, self.spec, writable=True, name=_NEXT_CODES)
            if found.epoch == self.spec.epoch and np.array_equal(found.centre, self._centre):
                return found
            found.close()
        self.restarted = True
        CodesFile.make(
            self._directory,
            self.spec,
            self._centre,
            iter(()),
            name=_NEXT_CODES,
            rows=self._source.rows,
        )
        return CodesFile(self._directory, self.spec, writable=True, name=_NEXT_CODES)

    def copy(self, slots: ArrayLike) -> None:
        """Take the vectors at these slots over, durably; they hold sound records."""
        chosen = np.unique(as_slots(slots))
        for first in range(0, len(chosen), _PART):
            part = chosen[first : first + _PART]
            records = self._quantiser.to_records(self._source.fetch(part))
            encoded = self._quantiser.encode(records, self._centre, self.spec.epoch)
            self._records.write(part, records)
            if self._codes is not None:
                self._codes.write(part, encoded)

    def clear(self, slots: ArrayLike) -> None:
        """Zero slots here as in the files of the space, durably."""
        chosen = np.unique(as_slots(slots))
        self._records.clear(chosen[chosen < self._records.capacity])
        if self._codes is not None:
            self._codes.clear(chosen[chosen < self._codes.capacity])

    def install(self) -> SpaceSpec:
        """Put the new codes in place of the old; returns the spec for the caller to commit.

        Readers of the old spec go on: codes only choose whom to score. Idempotent.
        """
        if self._codes is not None:
            self._codes.close()
            files.move(self._directory / _NEXT_CODES, self._directory / CODES_NAME)
            self._codes = None
        self._records.close()
        return self.spec

    def close(self) -> None:
        """Let go of the files; another ``Conversion`` goes on with them."""
        self._records.close()
        if self._codes is not None:
            self._codes.close()


def other_files(directory: Path, spec: SpaceSpec) -> list[Path]:
    """The files there that are of other profiles than ``spec``'s, or of a conversion."""
    names = [name for precision, name in RECORDS_NAMES.items() if precision != spec.precision]
    names.append(_NEXT_CODES)
    if not spec.has_codes:
        names.append(CODES_NAME)
    return [directory / name for name in names if (directory / name).exists()]


def remove_others(directory: Path, spec: SpaceSpec) -> None:
    """Remove the files of other profiles than the one committed. Who has them mapped keeps them."""
    for path in other_files(directory, spec):
        files.remove(path)
