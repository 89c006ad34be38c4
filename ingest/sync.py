"""What a sync has to do: the ledger's state of a folder against what a scan found. Pure.

Strategy, as git's index has it (Documentation/technical/racy-git): a file whose stamp equals the
recorded one is unchanged and is not opened, unless its time is so close to the moment it was read
that a later change could carry the same stamp. A path that vanished and one that is new are one
moved file if their inodes or their contents are the same. Inside a file, chunks are compared by
digest, as multisets: what is in both keeps its memory, wherever in the file it now stands.

It opens no file and knows no store; ``ingest.changes`` reads, the caller writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec

from memdb.errors import Conflict, PermissionDenied, StoreCorrupt
from memdb.ingest.chunks import Chunk
from memdb.ingest.scan import NO_READER, Found, Scan, Stamp

# The coarsest time stamps in use: FAT's two seconds.
RACY_NS: Final = 2_000_000_000


class ChunkState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One chunk as it is stored: its digest, the id of its memory, its lines."""

    digest: bytes
    id: str
    start_line: int
    end_line: int


class FileState(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One file as the last sync left it: a row of the ledger.

    ``stamp``    size, mtime_ns, ctime_ns, inode, device, taken before the file was read
    ``read_ns``  clock (ns since 1970) before it was read; 0: read it again in any case
    ``digest``   hash of its content;  ``facts``  hash of its title, tags and date
    ``recipe``   what it was cut by (chunker version, budget, embedder); another one re-reads it
    ``state``    ``indexed``, ``skipped`` or ``failed``, the latter two with their ``reason``
    """

    path: str
    stamp: tuple[int, int, int, int, int]
    read_ns: int = 0
    digest: bytes = b""
    facts: bytes = b""
    recipe: bytes = b""
    state: Literal["indexed", "skipped", "failed"] = "indexed"
    reason: str | None = None
    chunks: tuple[ChunkState, ...] = ()

    def encode(self) -> bytes:
        return _ENCODER.encode(self)

    @staticmethod
    def decode(payload: bytes) -> FileState:
        try:
            return _DECODER.decode(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise StoreCorrupt("a row of the file ledger does not decode", path="kv") from error


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(FileState)


def packed(stamp: Stamp) -> tuple[int, int, int, int, int]:
    return (stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode, stamp.device)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What to do with each file.

    ``added``      new paths, to be read
    ``changed``    known paths whose content may differ, to be read
    ``moved``      (old path, new file); read, for it may have changed as well
    ``removed``    paths that are gone
    ``skipped``    files known without reading not to be for us, changed or not
    ``unchanged``  known paths that are as they were, whatever their state
    ``hidden``     known paths in folders that cannot be listed now: left as they are
    """

    added: tuple[Found, ...] = ()
    changed: tuple[Found, ...] = ()
    moved: tuple[tuple[str, Found], ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[Found, ...] = ()
    unchanged: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def guard_root(previous: Mapping[str, FileState], scan: Scan, *, allow_empty: bool) -> None:
    """Refuse to take an unmounted or unreadable folder for one whose files were all deleted.

    Raises ``PermissionDenied`` or ``Conflict``.
    """
    if any(not folder for folder, _ in scan.closed):
        raise PermissionDenied("the folder to sync cannot be listed")
    had = sum(state.state == "indexed" for state in previous.values())
    if had and not allow_empty and not scan.closed and all(found.unread for found in scan.files):
        raise Conflict(
            f"no file to index is left in the folder, where {had} were indexed",
            hint="mount the drive or correct include and exclude; if the files are meant to be"
            " forgotten, sync with allow_empty=True",
        )


def is_unchanged(state: FileState, found: Found, recipe: bytes) -> bool:
    """Whether a file need not be read: as it was, read long enough after its last change."""
    return (
        state.recipe == recipe
        and state.stamp == packed(found.stamp)
        and found.stamp.mtime_ns < state.read_ns - RACY_NS
    )


def to_hash(previous: Mapping[str, FileState], found: Iterable[Found]) -> list[Found]:
    """The new files whose content must be hashed to know whether they are moved ones."""
    files = list(found)
    gone = _gone(previous, files)
    sizes = {previous[path].stamp[0] for path in gone}
    if not sizes:
        return []
    return [
        file
        for file in files
        if file.unread is None and file.path not in previous and file.stamp.size in sizes
    ]


def plan(
    previous: Mapping[str, FileState],
    scan: Scan,
    *,
    recipe: bytes = b"",
    digests: Mapping[str, bytes] | None = None,
) -> SyncPlan:
    """Compare; ``digests`` has the content hashes of the files ``to_hash`` named."""
    files = scan.files
    readable = [file for file in files if file.unread is None]
    unchanged, changed, fresh = [], [], []
    for file in readable:
        state = previous.get(file.path)
        if state is None:
            fresh.append(file)
        elif is_unchanged(state, file, recipe):
            unchanged.append(file.path)
        else:
            changed.append(file)
    closed = tuple(folder for folder, _ in scan.closed)
    gone = _gone(previous, files)
    hidden = tuple(path for path in gone if path.startswith(closed)) if closed else ()
    gone = [path for path in gone if path not in set(hidden)]
    moved = _moves(previous, gone, fresh, digests or {})
    old_paths = {old for old, _ in moved}
    new_paths = {file.path for _, file in moved}
    return SyncPlan(
        added=tuple(file for file in fresh if file.path not in new_paths),
        changed=tuple(changed),
        moved=tuple(moved),
        removed=tuple(path for path in gone if path not in old_paths),
        skipped=tuple(file for file in files if file.unread is not None),
        unchanged=tuple(unchanged),
        hidden=hidden,
    )


def _gone(previous: Mapping[str, FileState], files: Iterable[Found]) -> list[str]:
    present = {file.path for file in files}
    return sorted(path for path in previous if path not in present)


def _moves(
    previous: Mapping[str, FileState],
    gone: Sequence[str],
    fresh: Sequence[Found],
    digests: Mapping[str, bytes],
) -> list[tuple[str, Found]]:
    """Pairs of a vanished path and a new file, each in at most one.

    The same content first, a file of the same name before others; then the same inode, whose
    content was changed as well. (An inode number is used again by the next file, so whether it
    really is the same file is for the one to say who compares their chunks.)
    """
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    by_inode: dict[tuple[int, int], str] = {}
    for path in gone:
        state = previous[path]
        if state.state == "indexed" and state.chunks:
            by_digest[state.digest].append(path)
            if state.stamp[3]:
                by_inode[state.stamp[3:5]] = path
    moves: dict[str, Found] = {}
    rest = []
    names = {PurePosixPath(path).name for path in gone}
    for file in sorted(fresh, key=lambda file: PurePosixPath(file.path).name not in names):
        digest = digests.get(file.path)
        candidates = [] if digest is None else by_digest.get(digest, [])
        old = _nearest(file.path, candidates)
        if old is None:
            rest.append(file)
        else:
            candidates.remove(old)
            moves[old] = file
    for file in rest:
        old = by_inode.get((file.stamp.inode, file.stamp.device))
        if old is not None and old not in moves:
            moves[old] = file
    return sorted(moves.items())


def _nearest(path: str, candidates: Sequence[str]) -> str | None:
    """The candidate with the same file name, else the first."""
    name = PurePosixPath(path).name
    same = (old for old in candidates if PurePosixPath(old).name == name)
    return next(same, candidates[0] if candidates else None)


@dataclass(frozen=True, slots=True)
class ChunkDiff:
    """Old chunks against new: ``kept`` pairs in the new order, ``added``, ``removed``."""

    kept: tuple[tuple[ChunkState, Chunk], ...]
    added: tuple[Chunk, ...]
    removed: tuple[ChunkState, ...]


def diff(old: Sequence[ChunkState], new: Sequence[Chunk]) -> ChunkDiff:
    """Match chunks by digest; of several with one digest the first goes with the first."""
    waiting: dict[bytes, list[ChunkState]] = defaultdict(list)
    for state in reversed(old):
        waiting[state.digest].append(state)
    kept, added = [], []
    for chunk in new:
        if waiting[chunk.digest]:
            kept.append((waiting[chunk.digest].pop(), chunk))
        else:
            added.append(chunk)
    used = {state.id for state, _ in kept}
    return ChunkDiff(
        tuple(kept), tuple(added), tuple(state for state in old if state.id not in used)
    )


def needs_record(found: Found) -> bool:
    """Whether a file that is not read has a row in the ledger: not when its name alone says so
    (a folder of photographs would fill it)."""
    return found.unread is not None and found.unread != NO_READER
