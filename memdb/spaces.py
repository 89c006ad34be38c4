"""``db.spaces``: embedding spaces by name. One per model, or for vectors the caller brings."""

from __future__ import annotations

from typing import Literal

from memdb import settings, validate
from memdb.engine import DEFAULT_SPACE, Engine
from memdb.errors import InvalidArgument
from memdb.storage import spaces
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Writer
from memdb.types import Space

METRICS = ("cosine", "ip", "l2")
PROFILES = ("exact", "standard")


class Spaces:
    """Create and list spaces; name one in ``remember`` and ``recall``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str,
        *,
        dim: int,
        metric: Literal["cosine", "ip", "l2"] = "cosine",
        profile: Literal["exact", "standard"] = settings.DEFAULT_PROFILE,
    ) -> Space:
        """A new space of ``dim`` dimensions. ``profile``: "standard" keeps 8 bits a dimension,
        "exact" 16. Raises ``Conflict`` when the name is taken, ``InvalidArgument``."""
        validate.string(name, "name")
        validate.integer(dim, "dim", 1, settings.MAX_DIM)
        if metric not in METRICS:
            raise InvalidArgument(f"metric must be one of {', '.join(METRICS)}", field="metric")
        if profile not in PROFILES:
            raise InvalidArgument(f"profile must be one of {', '.join(PROFILES)}", field="profile")
        record = SpaceRecord(number=0, name=name, dim=dim, metric=metric, profile=profile)

        def make(txn: Writer) -> SpaceRecord:
            return spaces.create_space(txn, record)

        return _public(self._engine.store.write(make), 0)

    def list(self) -> list[Space]:
        """Every space with the number of rows that have a vector in it."""
        with self._engine.store.read() as txn:
            return [
                _public(record, len(self._engine.vectors(record).rows_with_vectors(txn)))
                for record in spaces.spaces(txn)
            ]

    @property
    def default(self) -> str:
        """The name of the space texts are embedded into."""
        return DEFAULT_SPACE


def _public(record: SpaceRecord, vectors: int) -> Space:
    embedder = None if record.embedder is None else str(record.embedder.get("name"))
    return Space(record.name, record.dim, record.metric, record.profile, embedder, vectors)
