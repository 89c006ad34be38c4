"""The vectors that are asked about: named sets, files of the usual formats, or texts.

A ``DataSet`` is complete: base, queries, metric, and a hash of what was loaded. Vectors of the
cosine metric are given unit length once, here, so that every engine gets the same. This file knows
no engine and computes no truth.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import memdb
from bench import makers, report
from bench.ann import scaling
from bench.ann.truth import Floats, Ids

NAMED = {
    "minilm384-100k": (
        "minilm384-100k-base.f16.npy",
        "minilm384-100k-queries.f16.npy",
        "minilm384-100k-truth100.i32.npy",
        "cosine",
    ),
    "sift10k": (
        "sift10k-base9000.u8.npy",
        "sift10k-queries1000.u8.npy",
        "sift10k-truth100-l2.i32.npy",
        "l2",
    ),
}
MADE = "made"
SUFFIXES = (".npy", ".fvecs", ".bvecs", ".hdf5")
METRICS = ("cosine", "ip", "l2")

_HDF5_METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "ip"}
_HELD_OUT = 1000
_MADE = 20_000
_TEXTS = 1024


class DataError(Exception):
    """What was given cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class DataSet:
    """base (n, dim) and queries (q, dim) float32, both of unit length where metric is cosine.

    ``base_sha256`` is of the base alone, ``sha256`` of base and queries.
    """

    name: str
    metric: str
    base: Floats
    queries: Floats
    base_sha256: str
    sha256: str
    given_truth: Ids | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def dim(self) -> int:
        return int(self.base.shape[1])


