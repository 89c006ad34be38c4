"""``db.files``: folders of documents, kept in step with the disk.

A file is cut into chunks, each a memory of kind ``chunk`` with the lines it came from in its
``source``; the file is their stream. ``sync`` brings the memories up to date with a folder and
costs one ``stat`` for a file that did not change. What to do is decided in ``memdb.ingest``; it is
written by ``file_writer``; this file wires the two to one database.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from memdb import file_ledger as ledger
from memdb.engine import Engine
from memdb.erasure import chunk_mark
from memdb.errors import Conflict, NotFound
from memdb.file_ledger import Root
from memdb.file_writer import FileWriter, stream_name
from memdb.ingest.changes import Differ, FileChange
from memdb.ingest.chunks import MIN_TOKENS, Chunker
from memdb.ingest.globs import Globs
from memdb.ingest.scan import Rules, Scan, real_root, scan
from memdb.ingest.sync import FileState, SyncPlan, guard_root
from memdb.progress import Progress, reporting
from memdb.storage import erased, lookups
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import FileStatus, SyncReport
from memdb.watcher import Watcher

if TYPE_CHECKING:
    from memdb.database import Database

TARGET_TOKENS = 256  # a chunk's budget where the embedder could read more: finer is found better
_GROUP_FILES = 64
_GROUP_CHUNKS = 256
_WORD = re.compile(r"\S+")


class Files:
    """Documents on disk as memories."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def sync(
        self,
        path: str | os.PathLike[str],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        progress: Progress = None,
        *,
        allow_empty: bool = False,
    ) -> SyncReport:
        """Make the memories of a folder what its files say now.

        ``include`` and ``exclude`` are patterns as in gitignore; None means as in the folder's
        last sync, at first every file there is a reader for but hidden ones. A file whose chunks
        are unchanged, moved or not, embeds nothing. Files that cannot be indexed are reported with
        the reason. What is gone from the disk is forgotten (and can be restored for seven days).
        An interrupted sync leaves each file either as it was or as it is.

        Raises ``NotFound`` (no such folder), ``InvalidArgument`` (not a folder, a malformed
        pattern), ``Conflict`` (the folder is inside one that is synced, or is empty where files
        were indexed and not ``allow_empty``), ``PermissionDenied``, ``EmbedderUnavailable``.
        """
        root = real_root(path)
        for name, patterns in (("include", include), ("exclude", exclude)):
            Globs(patterns or (), name)
        return _Sync(self._db, root, include, exclude).run(progress, allow_empty=allow_empty)

    def status(self, path: str | os.PathLike[str] | None = None) -> list[FileStatus]:
        """Every file of the synced folders (or of one), by absolute path, with its state.

        Files that no reader is for are not listed. Raises ``NotFound`` for a folder that was
        never synced.
        """
        namespace, engine = self._db._reads, self._db._engine
        wanted = None if path is None else os.path.realpath(os.path.expanduser(path))
        found = []
        known = False
        with engine.store.read() as txn:
            for prefix, root in ledger.roots(txn):
                if _within(namespace, root.namespace) and wanted in (None, root.path):
                    states = [
                        _status(shown, stream_name(root.path, shown.path))
                        for state in ledger.states(txn, prefix)
                        if (shown := _shown(engine, txn, state)) is not None
                    ]
                    known = known or bool(states) or not engine.granted
                    found += states
        if wanted is not None and not known:
            raise NotFound("the folder was never synced", hint="call files.sync first")
        return sorted(found, key=lambda status: status.path)

    def watch(
        self,
        path: str | os.PathLike[str],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        *,
        interval: float = 2.0,
        on_sync: Callable[[SyncReport], None] | None = None,
    ) -> Watcher:
        """Sync the folder now and every ``interval`` seconds until the watcher is stopped.

        A context manager; works in a thread of its own. Raises like ``sync`` for a folder that
        cannot be synced at all.
        """
        real_root(path)
        return Watcher(lambda: self.sync(path, include, exclude), interval, on_sync)


