"""Canaries: unique strings and vectors planted in every way a database can hold one.

``trial`` plants them, has the scanner find all, erases half while a second process reads a snapshot
from before and holds the database open, scans again, and restores a snapshot. ``bench.erase`` runs
it with a thousand; the tests with a hundred.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

import memdb
from memdb import Canary, Residue

DIM = 128
FORMS = ("utf-8", "utf-8 in zstd", "record (standard)", "1-bit code", "unit float16", "term hash")
_LETTERS = np.array(list("bcdfghjklmnpqrstvwxz"))
_LENGTH = 20
_NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
_KINDS = (
    "note",
    "note",
    "single",
    "updated",
    "fact",
    "sample",
    "chunk",
    "blob",
    "trash",
    "derived",
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.moment = _NOW

    def now(self) -> datetime:
        return self.moment


@dataclass
class Planted:
    """One canary: how it was written, what is looked for, and what names it in ``erase``."""

    kind: str
    word: str
    vector: Any = None
    id: str = ""
    erase_by: str = ""
    external_id: str | None = None

    def canary(self) -> Canary:
        return Canary(self.word, self.vector, self.id, self.external_id)


@dataclass
class Outcome:
    """What a trial counted."""

    planted: int
    found_before: int = 0
    forms_before: set[str] = field(default_factory=set)
    held_open: int | None = None
    residues: list[Residue] = field(default_factory=list)
    still_answered: int = 0
    kept_intact: int = 0
    kept: int = 0
    restored_residues: list[Residue] = field(default_factory=list)
    restored_kept: int = 0
    scanned_bytes: int = 0
    scan_s: float = 0.0
    erase_s: float = 0.0
    scrub_s: float = 0.0

    @property
    def passed(self) -> bool:
        return (
            self.found_before == self.planted
            and not self.residues
            and not self.restored_residues
            and not self.still_answered
            and self.kept_intact == self.kept == self.restored_kept
            and self.held_open is not None
        )


def words(count: int, rng: np.random.Generator) -> list[str]:
    """Strings of consonants that occur nowhere else."""
    return ["".join(row) for row in rng.choice(_LETTERS, (count, _LENGTH)).tolist()]


def plant(db: memdb.Database, root: Path, count: int, clock: Clock, seed: int) -> list[Planted]:
    """Write ``count`` canaries in ten ways, old and new, and ``root/notes`` with files of them."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    found = [
        Planted(_KINDS[n % len(_KINDS)], word, vectors[n])
        for n, word in enumerate(words(count, rng))
    ]
    notes = root / "notes"
    notes.mkdir()
    for age in ("old", "new"):
        some = found[: count // 2] if age == "old" else found[count // 2 :]
        for one in some:
            if age == "old" and one.kind == "trash":
                one.kind = "single"  # what is in the trash for forty days cannot be asked for
        _write_batch(db, [one for one in some if one.kind == "note"])
        for one in some:
            if one.kind != "note":
                _write_one(db, one, notes)
        db.files.sync(notes)
        for one in some:
            if one.kind == "chunk":
                one.id = one.erase_by = _holding(db, one.word)
        if age == "old":
            clock.moment += timedelta(days=40)
            db.compact()  # what is old is frozen
    return found


def _write_batch(db: memdb.Database, some: list[Planted]) -> None:
    for one in some:
        one.external_id = f"mail-{one.word}"
    items = [
        {
            "text": f"the {one.word} of the day",
            "vector": one.vector,
            "external_id": one.external_id,
            "tags": [f"tag-{one.word}"],
            "metadata": {"subject": one.word, f"key-{one.word}": 1},
            "source": f"app:{one.word}",
        }
        for one in some
    ]
    for one, written in zip(some, db.remember_many(items), strict=True):
        one.id = one.erase_by = written.id


def _write_one(db: memdb.Database, one: Planted, notes: Path) -> None:
    word, vector = one.word, one.vector
    if one.kind == "single":
        one.id = db.remember(f"{word} alone", vector=vector, stream=f"chat/{word}").id
    elif one.kind == "updated":
        one.id = db.remember(f"{word} at first", vector=vector).id
        db.update(one.id, text="something else by now", vector=-vector)
    elif one.kind == "fact":
        one.vector = None
        one.id = db.profile.set(f"key {word}", word, subject=f"friend {word}").id
    elif one.kind == "sample":
        one.vector = None
        one.id = db.history.append("reading", data={"note": word}, event_time=_NOW).id
    elif one.kind == "chunk":
        one.vector = None
        (notes / f"{word}.md").write_text(f"# {word}\n\nIt says {word} in here.\n")
    elif one.kind == "blob":
        one.vector = None
        one.id = db.remember(f"{word} " + "long and longer " * 5_000).id
    elif one.kind == "trash":
        one.id = db.remember(f"{word} thrown away", vector=vector).id
        db.forget(one.id)
    elif one.kind == "derived":
        source = db.remember(
            f"a plain source, number {len(word)} of {hash(word) % 10**9}", dedup="off"
        )
        one.id = db.remember(f"{word} inferred", vector=vector, derived_from=[source.id]).id
        one.erase_by = source.id
    one.erase_by = one.erase_by or one.id


def _holding(db: memdb.Database, word: str) -> str:
    return db.recall(word, mode="lexical", k=1)[0].id


def trial(root: Path, *, count: int, fillers: int, seed: int = 1) -> Outcome:
    """The canary test in ``root``, an empty directory."""
    rng = np.random.default_rng(seed + 1)
    outcome, clock, path = Outcome(count), Clock(), root / "db"
    with memdb.open(path, embedder="none", clock=clock) as db:
        if fillers:
            matrix = rng.standard_normal((fillers, DIM)).astype(np.float32)
            db.remember_many(
                [{"text": f"filler {n} of many", "vector": matrix[n]} for n in range(fillers)]
            )
        planted = plant(db, root, count, clock, seed)
        db.snapshot(root / "snapshot")
        started = time.monotonic()
        scan = memdb.scan_erased(path, [one.canary() for one in planted], fragments=True)
        outcome.scan_s, outcome.scanned_bytes = time.monotonic() - started, scan.bytes
        outcome.found_before = len({one.canary for one in scan.found})
        outcome.forms_before = {one.form for one in scan.found}
        erased, kept = planted[::2], planted[1::2]
        if count > len(_KINDS):  # both halves have every kind
            erased = [one for n, one in enumerate(planted) if (n + n // len(_KINDS)) % 2 == 0]
            kept = [one for n, one in enumerate(planted) if (n + n // len(_KINDS)) % 2]
        outcome.kept = len(kept)
        with _Holder(path) as holder:
            _erase(db, erased, holder, outcome)
            scan = memdb.scan_erased(path, [one.canary() for one in erased], fragments=True)
            outcome.residues = list(scan.found)
            outcome.still_answered = sum(_answered(db, one) for one in erased)
            outcome.kept_intact = sum(_intact(db, one) for one in kept)
    _restore(root, erased, kept, clock, outcome)
    return outcome


def _erase(db: memdb.Database, erased: list[Planted], holder: _Holder, outcome: Outcome) -> None:
    started = time.monotonic()
    receipt = db.erase([one.erase_by for one in erased])
    outcome.erase_s = time.monotonic() - started
    deadline = time.monotonic() + 60
    while outcome.held_open is None and time.monotonic() < deadline:
        try:
            receipt.wait(0.2)
        except memdb.LockHeld as error:
            if error.pid == holder.pid:
                outcome.held_open = error.pid
        else:
            break  # nothing was in the way: the trial fails
    holder.let_go()
    started = time.monotonic()
    receipt.wait(300)
    outcome.scrub_s = time.monotonic() - started


def _answered(db: memdb.Database, one: Planted) -> bool:
    """Whether any question still finds an erased canary."""
    if db.get(one.id) is not None or db.recall(one.word, mode="lexical"):
        return True
    if one.vector is None:
        return False
    return any(h.id == one.id for h in db.recall(vector=one.vector, mode="vector", k=5))


def _intact(db: memdb.Database, one: Planted) -> bool:
    if one.kind == "trash":
        return any(
            m.id == one.id and one.word in (m.text or "") for b in db.trash() for m in b.items
        )
    if one.kind == "updated":
        return any(one.word in (m.text or "") for m in db.versions(one.id))
    memory = db.get(one.id)
    if memory is None or one.word not in f"{memory.text} {memory.data}":
        return False
    if one.kind == "sample":
        return True
    if not any(h.id == one.id for h in db.recall(one.word, mode="lexical")):
        return False
    if one.vector is None:
        return True
    return db.recall(vector=one.vector, mode="vector", k=1)[0].id == one.id


def _restore(
    root: Path, erased: list[Planted], kept: list[Planted], clock: Clock, outcome: Outcome
) -> None:
    restored = root / "restored"
    shutil.copytree(root / "snapshot", restored)
    scan = memdb.scan_erased(restored, [one.canary() for one in erased], fragments=True)
    outcome.restored_residues = list(scan.found)
    with memdb.open(restored, embedder="none", clock=clock) as db:
        outcome.still_answered += sum(_answered(db, one) for one in erased)
        outcome.restored_kept = sum(_intact(db, one) for one in kept)


_HOLD = """
import sys, memdb
with memdb.open(sys.argv[1], embedder="none") as db:
    with db._engine.store.read():
        print("reading", flush=True)
        sys.stdin.readline()
    print(db.count() >= 0, flush=True)
    sys.stdin.readline()
"""


class _Holder:
    """Another process: it reads one snapshot until it lets go, then keeps the database open."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "reading":
            raise RuntimeError("the second process did not open the database")
        return self

    def let_go(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.communicate("\n")
