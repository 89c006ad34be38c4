"""Carrying out a sync plan up to the store's door: read, cut, compare, one change a file.

Strategy: a generator, so that one file's text is in memory at a time and the caller writes each
change in a transaction of its own: a sync that is interrupted leaves every file either as it was
or as it is, and the next one goes on from there.

It reads files; it must not know embedders or stores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from memdb.ingest.chunks import CHUNKER_VERSION, Chunk, Chunker, Digest
from memdb.ingest.readers import (
    MAX_FILE_BYTES,
    READERS,
    Document,
    Reader,
    Unread,
    read_bytes,
    reader_for,
)
from memdb.ingest.scan import Found, Scan
from memdb.ingest.sync import (
    ChunkDiff,
    ChunkState,
    FileState,
    SyncPlan,
    diff,
    needs_record,
    packed,
    plan,
    to_hash,
)

ChangeKind = Literal["added", "updated", "moved", "removed", "touched", "skipped", "failed"]
_NOTHING = ChunkDiff((), (), ())


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk whose text is as it was. ``restated``: its lines or the file's path, title, tags or
    date are not, so its record is written anew; its vector is not."""

    id: str
    chunk: Chunk
    restated: bool


@dataclass(frozen=True, slots=True)
class FileChange:
    """What is to be written for one file, all of it or nothing.

    ``kind``      ``touched``: only the ledger's row is new.  ``skipped`` and ``failed`` without a
                  ``state`` change nothing: the ledger says so already, or need not
    ``path``      relative to the root;  ``old_path`` for a moved one, whose row is deleted
    ``state``     the row to put, whose new chunks have no ids yet (see ``state_with``)
    ``removed``   ids of memories whose chunks are gone
    """

    kind: ChangeKind
    path: str
    old_path: str | None = None
    state: FileState | None = None
    document: Document | None = None
    kept: tuple[Kept, ...] = ()
    added: tuple[Chunk, ...] = ()
    removed: tuple[str, ...] = ()
    reason: str | None = None

    def state_with(self, ids: Sequence[str]) -> FileState | None:
        """The row to put, given the ids of the memories made for ``added``, in its order."""
        if self.state is None:
            return None
        by_ordinal = {kept.chunk.ordinal: (kept.id, kept.chunk) for kept in self.kept}
        by_ordinal |= {
            chunk.ordinal: (new, chunk) for new, chunk in zip(ids, self.added, strict=True)
        }
        if not by_ordinal:
            return self.state
        chunks = tuple(
            ChunkState(chunk.digest, id_, chunk.start_line, chunk.end_line)
            for _, (id_, chunk) in sorted(by_ordinal.items())
        )
        return msgspec.structs.replace(self.state, chunks=chunks)