class _Sync:
    """One sync of one folder."""

    def __init__(
        self,
        database: Database,
        root: str,
        include: Sequence[str] | None,
        exclude: Sequence[str] | None,
    ) -> None:
        self._db = database
        self._namespace = database._write_namespace(None)
        self._root = root
        with database._engine.store.read() as txn:
            self._prefix = ledger.prefix_of(txn, self._namespace, root)
            stored = ledger.root_at(txn, self._prefix)
            known = [r.path for _, r in ledger.roots(txn) if r.namespace == self._namespace]
            self._previous = {state.path: state for state in ledger.states(txn, self._prefix)}
            key = txn.digest(b"contents of files", 32)
        self._digest: Callable[[bytes], bytes] = lambda data: blake2b(
            data, digest_size=16, key=key
        ).digest()
        before = stored or Root(self._namespace, root)
        self._folder = Root(
            self._namespace,
            root,
            before.include if include is None else tuple(include),
            before.exclude if exclude is None else tuple(exclude),
        )
        self._is_new_folder = stored != self._folder
        inner = self._inner_roots(known)
        self._rules = Rules(
            self._folder.include, self._folder.exclude, (str(database.path), *inner)
        )

    def _inner_roots(self, known: Sequence[str]) -> list[str]:
        """Folders inside this one that are synced on their own, and are left to that."""
        for other in known:
            if other != self._root and self._root.startswith(other.rstrip(os.sep) + os.sep):
                raise Conflict(
                    "the folder lies inside one that is synced already",
                    hint="sync the outer folder; it covers this one",
                )
        here = self._root.rstrip(os.sep) + os.sep
        return [other for other in known if other.startswith(here)]

    def run(self, progress: Progress, *, allow_empty: bool) -> SyncReport:
        differ = self._differ()
        found = scan(self._root, self._rules)
        guard_root(self._previous, found, allow_empty=allow_empty)
        todo = differ.plan(self._previous, found)
        if self._is_new_folder:
            self._record_folder()
        tally = _Tally(self._previous, found, todo)
        writer = FileWriter(self._db, self._root, self._prefix)
        group: list[FileChange] = []
        total = len(todo.removed) + len(todo.moved) + len(todo.changed) + len(todo.added)
        with reporting(progress, total, "syncing") as report:
            for change in map(self._unerased, differ.changes(self._previous, todo)):
                if change.state is None and change.kind != "removed":
                    tally.count(change)  # nothing to write
                    continue
                group.append(change)
                if len(group) >= _GROUP_FILES or (
                    sum(len(one.added) + len(one.kept) for one in group) >= _GROUP_CHUNKS
                ):
                    tally.count(*writer.write(group, self._previous))
                    report(min(total, tally.counted))
                    group = []
            if group:
                tally.count(*writer.write(group, self._previous))
            report(total)
        return tally.report()

    def _unerased(self, change: FileChange) -> FileChange:
        """The change without chunks that were erased: they do not come back from the disk.

        A file that has no others is left out of the ledger, where its path would be read again.
        """
        if not change.added:
            return change
        with self._db._engine.store.read() as txn:
            marks = [chunk_mark(txn, self._namespace, chunk.digest) for chunk in change.added]
            gone = erased.among(txn, marks)
        if not gone:
            return change
        added = tuple(c for c, mark in zip(change.added, marks, strict=True) if mark not in gone)
        if added or change.kept or change.removed:
            return replace(change, added=added)
        return FileChange("skipped", change.path, reason="its content was erased")

    def _differ(self) -> Differ:
        embedder = self._db._engine.embedding.get()
        if embedder is None:
            chunker = Chunker(TARGET_TOKENS, approximate_tokens, self._digest)
            return Differ(self._root, chunker, self._digest)
        budget = max(MIN_TOKENS, min(embedder.max_tokens, TARGET_TOKENS))
        chunker = Chunker(budget, embedder.count_tokens, self._digest)
        return Differ(self._root, chunker, self._digest, recipe=embedder.name.encode())

    def _record_folder(self) -> None:
        def record(txn: Writer) -> None:
            ledger.put_root(txn, self._prefix, self._folder)

        self._db._engine.store.write(record)


class _Tally:
    """What a sync did, as it is reported."""

    def __init__(self, previous: Mapping[str, FileState], found: Scan, todo: SyncPlan) -> None:
        self.counted = 0
        self._previous = previous
        self._changes: dict[str, list[FileChange]] = {}
        self._unchanged = [previous[path] for path in (*todo.unchanged, *todo.hidden)]
        self._closed = found.closed

    def count(self, *changes: FileChange) -> None:
        self.counted += len(changes)
        for change in changes:
            self._changes.setdefault(change.kind, []).append(change)

    def report(self) -> SyncReport:
        unread = [
            FileStatus(change.path, kind, change.reason, self._kept_chunks(change))
            for kind in ("skipped", "failed")
            for change in self._changes.get(kind, ())
        ]
        unread += [_status(s, s.path) for s in self._unchanged if s.state != "indexed"]
        unread += [FileStatus(folder, "failed", reason) for folder, reason in self._closed]
        gone = [c for c in self._changes.get("removed", ()) if c.reason is None]
        unfit = [c for c in self._changes.get("removed", ()) if c.reason is not None]
        unread += [FileStatus(change.path, "skipped", change.reason) for change in unfit]
        return SyncReport(
            added=self._paths("added"),
            updated=self._paths("updated"),
            moved=tuple(sorted((c.old_path or "", c.path) for c in self._changes.get("moved", ()))),
            removed=tuple(sorted(change.path for change in (*gone, *unfit))),
            skipped=tuple(sorted(unread, key=lambda status: status.path)),
            unchanged=len(self._changes.get("touched", ()))
            + sum(state.state == "indexed" for state in self._unchanged),
        )

    def _kept_chunks(self, change: FileChange) -> int:
        """A file that failed keeps its chunks until it can be read again."""
        state = self._previous.get(change.path)
        return 0 if state is None or change.kind != "failed" else len(state.chunks)

    def _paths(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(change.path for change in self._changes.get(kind, ())))


def approximate_tokens(text: str) -> int:
    """Tokens of a text where no embedder counts them: words, or bytes by four if that is more."""
    return max(len(_WORD.findall(text)), -(-len(text.encode()) // 4))


def _status(state: FileState, path: str) -> FileStatus:
    return FileStatus(path, state.state, state.reason, len(state.chunks))


def _shown(engine: Engine, txn: Reader, state: FileState) -> FileState | None:
    """A file with those of its chunks that may be seen; None where that is none of them."""
    if not engine.granted:
        return state
    rows = lookups.rows_of(txn, sorted(require_id(chunk.id) for chunk in state.chunks))
    live = engine.live(txn)
    chunks = tuple(one for one in state.chunks if rows.get(require_id(one.id), -1) in live)
    return msgspec.structs.replace(state, chunks=chunks) if chunks else None


def _within(namespace: str, other: str) -> bool:
    return not namespace or other == namespace or other.startswith(namespace + "/")
