"""Which engine a kind names, and what its parameters may be. The one place that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.index import hnsw_file
from memdb.index.flat import FlatIndex
from memdb.index.graph import PLACE_BYTES, GraphIndex
from memdb.index.graph_build import GraphParams as SsdParams
from memdb.index.hnsw import HnswIndex
from memdb.index.hnsw_graph import GraphParams, hnswlib
from memdb.index.protocol import SpaceSpec
from memdb.index.reads import Access

KINDS: Final = ("flat", "hnsw", "ssd")
OF_HANDLE: Final = ("io",)
"""Params of an ssd index that are a handle's own (``reads.Access``), and are not stored."""

_PARAMS: Final[dict[str, Any]] = {"hnsw": GraphParams, "ssd": SsdParams}

AnyEngine = FlatIndex | HnswIndex | GraphIndex


def complete_params(kind: str, params: Mapping[str, Any] | None) -> dict[str, int | float]:
    """All parameters of the engine, for the caller to store: those given, defaults for the rest.

    Raises ``InvalidArgument`` for what the engine does not take, and ``MissingDependency`` when
    it needs an extra that is not installed.
    """
    if kind == "flat":
        if params:
            raise InvalidArgument("a flat index takes no params", field="params")
        return {}
    made = _PARAMS[kind]
    names = [field.name for field in fields(made)]
    for name in params or ():
        if name not in names:
            raise InvalidArgument(
                f"an {kind} index has no param {name!r}; it has {', '.join(names)}", field="params"
            )
    found = asdict(made(**(params or {})))
    if kind == "hnsw":
        hnswlib()
    return found


def open_engine(
    kind: str,
    directory: Path,
    spec: SpaceSpec,
    params: Mapping[str, Any],
    *,
    writable: bool,
    threads: int,
    access: Access | None = None,
) -> AnyEngine:
    """The engine of ``kind`` in ``directory``; raises what its class raises."""
    if kind == "flat":
        return FlatIndex(directory, spec, writable=writable, threads=threads)
    try:
        if kind == "hnsw":
            hnsw = GraphParams(**params)
            return HnswIndex(directory, spec, writable=writable, threads=threads, params=hnsw)
        if kind == "ssd":
            ssd = SsdParams(**params)
            return GraphIndex(
                directory, spec, writable=writable, threads=threads, params=ssd, access=access
            )
    except (TypeError, InvalidArgument) as error:
        raise StoreCorrupt("an index's params do not decode", path="kv") from error
    raise StoreCorrupt(f"the index is of kind {kind!r}, which this memdb does not know", path="kv")


def files_of(engine: AnyEngine) -> FlatIndex:
    """The flat engine whose files hold the vectors of ``engine``."""
    return engine if isinstance(engine, FlatIndex) else engine.flat


def graph_bytes(slots: int) -> int:
    """Private memory of an ssd engine's graph of that many slots."""
    return PLACE_BYTES * slots


def drop_graph(engine: AnyEngine) -> None:
    """Remove what a graph left on disk that holds vectors; it is built again from the records."""
    if isinstance(engine, HnswIndex):
        hnsw_file.drop(engine.flat.directory)
