"""A database against a dictionary: random lives, held to a brute-force oracle at every step.

The thresholds at which vectors are encoded and postings folded are lowered, so that every state of
a memory (fresh, encoded, folded, merged, frozen, in a new generation, reopened) is reached.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import memdb
from memdb import settings as limits

DIM = 12
WORDS = [
    "ana",
    "garden",
    "lake",
    "tea",
    "winter",
    "music",
    "bread",
    "train",
    "letter",
    "moon",
    "river",
    "stone",
]
TOLERANCE = 0.03  # of a cosine distance: what 8 bits a dimension may lose


@pytest.fixture(autouse=True)
def low_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRESH_VECTORS_MAX", 12)
    monkeypatch.setattr(limits, "FRESH_POSTINGS_MAX", 8)
    monkeypatch.setattr(limits, "FRESH_FILTERS_MAX", 6)
    monkeypatch.setattr(limits, "FRESH_FILTERS_LIMIT", 20)
    monkeypatch.setattr(limits, "ENCODE_AT", 4)
    monkeypatch.setattr(limits, "ENCODE_DIRECTLY_AT", 32)


class Entry:
    def __init__(self, text: str, vector: np.ndarray, tag: str, number: int) -> None:
        self.text, self.vector, self.tag, self.number = text, vector, tag, number


class Life(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.live: dict[str, Entry] = {}
        self.trash: dict[str, dict[str, Entry]] = {}
        self.count = 0
        self.db = memdb.open(self.folder / "db", embedder="none")

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            shutil.rmtree(self.folder)

    def _new(self, words: list[str], seed: int, tag: str) -> Entry:
        self.count += 1
        vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
        return Entry(f"{' '.join(words)} number{self.count}", vector, tag, self.count)

    @staticmethod
    def _fields(entry: Entry) -> dict:
        return {
            "text": entry.text,
            "vector": entry.vector,
            "tags": [entry.tag],
            "metadata": {"n": entry.number},
        }

    @rule(
        words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
        seed=st.integers(0, 1000),
        tag=st.sampled_from("ab"),
    )
    def remember(self, words: list[str], seed: int, tag: str) -> None:
        entry = self._new(words, seed, tag)
        self.live[self.db.remember(**self._fields(entry)).id] = entry

    @rule(size=st.integers(1, 200), seed=st.integers(0, 1000))
    def remember_many(self, size: int, seed: int) -> None:
        entries = [self._new([WORDS[(seed + i) % 12]], seed + i, "ab"[i % 2]) for i in range(size)]
        written = self.db.remember_many([self._fields(entry) for entry in entries])
        self.live.update(zip([w.id for w in written], entries, strict=True))

    def _pick(self, number: int) -> str | None:
        return sorted(self.live)[number % len(self.live)] if self.live else None

    @rule(number=st.integers(0, 10_000), tag=st.sampled_from("abc"))
    def retag(self, number: int, tag: str) -> None:
        id = self._pick(number)
        if id is not None:
            self.db.update(id, tags=[tag])
            self.live[id].tag = tag

    @rule(number=st.integers(0, 10_000), seed=st.integers(0, 1000))
    def rewrite(self, number: int, seed: int) -> None:
        id = self._pick(number)
        if id is not None:
            entry = self._new(["rewritten"], seed, self.live[id].tag)
            self.db.update(id, text=entry.text, vector=entry.vector, metadata={"n": entry.number})
            self.live[id] = entry

    @rule(number=st.integers(0, 10_000))
    def forget_one(self, number: int) -> None:
        id = self._pick(number)
        if id is not None:
            batch = self.db.forget(id)
            self.trash[batch.batch] = {id: self.live.pop(id)}

    @rule(tag=st.sampled_from("abc"), below=st.integers(0, 300))
    def forget_some(self, tag: str, below: int) -> None:
        batch = self.db.forget(where={"tags": tag, "metadata.n": {"$lt": below}})
        gone = {i for i, e in self.live.items() if e.tag == tag and e.number < below}
        assert set(batch.ids) == gone
        if gone:
            self.trash[batch.batch] = {id: self.live.pop(id) for id in gone}

    @rule(number=st.integers(0, 100))
    def restore(self, number: int) -> None:
        if self.trash:
            batch = sorted(self.trash)[number % len(self.trash)]
            assert set(self.db.restore(batch=batch)) == set(self.trash[batch])
            self.live.update(self.trash.pop(batch))

    @rule()
    def maintain(self) -> None:
        assert self.db._maintenance.drain()

    @rule()
    def compact(self) -> None:
        self.db._maintenance.freeze(older_than=timedelta(0))
        self.db.compact()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = memdb.open(self.folder / "db", embedder="none")

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "db"):
            return
        assert self.db.count() == len(self.live)
        assert {m.id: m.text for m in self.db.iter()} == {i: e.text for i, e in self.live.items()}
        for tag in "abc":
            assert self.db.count({"tags": tag}) == sum(e.tag == tag for e in self.live.values())
        self._check_words()
        self._check_vectors({})
        self._check_vectors({"tags": "a"})

    def _check_words(self) -> None:
        word = WORDS[self.count % 12]
        hits = self.db.recall(word, mode="lexical", k=limits.MAX_K)
        assert {h.id for h in hits} == {i for i, e in self.live.items() if word in e.text.split()}

    def _check_vectors(self, where: dict) -> None:
        query = np.random.default_rng(self.count).standard_normal(DIM).astype(np.float32)
        wanted = {i: e for i, e in self.live.items() if not where or e.tag == where["tags"]}
        true = sorted(_distance(query, e.vector) for e in wanted.values())
        for exact in (True, False):
            hits = self.db.recall(vector=query, mode="vector", k=5, where=where, exact=exact)
            assert len(hits) == min(5, len(wanted))
            for place, hit in enumerate(hits):
                distance = _distance(query, wanted[hit.id].vector)
                assert hit.why.cosine == pytest.approx(1 - distance, abs=TOLERANCE)
                # Among more, the codes of a space trained on 12 vectors miss one in 150.
                if exact or len(self.live) <= 500:
                    assert distance <= true[place] + TOLERANCE


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