@dataclass(frozen=True)
class Differ:
    """Reads the files of one root and says what changed. ``recipe`` names the embedder whose
    tokens the chunker counts. ``clock_ns``: ns since 1970."""

    root: str
    chunker: Chunker
    digest: Digest
    recipe: bytes = b""
    clock_ns: Callable[[], int] = time.time_ns
    readers: Mapping[str, Reader] = field(default_factory=lambda: READERS)
    max_bytes: int = MAX_FILE_BYTES

    def full_recipe(self) -> bytes:
        """What the chunks of a file depend on besides its content, 16 bytes."""
        settings = f"{CHUNKER_VERSION}:{self.chunker.max_tokens}:".encode()
        return self.digest(settings + self.recipe)

    def plan(self, previous: Mapping[str, FileState], scan: Scan) -> SyncPlan:
        """The plan, hashing those new files that may be moved ones."""
        digests = {}
        for found in to_hash(previous, scan.files):
            data = self._load(found)
            if isinstance(data, bytes):
                digests[found.path] = self.digest(data)
        return plan(previous, scan, recipe=self.full_recipe(), digests=digests)

    def changes(self, previous: Mapping[str, FileState], todo: SyncPlan) -> Iterator[FileChange]:
        """The changes of a plan, one or (a move that was none) two a file; deletions first."""
        for path in todo.removed:
            yield _removal(previous[path])
        for old, found in todo.moved:
            yield from self._move(previous[old], found)
        for found in (*todo.changed, *todo.added):
            yield self._read(found, previous.get(found.path))
        for found in todo.skipped:
            unread = found.unread
            if unread is not None:
                state = previous.get(found.path)
                yield self._unread(found, unread, state, record=needs_record(found))

    # --- one file -----------------------------------------------------------------------

    def _load(self, found: Found) -> bytes | Unread | None:
        """Its content; None if it is gone."""
        try:
            return read_bytes(os.path.join(self.root, found.path), limit=self.max_bytes)
        except FileNotFoundError:
            return None

    def _move(self, old: FileState, found: Found) -> Iterator[FileChange]:
        change = self._read(found, old)
        if change.kind == "failed":
            return  # neither moved nor gone for certain: the next sync sees
        if change.kind == "removed" or not change.kept:
            # The inode was another file's, or it is not for us under its new name.
            yield _removal(old)
            if change.kind != "removed":
                yield self._read(found, None)
            return
        yield replace(
            change,
            kind="moved",
            old_path=old.path,
            kept=tuple(replace(kept, restated=True) for kept in change.kept),
        )

    def _read(self, found: Found, old: FileState | None) -> FileChange:
        """What became of a file that is there, against its last state under any path."""
        read_ns = self.clock_ns()
        data = self._load(found)
        if data is None:
            return FileChange("failed", found.path, reason="gone") if old is None else _removal(old)
        if isinstance(data, Unread):
            return self._unread(found, data, old)
        digest = self.digest(data)
        stamp, recipe = packed(found.stamp), self.full_recipe()
        if old is not None and (old.digest, old.recipe, old.path) == (digest, recipe, found.path):
            state = msgspec.structs.replace(old, stamp=stamp, read_ns=read_ns)
            if old.state == "skipped":
                return FileChange("skipped", found.path, state=state, reason=old.reason)
            if old.state == "indexed" or old.chunks:
                state = msgspec.structs.replace(state, state="indexed", reason=None)
                return FileChange("touched", found.path, state=state)
        reader = reader_for(found.path, named=found.named, readers=self.readers)
        document = Unread("skipped", "no reader") if reader is None else reader(data, found.path)
        state = FileState(
            path=found.path, stamp=stamp, read_ns=read_ns, digest=digest, recipe=recipe
        )
        if isinstance(document, Unread):
            state = msgspec.structs.replace(state, state=document.state, reason=document.reason)
            return FileChange(
                document.state,
                found.path,
                state=state,
                removed=_ids(old),
                reason=document.reason,
            )
        return self._indexed(state, document, old)

    def _indexed(self, state: FileState, document: Document, old: FileState | None) -> FileChange:
        facts = self.digest(msgspec.json.encode((document.title, document.tags, document.date)))
        cut = self.chunker.markdown if document.format == "markdown" else self.chunker.plain
        delta = diff(old.chunks if old else (), cut(document.text, document.title))
        order = {chunk.id: number for number, chunk in enumerate(old.chunks)} if old else {}
        known = old is not None and (old.state == "indexed" or bool(old.chunks))
        return FileChange(
            "updated" if known else "added",
            state.path,
            state=msgspec.structs.replace(state, facts=facts),
            document=document,
            kept=tuple(
                Kept(
                    was.id,
                    chunk,
                    restated=old is None
                    or old.facts != facts
                    or (was.start_line, was.end_line) != (chunk.start_line, chunk.end_line)
                    or order[was.id] != chunk.ordinal,
                )
                for was, chunk in delta.kept
            ),
            added=delta.added,
            removed=tuple(chunk.id for chunk in delta.removed),
        )

    def _unread(
        self, found: Found, unread: Unread, old: FileState | None, *, record: bool = True
    ) -> FileChange:
        """A file that gave no document. What failed keeps its memories and is tried again."""
        if unread.state == "failed":
            base = old or FileState(path=found.path, stamp=packed(found.stamp))
            state = msgspec.structs.replace(
                base, path=found.path, read_ns=0, state="failed", reason=unread.reason
            )
        else:
            state = FileState(
                path=found.path,
                stamp=packed(found.stamp),
                recipe=self.full_recipe(),
                state="skipped",
                reason=unread.reason,
            )
        removed = () if unread.state == "failed" else _ids(old)
        if not record:
            if old is None:
                return FileChange("skipped", found.path, reason=unread.reason)
            return replace(_removal(old), reason=unread.reason)
        same = old is not None and state == old
        return FileChange(
            unread.state,
            found.path,
            state=None if same else state,
            removed=removed,
            reason=unread.reason,
        )


def _removal(state: FileState) -> FileChange:
    return FileChange("removed", state.path, removed=_ids(state))


def _ids(state: FileState | None) -> tuple[str, ...]:
    return tuple(chunk.id for chunk in state.chunks) if state else ()
