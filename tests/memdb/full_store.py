"""A database that uses every feature, small and the same each time: for tests that go through it.

``build`` makes it, ``answers`` asks it everything whose answer is known. Every string of a user
begins with ``MARK`` somewhere inside a word of its own, so that a leak of even four bytes shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb import settings

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
DIM = 16
MARK = "zqxj"
NOTES = 400
OWN_SPACE = f"{MARK}space"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def advance(self, **length: float) -> None:
        self.moment += timedelta(**length)


@contextmanager
def small_steps() -> Iterator[None]:
    """Thresholds at which a few hundred memories make several segments and encoded vectors."""
    small = {
        "FRESH_POSTINGS_MAX": 16,
        "FRESH_FILTERS_MAX": 16,
        "FRESH_VECTORS_MAX": 64,
        "ENCODE_AT": 32,
    }
    before = {name: getattr(settings, name) for name in small}
    for name, value in small.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def vector(number: int, dim: int = DIM) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(number).standard_normal(dim).astype(np.float32)


def long_text() -> str:
    """Over the size from which a text is a blob."""
    return " ".join(f"{MARK}long{number}" for number in range(9_000))


def note(number: int) -> dict[str, Any]:
    return {
        "text": f"{MARK}text{number} about {MARK}topic{number % 7}",
        "external_id": f"{MARK}ext{number}",
        "tags": [f"{MARK}tag{number % 5}", f"{MARK}even{number % 2}"],
        "metadata": {
            f"{MARK}word": f"{MARK}value{number % 11}",
            f"{MARK}number": number,
            f"{MARK}list": [f"{MARK}item{number % 3}", number % 4],
            f"{MARK}deep": {f"{MARK}inner": number % 2 == 0},
        },
        "source": f"app:{MARK}source{number % 3}",
        "stream": f"{MARK}stream{number % 4}",
        "about": [f"{MARK}person{number % 6}"],
        "kind": f"{MARK}kind{number % 2}",
        "event_time": NOW - timedelta(hours=number),
        "vector": vector(number),
        "namespace": f"default/{MARK}ns{number % 2}",
    }


def build(path: Path, folder: Path, clock: Clock) -> None:
    """Make the database at ``path``; ``folder`` becomes its synced folder of two files."""
    folder.mkdir(parents=True)
    (folder / f"{MARK}file.md").write_text(f"# {MARK}heading\n\n{MARK}inside a file of notes.\n")
    (folder / "other.txt").write_text(f"{MARK}plain words, nothing more.\n")
    with small_steps(), memdb.open(path, embedder="none", clock=clock) as db:
        db.settings.time_zone = "UTC"
        db.remember_many([note(number) for number in range(NOTES // 2)], batch=150)
        for number in range(NOTES // 2, NOTES // 2 + 40):
            db.remember(**note(number))
        db.remember_many([note(n) for n in range(NOTES // 2 + 40, NOTES)], batch=40)
        db.compact()
        db.spaces.create(OWN_SPACE, dim=8, metric="l2", profile="exact")
        for number in range(20):
            db.remember(f"{MARK}placed{number}", vector=vector(number, 8), space=OWN_SPACE)
        db.remember(long_text(), external_id=f"{MARK}blob", source=f"{MARK}src")
        db.files.sync(folder)
        db.tokens.create(f"{MARK}agent")
        told = db.acting(db.tokens.owner(), purpose=f"{MARK}purpose")
        told.forget(where={"tags": f"{MARK}nothing"})  # a row of the audit, and no memory
        for number in range(4):
            clock.advance(hours=1)
            db.profile.set(f"{MARK}key", f"{MARK}home{number}", subject=f"{MARK}subject")
        db.history.append_many(
            f"{MARK}pulse",
            [(NOW + timedelta(seconds=n), {f"{MARK}bpm": 60 + n % 9}) for n in range(2_500)],
            stream=f"{MARK}wrist",
            source=f"{MARK}watch",
        )
        first = db.get(external_id=f"{MARK}ext0", namespace=f"default/{MARK}ns0")
        assert first is not None
        db.update(first.id, text=f"{MARK}rewritten", vector=vector(0))
        db.update(first.id, tags=[f"{MARK}retagged"])
        db.forget(where={f"metadata.{MARK}number": {"$gte": NOTES - 10}})
        db.erase(db.remember("erased at once").id).wait()
        clock.advance(days=40)
        db.compact()  # freezes what is old by now
        db.remember_many(
            [
                {"text": f"{MARK}fresh{n}", "vector": vector(1_000 + n), "stream": f"{MARK}late"}
                for n in range(5)
            ]
        )


def questions(db: memdb.Database, *, exact: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """(what is asked, the answer, the right answer), one after the other.

    ``exact``: vectors are compared one by one, without the codes that estimate distances.
    """
    yield "count", lambda: db.count(), NOTES - 10 + 20 + 1 + 2 + 4 + 5
    for number in (0, 1, 77, 255, 389):
        where = {"external_id": f"{MARK}ext{number}"}
        text = f"{MARK}rewritten" if number == 0 else note(number)["text"]
        yield f"iter {number}", lambda w=where: [m.text for m in db.iter(w)], [text]
        yield (
            f"vector {number}",
            lambda n=number: [
                hit.text for hit in db.recall(vector=vector(n), mode="vector", k=1, exact=exact)
            ],
            [text],
        )
        if number:
            yield (
                f"lexical {number}",
                lambda n=number: [h.text for h in db.recall(f"{MARK}text{n}", mode="lexical")],
                [text],
            )
    yield (
        "near",
        lambda: [
            h.text for h in db.recall(vector=vector(3, 8), k=1, mode="vector", space=OWN_SPACE)
        ],
        [f"{MARK}placed3"],
    )
    yield "tag", lambda: db.count({"tags": f"{MARK}tag3"}), (NOTES - 10) // 5
    yield "number", lambda: db.count({f"metadata.{MARK}number": {"$lt": 33}}), 33
    yield "prefix", lambda: db.count({"source": {"$prefix": f"app:{MARK}source1"}}), 130
    yield (
        "time",
        lambda: db.count({"event_time": {"$gt": NOW - timedelta(hours=50), "$lte": NOW}}),
        50,
    )
    yield "stream", lambda: db.count({"stream": f"{MARK}stream2"}), 97
    yield (
        "profile",
        lambda: [m.data for m in db.profile.versions(f"{MARK}key", subject=f"{MARK}subject")],
        [f"{MARK}home{n}" for n in range(4)],
    )
    yield "blob", lambda: _text_of(db, f"{MARK}blob"), long_text()
    yield (
        "samples",
        lambda: sum(m.data[f"{MARK}bpm"] for m in db.history.range(f"{MARK}pulse")),
        sum(60 + n % 9 for n in range(2_500)),
    )
    yield (
        "file",
        lambda: [h.memory.kind for h in db.recall(f"{MARK}inside", mode="lexical")],
        ["chunk"],
    )
    yield "versions", lambda: _versions(db), [1, 2, 3]


def _text_of(db: memdb.Database, external_id: str) -> str | None:
    memory = db.get(external_id=external_id)
    return None if memory is None else memory.text


def _versions(db: memdb.Database) -> list[int]:
    memory = db.get(external_id=f"{MARK}ext0", namespace=f"default/{MARK}ns0")
    return [] if memory is None else [m.version for m in db.versions(memory.id)]
