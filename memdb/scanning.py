"""The auditor's tool: is anything of these canaries left, in any file, in any form?

It looks for what the owner supplies (strings, vectors, ids) in every byte of every file of a
database: raw, as UTF-8 and UTF-16, inside whatever decompresses as zstd, and in the names of files;
for vectors as float32 and float16, as given and at unit length, and as the records and codes of
each space; for words and values as the keyed hashes that stand for them in keys. It trusts no
structure: free pages, leftovers and unknown files are bytes like others. ``lock.mdb`` is not
opened: it holds process ids only, and closing it would drop this process's locks.

``needles.py`` finds; this file knows what memdb makes of a text and a vector.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import sharing, snapshots, validate
from memdb.engine import Engine
from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.needles import Needles, decompressed
from memdb.space_views import unit
from memdb.storage import audit_log, dense, lookups, spaces, tables
from memdb.storage.filters.filing import hashed
from memdb.storage.ids import parse_id
from memdb.storage.store import Reader

_FRAGMENT_BYTES = 12
_SKIPPED = "lock.mdb"
_CODES_AT_ONCE = 1 << 16
_ENTRIES_AT_ONCE = 1 << 14
_TELLING_DIM = 64  # fewer bits of code are shared by chance


@dataclass(frozen=True, slots=True)
class Canary:
    """Something whose residue is looked for; at least one of its parts is given."""

    text: str | None = None
    vector: ArrayLike | None = None
    id: str | None = None
    external_id: str | None = None
    namespace: str = "default"


@dataclass(frozen=True, slots=True, order=True)
class Residue:
    """Where something of a canary was found: the canary's place in the list, how it was stored
    there, and the file."""

    canary: int
    form: str
    file: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What was looked at, in files, bytes and zstd frames, and every residue found."""

    canaries: int
    files: int
    bytes: int
    frames: int
    found: tuple[Residue, ...]

    @property
    def clean(self) -> bool:
        return not self.found


def scan_erased(
    path: str | os.PathLike[str],
    canaries: Iterable[Canary | str] | os.PathLike[str],
    *,
    fragments: bool = False,
) -> ScanReport:
    """Look for canaries in every file of the database at ``path`` and of its snapshots.

    A canary is a string, or a ``Canary`` with a vector, an id or an external id beside it; a path
    is a file of them, one a line: a string as it stands, or JSON, a string or an object with the
    fields of ``Canary``. A string must have at least eight bytes. ``fragments``: any 12 bytes of
    one count as residue; right for strings that share no words with other memories. Other
    processes may have the database open. Raises ``InvalidArgument``, and what opening raises.
    """
    if isinstance(canaries, os.PathLike):
        canaries = _read_canaries(Path(canaries))
    given = [Canary(one) if isinstance(one, str) else one for one in canaries]
    shared = sharing.acquire(
        Path(path).expanduser(),
        embedder=None,
        readonly=True,
        create=False,
        memory_budget=1 << 28,
        clock=None,
    )
    try:
        engine = shared.engine
        with engine.store.read() as txn:
            needles = _needles(engine, txn, given, fragments=fragments)
            in_audit = _raw_ids(given)
            found = set(_in_codes(engine, txn, given))
            found.update(_in_tables(engine, txn, given, fragments=fragments))
            folders = [engine.store.path]
            folders += [Path(s.path) for s in snapshots.known(txn) if snapshots.is_there(s)]
        files = total = frames = 0
        for folder in folders:
            for file in sorted(one for one in folder.rglob("*") if one.is_file()):
                if file.name == _SKIPPED:
                    continue
                files += 1
                size, opened = _scan_file(file, needles, found)
                if file.parent.name == audit_log.FOLDER:
                    _scan_file(file, in_audit, found)
                total += size
                frames += opened
    finally:
        sharing.release(shared)
    return ScanReport(len(given), files, total, frames, tuple(sorted(found)))


def _read_canaries(path: Path) -> list[Canary]:
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument("the file of canaries cannot be read", field="canaries") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line.lstrip()[:1] not in '{"':
            found.append(Canary(line))
            continue
        try:
            value = json.loads(line)
            fields = {"text": value} if isinstance(value, str) else dict(value)
            found.append(Canary(**fields))
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"line {number} is not a canary", field="canaries") from error
    return found


# --- what is looked for ---------------------------------------------------------------------


def _needles(
    engine: Engine, txn: Reader, canaries: Sequence[Canary], *, fragments: bool
) -> Needles:
    """What is content wherever it stands."""
    needles = Needles()
    for place, canary in enumerate(canaries):
        if canary.text is not None:
            if len(canary.text.encode()) < 8:
                raise InvalidArgument("a canary needs at least eight bytes", field="canaries")
            for form, step in (("utf-8", 1), ("utf-16-le", 2), ("utf-16-be", 2)):
                for piece in _pieces(canary.text.encode(form), step, fragments=fragments):
                    needles.add(piece, place, form)
        if canary.id is not None:
            needles.add(canary.id.encode(), place, "id")
        if canary.external_id is not None and len(canary.external_id.encode()) >= 8:
            needles.add(canary.external_id.encode(), place, "external id")
        if canary.vector is not None:
            for form, pattern in _patterns(engine, txn, canary):
                for start in range(0, max(1, len(pattern) - 15), 16):
                    piece = pattern[start : start + 16]
                    if len(piece) >= 8 and len(set(piece)) > 4:  # not a run of zeros
                        needles.add(piece, place, form)
    return needles


