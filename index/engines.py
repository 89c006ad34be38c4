"""Which engine a kind names, and what its parameters may be. The one place that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.index import hnsw_file
from memdb.index.flat import FlatIndex
from memdb.index.hnsw import HnswIndex
from memdb.index.hnsw_graph import GraphParams, hnswlib
from memdb.index.protocol import SpaceSpec

KINDS: Final = ("flat", "hnsw")

AnyEngine = FlatIndex | HnswIndex


def complete_params(kind: str, params: Mapping[str, Any] | None) -> dict[str, int]:
    """All parameters of the engine, for the caller to store: those given, defaults for the rest.

    Raises ``InvalidArgument`` for what the engine does not take, and ``MissingDependency`` when
    it needs an extra that is not installed.
    """
    if kind == "flat":
        if params:
            raise InvalidArgument("a flat index takes no params", field="params")
        return {}
    names = GraphParams.__dataclass_fields__.keys()
    for name in params or ():
        if name not in names:
            raise InvalidArgument(
                f"an hnsw index has no param {name!r}; it has {', '.join(names)}", field="params"
            )
    found = asdict(GraphParams(**(params or {})))
    hnswlib()
    return found


def open_engine(
    kind: str,
    directory: Path,
    spec: SpaceSpec,
    params: Mapping[str, int],
    *,
    writable: bool,
    threads: int,
) -> AnyEngine:
    """The engine of ``kind`` in ``directory``; raises what its class raises."""
    if kind == "flat":
        return FlatIndex(directory, spec, writable=writable, threads=threads)
    if kind == "hnsw":
        try:
            graph = GraphParams(**params)
        except (TypeError, InvalidArgument) as error:
            raise StoreCorrupt("an index's params do not decode", path="kv") from error
        return HnswIndex(directory, spec, writable=writable, threads=threads, params=graph)
    raise StoreCorrupt(f"the index is of kind {kind!r}, which this memdb does not know", path="kv")


def files_of(engine: AnyEngine) -> FlatIndex:
    """The flat engine whose files hold the vectors of ``engine``."""
    return engine.flat if isinstance(engine, HnswIndex) else engine


def drop_graph(engine: AnyEngine) -> None:
    """Remove what a graph left on disk; it is built again from the records."""
    if isinstance(engine, HnswIndex):
        hnsw_file.drop(engine.flat.directory)
