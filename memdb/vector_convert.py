"""A ``VectorIndex`` on its way to a smaller profile: what each write transaction does for it.

The job is written down in the index's state: the target, and how many slots have been looked at.
Steps copy some hundred slots each; every other write meanwhile does to the new files what it did
to the old ones, in the same transaction, whichever process it is of. So the files of the target
are right when the last slot was copied, and a job whose process died costs disk, until it goes on
or another begins. The files are opened anew in each transaction, because another process may have
begun them again in between.

This file knows drafts of the book and files; it does not know transactions or threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from memdb import vector_book
from memdb.errors import Conflict
from memdb.index.convert import Conversion, check_target, other_files, remove_others, resumable
from memdb.index.engines import AnyEngine, drop_graph, files_of
from memdb.index.protocol import Profile, SpaceSpec
from memdb.vector_book import Book, Converting, Draft, Slots, State

STEP_MS: Final = 40.0
"""What a step should take: writers wait for so long."""
_FIRST, _FEWEST, _MOST = 256, 64, 8192


class Pace:
    """How many slots the next step copies, so that it takes about ``STEP_MS`` on this machine."""

    def __init__(self) -> None:
        self.slots = _FIRST

    def took(self, elapsed_ms: float) -> None:
        """At most doubled from one step to the next: one quick step says little."""
        fitting = self.slots * STEP_MS / max(elapsed_ms, 0.1)
        self.slots = int(min(max(fitting, _FEWEST), 2 * self.slots, _MOST))


def profile_of(state: State) -> Profile:
    return SpaceSpec.from_dict(state.spec).profile


def engine_of(state: State) -> tuple[str, Profile]:
    """What makes one engine of a directory another: kind and profile."""
    return state.kind, profile_of(state)


def check_profile(state: State, profile: Profile) -> None:
    """``Conflict`` for a profile that an index of this kind cannot have."""
    if (
        state.kind == "ssd"
        and not SpaceSpec.from_dict({**state.spec, "profile": profile}).has_codes
    ):
        raise Conflict(f"profile {profile!r} keeps no codes, by which kind 'ssd' is walked")


def leftovers(state: State, path: Path) -> bool:
    """Whether a job that ended or was given up has left files."""
    return state.converting is None and bool(other_files(path, SpaceSpec.from_dict(state.spec)))


def progress_of(book: Book) -> dict[str, Any] | None:
    """The job, and how many vectors of how many are done; None where there is none."""
    job = book.state.converting
    if job is None:
        return None
    done = int(np.count_nonzero(book.present()[: job.copied]))
    return {"profile": job.profile, "done": done, "total": book.state.count}


def begin(path: Path, draft: Draft, target: Profile) -> None:
    """Make ``target`` the job, unless it is; the present profile gives up the one there is.

    Raises ``Conflict`` for a target that is more precise than what is kept.
    """
    spec = SpaceSpec.from_dict(draft.spec)
    check_target(spec, target)
    job = draft.converting
    if job is not None and job.profile == target:
        return
    remove_others(path, spec)
    draft.converting = None if spec.profile == target else Converting(profile=target)


def step(path: Path, engine: AnyEngine, draft: Draft, target: Profile, slots: int) -> bool:
    """Copy the next ``slots``; with the last of them the draft has the new spec. Whether so.

    Raises ``Conflict`` when another target was chosen meanwhile.
    """
    spec, job = SpaceSpec.from_dict(draft.spec), draft.converting
    if spec.profile == target:
        return True  # another process took the last step
    if job is None or job.profile != target:
        raise Conflict(
            f"the conversion to {target!r} was given up for another",
            hint="stats() says what the index is being converted to",
        )
    if engine.codes_problem is not None:  # their centre is that of the new codes
        draft.spec = engine.rebuild_codes(vector_book.encoded_set(draft.states)).to_dict()
    elif not engine.trained:  # nothing is in the files
        draft.spec = {**draft.spec, "profile": target}
        draft.converting = None
        return True
    if not resumable(files_of(engine), target):
        _begin_again(path, draft)
        if job.copied:
            return False
    conversion = Conversion(files_of(engine), target)
    try:
        part = draft.states[job.copied : job.copied + slots]
        encoded = np.flatnonzero(vector_book.in_files(part)) + job.copied
        conversion.copy(encoded.astype(np.uint32))
        copied = job.copied + len(part)
        if copied < len(draft.states):
            draft.converting = Converting(profile=target, copied=copied)
            return False
        draft.spec = conversion.install().to_dict()
    finally:
        conversion.close()
    draft.converting = None
    drop_graph(engine)  # of records that are no more
    return True


def written(path: Path, engine: AnyEngine, draft: Draft, slots: Slots) -> None:
    """Vectors were written at ``slots``: copy again what had been copied."""
    conversion = _conversion(path, engine, draft)
    job = draft.converting
    if conversion is not None and job is not None:
        conversion.copy(slots[slots < job.copied])
        conversion.close()


def cleared(path: Path, engine: AnyEngine, draft: Draft, slots: Slots) -> None:
    """``slots`` were zeroed: so they are in the new files, whoever put them there."""
    conversion = _conversion(path, engine, draft)
    if conversion is not None:
        conversion.clear(slots)
        conversion.close()


def _conversion(path: Path, engine: AnyEngine, draft: Draft) -> Conversion | None:
    """The files of the draft's job; None where there are none that hold what it says was copied:
    half a conversion is no loss, and keeps nobody from writing."""
    job = draft.converting
    if job is None:
        return None
    if engine.codes_problem is None and resumable(files_of(engine), job.profile):
        return Conversion(files_of(engine), job.profile)
    _begin_again(path, draft)
    return None


def _begin_again(path: Path, draft: Draft) -> None:
    """Forget what was copied. No file is made before that is committed: one that is there counts
    as holding what the state says."""
    if draft.converting is not None:
        remove_others(path, SpaceSpec.from_dict(draft.spec))
        draft.converting = Converting(profile=draft.converting.profile)
