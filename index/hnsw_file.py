"""hnsw.bin: the graph of a process, kept for the next one. Derived: losing it costs time alone.

    hnsw.bin      := header | linked u32[l] | seal u32[l] | buried u32[b]
    fields        := dim u32 | metric u8 | 0 u8 | M u16 | ef_construction u32 | seed u64
                     | l u32 | b u32 | body crc u32 | payload crc u32 | payload size u64
                     | name u64 | maker char[40]
    hnsw.*.graph  := what hnswlib writes; * is the name in 16 hexadecimal digits

hnswlib writes to a file of its own, without a checksum, and believes what it reads. So its payload
has a name that no older one had, and counts from the moment hnsw.bin, which holds its checksum, is
renamed into place. The seal of a slot is the checksum of the record that was linked: a slot whose
record has another one is not taken for linked. ``maker`` is the release of hnswlib and the
machine's byte order and word size.

What is deleted in the graph keeps its links, by which others are reached, and its vector, which
must be in no file: in the payload it gets the vector of a neighbour. (Zeros, entered in memory,
tear the graph apart: all such elements link to each other.) This file knows no distances.
"""

from __future__ import annotations

import os
import secrets
import struct
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from google_crc32c import extend
from google_crc32c import value as crc32c

from memdb.errors import StoreCorrupt, StoreFull
from memdb.index import files, layout
from memdb.index.hnsw_graph import Graph
from memdb.index.protocol import SpaceSpec

NAME = "hnsw.bin"
MAGIC = b"MDBHNSWG"
_FIELDS = struct.Struct("<IBBHIQIIIIQQ40s")
_CHUNK_BYTES = 1 << 22

# The payload, in the machine's own order: sizes and offsets, then elements of one size, then the
# links of upper levels.
_PAYLOAD = struct.Struct("=QQQQQQiIQQQdQ")


def _maker() -> bytes:
    bits = 8 * struct.calcsize("P")
    return f"{version('hnswlib')} {sys.byteorder} {bits}".encode()[:40].ljust(40, b"\0")


def _kind(spec: SpaceSpec, graph: Graph) -> tuple[int, int, int, int, int, int]:
    """What a file must agree on with the space."""
    metric, params = layout.METRICS[spec.metric], graph.params
    return spec.dim, metric, 0, params.M, params.ef_construction, spec.seed


def _payload(directory: Path, number: int) -> Path:
    return directory / f"hnsw.{number:016x}.graph"


def save(directory: Path, spec: SpaceSpec, graph: Graph) -> None:
    """Write both files, durably; one process at a time does so, which the caller sees to.

    Raises ``StoreFull`` or ``PermissionDenied``; then the file that was there still counts.
    """
    number = int.from_bytes(secrets.token_bytes(8), "big")
    payload = _payload(directory, number)
    try:
        with files.typed_errors(payload), open(payload, "xb"):
            pass  # hnswlib is silent about a file it cannot open
        done = graph.write(str(payload))
        with files.typed_errors(payload):
            if payload.stat().st_size != done.payload_bytes:
                raise StoreFull(f"no room to write {payload.name}")
            if len(done.buried):
                _blank(payload, spec.dim, graph.params.M)
            crc = _sealed(payload)
        parts = (done.linked, done.seals, done.buried)
        body = b"".join(part.astype("<u4").tobytes() for part in parts)
        counts = (len(done.linked), len(done.buried))
        sums = (crc32c(body), crc, done.payload_bytes)
        fields = _FIELDS.pack(*_kind(spec, graph), *counts, *sums, number, _maker())
        with files.replacing(directory / NAME) as handle:
            handle.write(files.seal_header(MAGIC, fields))
            handle.write(body)
    except BaseException:
        payload.unlink(missing_ok=True)
        raise
    _tidy(directory, keep=payload)


def _blank(payload: Path, dim: int, links: int) -> None:
    """Give each deleted element the vector of a neighbour that is not, or zeros."""
    with open(payload, "rb") as handle:
        head = _PAYLOAD.unpack(handle.read(_PAYLOAD.size))
    element = np.dtype(
        [
            ("size", "=u2"),
            ("mark", "u1"),
            ("unused", "u1"),
            ("links", "=u4", (2 * links,)),
            ("vector", "=f4", (dim,)),
            ("label", "=u8"),
        ]
    )
    offsets = (0, element.itemsize, element.itemsize - 8, 4 * (2 * links + 1))
    if (head[0], *head[3:6]) != offsets:
        raise StoreCorrupt(f"{payload.name} has a layout that is not known", path=str(payload))
    elements = np.memmap(payload, element, "r+", offset=_PAYLOAD.size, shape=(head[2],))
    deleted = elements["mark"] & 1 == 1
    for at in np.flatnonzero(deleted):
        near = elements["links"][at][: elements["size"][at]]
        near = near[~deleted[near]]
        elements["vector"][at] = elements["vector"][near[0]] if len(near) else 0
    elements.flush()


def _sealed(payload: Path) -> int:
    """Sync the file; its checksum."""
    with open(payload, "r+b") as handle:
        os.fsync(handle.fileno())
    return _checksum(payload)


def _checksum(path: Path) -> int:
    crc = 0
    with files.typed_errors(path), open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            crc = extend(crc, chunk)
    return int(crc)


def _tidy(directory: Path, keep: Path | None) -> None:
    for old in directory.glob("hnsw.*.graph"):
        if old != keep:
            old.unlink(missing_ok=True)


def drop(directory: Path) -> bool:
    """Remove the files: they hold a vector that is to be forgotten. Whether there were any."""
    path = directory / NAME
    there = path.exists()
    with files.typed_errors(path):
        path.unlink(missing_ok=True)
        _tidy(directory, keep=None)
    return there


def disk_bytes(directory: Path) -> int:
    paths = (directory / NAME, *directory.glob("hnsw.*.graph"))
    return sum(path.stat().st_size for path in paths if path.exists())


def load(directory: Path, spec: SpaceSpec, graph: Graph) -> None:
    """Fill ``graph``; ``StoreCorrupt`` or ``FormatTooNew`` says why it stays empty."""
    head = files.MappedFile(directory / NAME, MAGIC, writable=False)
    try:
        fields, body = head.fields, head.body.tobytes()
    finally:
        head.close()
    if len(fields) != _FIELDS.size:
        raise head.corrupt("has fields of another length")
    values = _FIELDS.unpack(fields)
    linked, buried, body_crc, crc, size, number, maker = values[6:]
    if values[:6] != _kind(spec, graph):
        raise head.corrupt("belongs to a graph with other parameters")
    if maker != _maker():
        raise head.corrupt("was written by another hnswlib or on another kind of machine")
    if len(body) != 4 * (2 * linked + buried) or crc32c(body) != body_crc:
        raise head.corrupt("has a body that fails its checksum")
    payload = _payload(directory, number)
    try:
        found = payload.stat().st_size
    except OSError as error:
        raise StoreCorrupt(f"{payload.name} is missing", path=str(payload)) from error
    if found != size or _checksum(payload) != crc:
        raise StoreCorrupt(f"{payload.name} fails its checksum", path=str(payload))
    numbers = np.frombuffer(body, "<u4").astype(np.uint32)
    slots = np.concatenate((numbers[:linked], numbers[2 * linked :]))
    if not len(slots):
        raise head.corrupt("has no slots")
    try:
        graph.read(str(payload), slots, numbers[linked : 2 * linked], linked)
    except RuntimeError as error:
        raise StoreCorrupt(f"{payload.name} does not load: {error}", path=str(payload)) from error
