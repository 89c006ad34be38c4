"""Files that are read and not mapped: what a search asks of them when memory is short.

An ``Access`` is how much memory a handle gives an engine, and whether its files are mapped: where
everything fits, they are. Else pages of the graph go through a cache of a fixed size, several of
them in flight, and records are read in one batch a search. The native routines do the reading
(``native/graph_read.h``); a read that the system refuses is a typed error that names the file. This
file knows no graph and no plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.index import files, layout
from memdb.index.graph_kernels import NONE, GraphArrays, SpaceArrays, Walked
from memdb.index.kernels import Kernels, NativeKernels

Io = Literal["auto", "mapped", "read", "direct"]

THREADS: Final = 32
"""Threads of a process's index that wait for the disk, where the system takes no reads in bulk; and
searches that may send it reads in bulk at the same time."""
RINGS: Final = True
"""Whether to send reads in bulk (io_uring) where the system takes them."""
DEPTH: Final = 16
"""Pages of a walk in flight: twice as many cost 12 % more pages and bring nothing sooner."""
LEAST_CACHE_BYTES: Final = 256 << 10
_FRAME_BYTES: Final = layout.GRAPH_PAGE_BYTES + 96  # as native/page_cache.h counts

Slots = NDArray[np.uint32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Access:
    """``memory_bytes`` bounds what stays in memory, of which ``beside_bytes`` a slot are the
    caller's. ``io``: "auto" maps files that fit and reads those that do not; "mapped" and "read" do
    one of it whatever fits; "direct" reads past the system's page cache, where the system can."""

    memory_bytes: int
    beside_bytes: int = 0
    io: Io = "auto"
    depth: int = DEPTH

    def __post_init__(self) -> None:
        if self.io not in get_args(Io):
            raise InvalidArgument(f"io must be one of {', '.join(get_args(Io))}", field="params")
        if self.io == "direct" and sys.platform != "linux":
            raise InvalidArgument('io "direct" needs Linux', field="params")

    def reads(self, kept_bytes: int, file_bytes: int) -> bool:
        """Whether files of that size are read, beside what is kept in memory."""
        if self.io == "auto":
            return kept_bytes + file_bytes > self.memory_bytes
        return self.io != "mapped"

    def cache_bytes(self, kept_bytes: int, pages: int) -> int:
        """What is left for the cache of a graph of so many pages."""
        left = max(LEAST_CACHE_BYTES, self.memory_bytes - kept_bytes)
        return min(left, (pages + 16) * _FRAME_BYTES)


def native_of(kernels: Kernels) -> tuple[ModuleType, int] | None:
    """The compiled routines and their level, where they can read files."""
    return kernels.native if isinstance(kernels, NativeKernels) and os.name == "posix" else None


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with files.typed_errors(Path(error.filename)):
            raise


class RecordReads:
    """The records of one file, read by searches."""

    def __init__(
        self, native: tuple[ModuleType, int], file: files.MappedFile, *, direct: bool
    ) -> None:
        self._native, self._level = native
        self.identity = file.identity
        self.pool: Any = self._native.ReadPool(THREADS, RINGS)
        self.file = _reader(self._native, file, direct=direct)

    def gather(
        self, space: SpaceArrays, queries: Floats, listed: Slots, *, k: int, keep: int, threads: int
    ) -> tuple[Slots, Floats, int]:
        """As ``GraphKernels.gather``."""
        slots = np.empty((len(queries), k), np.uint32)
        distances = np.empty((len(queries), k), np.float32)
        with _typed():
            bad = self._native.gather_read(
                self._level,
                self.file,
                self.pool,
                space.groups,
                space.metric,
                space.precision,
                queries,
                space.signs,
                space.centre,
                listed,
                keep,
                threads,
                slots,
                distances,
            )
        return slots, distances, int(bad)

    def rescore(
        self, metric: int, precision: int, query: Floats, slots: Slots
    ) -> tuple[Floats, int]:
        """(n,) distances of records to a (dim,) query as they take it; a damaged slot, or -1."""
        distances = np.empty(len(slots), np.float32)
        with _typed():
            bad = self._native.rescore_read(
                self._level, self.file, self.pool, metric, precision, query, slots, distances
            )
        return distances, int(bad)


class GraphReads:
    """The pages of one graph through a cache, beside the records of its space."""

    def __init__(
        self,
        native: tuple[ModuleType, int],
        file: files.MappedFile,
        records: RecordReads,
        *,
        cache_bytes: int,
        depth: int,
        direct: bool,
    ) -> None:
        self._native, self._level = native
        self._depth = depth
        self.identity = file.identity
        self.records = records
        self.cache_bytes = cache_bytes
        self.pages = _reader(self._native, file, direct=direct)
        self.cache: Any = self._native.PageCache(layout.GRAPH_PAGE_BYTES, cache_bytes)

    def search(
        self,
        graph: GraphArrays,
        space: SpaceArrays,
        queries: Floats,
        *,
        allowed: NDArray[np.uint8],
        inside: bool,
        k: int,
        breadth: int,
        most_hops: int,
        threads: int,
        beside: Slots = NONE,
        beside_keep: int = 0,
    ) -> Walked:
        """As ``GraphKernels.graph_search``; pages and records of the arrays are not looked at."""
        slots = np.empty((len(queries), k), np.uint32)
        distances = np.empty((len(queries), k), np.float32)
        found = np.zeros(len(queries), np.uint32)
        counted = np.zeros(3, np.uint64)
        with _typed():
            bad = self._native.graph_search_read(
                self._level,
                self.pages,
                self.cache,
                self.records.file,
                self.records.pool,
                self._depth,
                graph.checked,
                graph.degree,
                graph.places,
                graph.entries,
                graph.entry_rows,
                space.groups,
                space.metric,
                space.precision,
                queries,
                space.signs,
                space.centre,
                inside,
                allowed,
                breadth,
                most_hops,
                threads,
                slots,
                distances,
                found,
                counted,
                beside,
                beside_keep,
            )
        hops, estimated, scored = counted.tolist()
        return Walked(slots, distances, found, hops, estimated, scored, int(bad))

    def drop(self, pages: Slots | None) -> None:
        """Pages that were changed, or any (None), are read again when they are needed."""
        if pages is None:
            self.cache.clear()
        else:
            self.cache.drop(np.ascontiguousarray(pages, np.uint32))

    def stats(self) -> dict[str, int]:
        """Bytes of the cache, what it had and had not, and what was read so far."""
        pages, records = self.pages, self.records.file
        return {
            "cache_bytes": self.cache.bytes,
            "cache_hits": self.cache.hits,
            "cache_misses": self.cache.misses,
            "pages_read": pages.reads,
            "records_read": records.reads,
            "bytes_read": pages.bytes + records.bytes,
            "reads_waited": pages.waited + records.waited,
        }


def _reader(native: ModuleType, file: files.MappedFile, *, direct: bool) -> Any:
    with _typed():
        return native.FileReader(file.descriptor, file.header_bytes, str(file.path), direct)