def _raw_ids(canaries: Sequence[Canary]) -> Needles:
    """Ids as the audit holds them. In a page of the store that is no longer used they may stand."""
    needles = Needles()
    for place, canary in enumerate(canaries):
        raw_id = None if canary.id is None else parse_id(canary.id)
        if raw_id is not None:
            needles.add(raw_id, place, "id bytes")
    return needles


def _pieces(encoded: bytes, step: int, *, fragments: bool) -> Iterator[bytes]:
    size = _FRAGMENT_BYTES * step
    if not fragments or len(encoded) <= size:
        yield encoded
        return
    for start in range(0, len(encoded) - size + 1, step):
        yield encoded[start : start + size]


def _in_tables(
    engine: Engine, txn: Reader, canaries: Sequence[Canary], *, fragments: bool
) -> Iterator[Residue]:
    """Canaries that some key or value of a table still speaks of, by keyed hash or by id.

    Only what is stored counts: in a page that is no longer used, or as the bound between two
    pages, a keyed hash tells nobody anything.
    """
    needles = Needles()
    for place, canary in enumerate(canaries):
        if canary.text is not None:
            needles.add(hashed(txn, b"v" + canary.text.encode()), place, "value hash")
            for term in engine.analyser.query(canary.text, txn.digest) if fragments else ():
                needles.add(term[1], place, "term hash")
        raw_id = None if canary.id is None else parse_id(canary.id)
        if raw_id is not None:
            needles.add(raw_id, place, "id bytes")
        if canary.external_id is not None:
            key = lookups.external_key(txn, canary.namespace, canary.external_id)
            needles.add(key, place, "external id hash")
            needles.add(key[: dense.KINDS[tables.EXTERNAL].key_bytes], place, "external id hash")
    for name in filter(txn.has, tables.ALL):
        entries = _opened(txn) if name == tables.DENSE else txn.raw(name)
        while part := b"".join(key + value for key, value in islice(entries, _ENTRIES_AT_ONCE)):
            for place, form in needles.find(part):
                yield Residue(place, form, f"table {name}")


def _opened(txn: Reader) -> Iterator[tuple[bytes, bytes]]:
    """The entries in blocks, one by one: the blocks' own bytes are columns, and compressed."""
    for key, payload in txn.scan(tables.DENSE):
        yield from dense.decoded(key, payload)


def _vector(canary: Canary) -> NDArray[np.float32]:
    return validate.one_vector([] if canary.vector is None else canary.vector, None)


def _patterns(engine: Engine, txn: Reader, canary: Canary) -> Iterator[tuple[str, bytes]]:
    """The bytes a vector may be stored as."""
    vector = _vector(canary)
    for name, one in (("", vector), ("unit ", unit(vector[None, :])[0])):
        yield f"{name}float32", one.astype("<f4").tobytes()
        yield f"{name}float16", one.astype("<f2").tobytes()
    for space in spaces.spaces(txn):
        if space.dim == len(vector):
            index = engine.vectors(space).layout_view(txn).files
            if index is not None and index.trained:
                record = index.encode(vector[None, :]).records[0].tobytes()
                yield f"record ({space.profile})", record[12:-4]  # past slot, scale and norm


def _in_codes(engine: Engine, txn: Reader, canaries: Sequence[Canary]) -> Iterator[Residue]:
    """Canaries whose one-bit code stands at some slot, whoever it belongs to."""
    for space in spaces.spaces(txn):
        index = engine.vectors(space).layout_view(txn).files
        chosen = [
            (place, _vector(one))
            for place, one in enumerate(canaries)
            if one.vector is not None and len(_vector(one)) == space.dim
        ]
        if index is None or not index.trained or not chosen or space.dim < _TELLING_DIM:
            continue
        encoded = index.encode(np.stack([vector for _, vector in chosen]))
        wanted = {
            code.tobytes(): place for (place, _), code in zip(chosen, encoded.codes, strict=True)
        }
        file = str(index.directory / "codes.bin")
        for codes in index.all_codes(_CODES_AT_ONCE):
            stored = {code.tobytes() for code in codes}
            for code in stored & wanted.keys():
                yield Residue(wanted[code], "1-bit code", file)


# --- where ------------------------------------------------------------------------------------


def _scan_file(file: Path, needles: Needles, found: set[Residue]) -> tuple[int, int]:
    """Adds what the file holds; returns its bytes and how many frames were opened."""
    for place, form in needles.find(file.name.encode()):
        found.add(Residue(place, f"{form} in a file's name", str(file)))
    try:
        with file.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            content = mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        return 0, 0  # a temporary file that went meanwhile
    except OSError as error:
        raise StoreCorrupt("a file cannot be read", path=str(file)) from error
    for place, form in needles.find(content):
        found.add(Residue(place, form, str(file)))
    frames = 0
    for frame in decompressed(content):
        frames += 1
        for place, form in needles.find(frame):
            found.add(Residue(place, f"{form} in zstd", str(file)))
    return size, frames
