"""What the tests of ``db.reembed`` share: models whose vectors say whose they are, and looks."""

from __future__ import annotations

import zlib

import numpy as np

import memdb
from memdb.embedded_text import embedded_text
from memdb.storage import spaces


class Words:
    """An embedder object: a direction a word, others in each model."""

    revision = "1"
    max_tokens = 100

    def __init__(self, name: str, dim: int = 16) -> None:
        self.name = name
        self.dim = dim
        self._known: dict[str, np.ndarray] = {}

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: list[str], role: str = "document") -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for place, text in enumerate(texts):
            for word in text.lower().split():
                vectors[place] += self._direction(word)
        return vectors

    def _direction(self, word: str) -> np.ndarray:
        if word not in self._known:
            rng = np.random.default_rng(zlib.crc32(f"{self.name} {word}".encode()))
            self._known[word] = rng.standard_normal(self.dim)
        return self._known[word]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(60)]
    return [f"{seed}-{i} " + " ".join(rng.choice(words, 5)) for i in range(count)]


def vectors_of(db: memdb.Database, space: str = "default") -> dict[str, np.ndarray]:
    """The vectors of all memories that are shown, by id."""
    engine = db._engine
    with engine.store.read() as txn:
        record = engine.require_space(txn, space)
        rows = list(engine.live(txn))
        found = engine.vectors(record).fetch(txn, rows)
        memories = engine.records.get_many(txn, rows)
        return {memories[row].id: vector for row, vector in found.items()}


def check_space(db: memdb.Database, model: Words, space: str = "default") -> None:
    """Every text that is shown has the vector that the model gives it, and nothing else has one."""
    found = vectors_of(db, space)
    texts = {one.id: embedded_text(one) for one in db.iter() if one.text and one.space is None}
    assert found.keys() == texts.keys()
    wanted = dict(zip(texts, model.embed(list(texts.values()), "query"), strict=True))
    for id, vector in found.items():
        cosine = vector @ wanted[id] / (np.linalg.norm(vector) * np.linalg.norm(wanted[id]))
        assert cosine > 0.999, (texts[id], cosine)


def space_names(db: memdb.Database) -> list[str]:
    with db._engine.store.read() as txn:
        return [space.name for space in spaces.spaces(txn)]
