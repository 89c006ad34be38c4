"""What the tests of ``db.spaces.convert`` share: a small space, and a look at all its vectors."""

from __future__ import annotations

import numpy as np
import pytest

import memdb
from memdb import settings as limits
from memdb import space_convert
from memdb.storage import lookups
from memdb.storage.ids import require_id

DIM = 16
COSINES = {"exact": 0.9999, "standard": 0.999, "compact": 0.96, "nano": 0.55, "pico": 0.4}
FILES = {
    "exact": "refine.f16",
    "standard": "refine.8",
    "compact": "refine.5",
    "nano": "refine.2",
    "pico": "refine.1",
}


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Vectors are trained on and encoded soon, and steps are many."""
    patch.setattr(limits, "FRESH_VECTORS_MAX", 32)
    patch.setattr(limits, "ENCODE_AT", 4)
    patch.setattr(limits, "ENCODE_DIRECTLY_AT", 8)
    patch.setattr(space_convert, "_BATCH_ROWS", 40)
    patch.setattr(space_convert, "_LAST_ROWS", 20)


def fill(db: memdb.Database, count: int, seed: int, space: str = "photos") -> dict[str, np.ndarray]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    written = db.remember_many(
        [{"text": f"{i} of {seed}", "vector": v, "space": space} for i, v in enumerate(vectors)]
    )
    return {one.id: vector for one, vector in zip(written, vectors, strict=True)}


def check_vectors(
    db: memdb.Database, model: dict[str, np.ndarray], profile: str, space: str = "photos"
) -> None:
    """Every vector is the one that was given, as well as the profile keeps it."""
    engine = db._engine
    with engine.store.read() as txn:
        record = engine.require_space(txn, space)
        rows = {id: lookups.row_of(txn, require_id(id)) for id in model}
        assert None not in rows.values()
        found = engine.vectors(record).fetch(txn, [row for row in rows.values() if row is not None])
    for id, row in rows.items():
        assert row is not None
        one, other = found[row], model[id]
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        assert cosine >= COSINES[profile], (id, cosine)


def records_of(db: memdb.Database) -> set[str]:
    return {path.name for path in (db.path / "space").glob("*/refine.*")}


def job_of(db: memdb.Database, space: str = "photos") -> dict[str, object] | None:
    found: dict[str, object] | None = db.stats()["converting"].get(space)
    return found