def load(
    name: str,
    *,
    folder: Path,
    queries: Path | None = None,
    metric: str | None = None,
    count: int | None = None,
    asked: int | None = None,
    seed: int = 1,
) -> DataSet:
    """The set ``name``: one of ``NAMED`` in ``folder``, ``made``, or a file.

    ``count`` is how many vectors to use: the first ones, or as many as ``scaling`` makes of them.
    Without a file of queries the last 1,000 vectors (at most a tenth) are held out. Raises
    ``DataError``.
    """
    if min(count or 1, asked or 1) < 1:
        raise DataError("counts of vectors and of queries are at least 1")
    base, given, truth, found_metric, notes = _source(name, folder, queries, count, seed)
    metric = metric or found_metric or "cosine"
    if given is None:
        held = max(1, min(_HELD_OUT, len(base) // 10))
        base, given, truth = base[:-held], base[-held:], None
        notes = (*notes, f"queries are the last {held:,} vectors, held out of the base")
    if base.shape[1] != given.shape[1]:
        raise DataError(
            f"{name}: vectors have {base.shape[1]} dimensions, queries {given.shape[1]}"
        )
    given = given[:asked]
    truth = None if truth is None else truth[: len(given)]
    base, given = prepared(base, metric, name), prepared(given, metric, f"{name}, queries")
    if count is not None and count < len(base):
        base, truth = base[:count], None
    elif count is not None and count > len(base):
        base, truth = scaling.extended(base, count, metric, seed), None
        notes = (*notes, scaling.CAVEAT)
    return DataSet(name, metric, base, given, *_hashes(base, given), truth, notes)


def embedded(
    path: Path,
    embedder: str,
    *,
    queries: Path | None = None,
    count: int | None = None,
    asked: int | None = None,
    seed: int = 1,
) -> DataSet:
    """The lines of a text file, embedded here and now by an embedder of memdb.

    Without a file of queries the last 1,000 lines (at most a tenth) are. Raises ``DataError``, and
    memdb's errors for an embedder that cannot be had.
    """
    lines = _lines(path)
    if queries is None:
        held = max(1, min(_HELD_OUT, len(lines) // 10))
        lines, wanted = lines[:-held], lines[-held:]
    else:
        wanted = _lines(queries)
    if not lines:
        raise DataError(f"{path}: needs two lines or more")
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder, embedder=embedder) as db:
        base = _embed(db, lines[:count], "document")
        given = _embed(db, wanted[:asked], "query")
    made = prepared(base, "cosine", str(path)), prepared(given, "cosine", "queries")
    notes = (f"{len(base):,} lines embedded by {embedder}",)
    if count is not None and count > len(base):
        made = scaling.extended(made[0], count, "cosine", seed), made[1]
        notes = (*notes, scaling.CAVEAT)
    return DataSet(f"{path.name} ({embedder})", "cosine", *made, *_hashes(*made), None, notes)


def _embed(db: memdb.Database, lines: list[str], role: str) -> Floats:
    """(n, dim) vectors of the database's own embedder, which has no public door of its own."""
    parts = []
    for first in range(0, len(lines), _TEXTS):
        report.progress(f"embedding: {first:,}/{len(lines):,}")
        found = db._engine.embedding.embed(lines[first : first + _TEXTS], role)
        if found is None:
            raise DataError("this embedder makes no vectors")
        parts.append(found)
    return np.concatenate(parts)


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        content = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error})") from error
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no text")
    return lines


def prepared(vectors: NDArray[np.generic], metric: str, name: str) -> Floats:
    """(n, dim) C-contiguous float32, of unit length for cosine. Raises ``DataError``."""
    if vectors.ndim != 2 or not vectors.shape[0] or not vectors.shape[1]:
        raise DataError(f"{name}: needs a table of vectors, has shape {vectors.shape}")
    if vectors.dtype.kind not in "fiu":
        raise DataError(f"{name}: vectors must be numbers, not {vectors.dtype}")
    made = np.ascontiguousarray(vectors, np.float32)
    if made is vectors:
        made = made.copy()
    for first in range(0, len(made), 65_536):
        block = made[first : first + 65_536]
        if not np.isfinite(block).all():
            row = first + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise DataError(f"{name}: vector {row:,} holds a number that is not finite")
        if metric == "cosine":
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
    return made


_Source = tuple[
    NDArray[np.generic], NDArray[np.generic] | None, Ids | None, str | None, tuple[str, ...]
]


def _source(name: str, folder: Path, queries: Path | None, count: int | None, seed: int) -> _Source:
    """Base, queries, truth, metric and notes as they are found."""
    if name == MADE:
        drawn = makers.vectors((count or _MADE) + _HELD_OUT, seed=seed)
        return drawn[:-_HELD_OUT], drawn[-_HELD_OUT:], None, "cosine", ("made-up vectors",)
    if name in NAMED:
        base_file, queries_file, truth_file, metric = NAMED[name]
        if not (folder / base_file).exists():
            raise DataError(
                f"{folder / base_file}: no such file (--vectors names its folder; --data {MADE} "
                "needs none)"
            )
        base = read(folder / base_file)
        truth = None
        if (folder / truth_file).exists():
            truth = read(folder / truth_file).astype(np.int64)
        return base, read(queries or folder / queries_file), truth, metric, ()
    path = Path(name)
    if path.suffix not in SUFFIXES:
        known = ", ".join((*NAMED, MADE))
        raise DataError(f"{name}: neither a known set ({known}) nor a file *{', *'.join(SUFFIXES)}")
    if path.suffix == ".hdf5":
        return _read_hdf5(path)
    return read(path), None if queries is None else read(queries), None, None, ()


def read(path: Path) -> NDArray[np.generic]:
    """(n, dim) numbers of a .npy, .fvecs or .bvecs file. Raises ``DataError``."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not a sound .npy file ({error})") from error
        if not isinstance(array, np.ndarray) or array.ndim != 2:
            raise DataError(f"{path}: must hold a table (n, dim)")
        return array
    return _read_vecs(path, np.dtype("<f4" if path.suffix == ".fvecs" else "u1"))


def _read_vecs(path: Path, number: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Each vector is preceded by its dimension as int32."""
    if path.suffix not in (".fvecs", ".bvecs"):
        raise DataError(f"{path}: must be one of {', '.join(SUFFIXES)}")
    content = np.fromfile(path, np.uint8)
    if len(content) < 4:
        raise DataError(f"{path}: too short to hold a vector")
    dim = int(content[:4].view("<i4")[0])
    row = 4 + dim * number.itemsize
    if dim < 1 or len(content) % row:
        raise DataError(f"{path}: {len(content):,} bytes are no whole number of vectors of {dim}")
    rows = content.reshape(-1, row)
    if (np.ascontiguousarray(rows[:, :4]).view("<i4") != dim).any():
        raise DataError(f"{path}: vectors differ in dimension")
    return np.ascontiguousarray(rows[:, 4:]).view(number)


def _read_hdf5(path: Path) -> _Source:
    """A file of ann-benchmarks: train, test and neighbors, the metric as an attribute."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: reading .hdf5 needs h5py (pip install h5py)") from None
    try:
        with h5py.File(path) as file:
            metric = _HDF5_METRICS.get(str(file.attrs.get("distance", "")))
            if metric is None:
                known = ", ".join(_HDF5_METRICS)
                raise DataError(f"{path}: its distance is none of {known}")
            truth = np.asarray(file["neighbors"], np.int64) if "neighbors" in file else None
            return np.asarray(file["train"]), np.asarray(file["test"]), truth, metric, ()
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: not a file of ann-benchmarks ({error})") from error


def _hashes(base: Floats, queries: Floats) -> tuple[str, str]:
    """sha256 of the base alone, and of base and queries."""
    report.progress("hashing the vectors")
    digest = hashlib.sha256(str(base.shape).encode())
    digest.update(memoryview(base).cast("B"))
    both = digest.copy()
    both.update(str(queries.shape).encode())
    both.update(memoryview(queries).cast("B"))
    return digest.hexdigest(), both.hexdigest()
