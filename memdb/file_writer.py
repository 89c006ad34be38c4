"""Writing what changed in a file: its old chunks out, its new ones in, its row of the ledger.

Texts are embedded and analysed before the transaction, many files' at once; the transaction then
takes the whole group, each file whole. A file whose row of the ledger is not the one the change was
computed from has been synced by another process meanwhile and is left to it. A chunk that stayed
keeps its memory, row and vector; only what says where it stands is rewritten, in place: line
numbers are no belief of the owner's, so they make no version.

It must not know folders or patterns; ``files`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from memdb import file_ledger as ledger
from memdb import rows, settings
from memdb.embedding import SpaceReplaced
from memdb.engine import LIVE
from memdb.errors import InvalidArgument
from memdb.ingest.changes import FileChange, Kept
from memdb.ingest.chunks import Chunk
from memdb.ingest.readers import Document
from memdb.ingest.sync import FileState
from memdb.query.indexed_text import indexed_text
from memdb.storage import lookups, postings
from memdb.storage.ids import require_id
from memdb.storage.store import Writer
from memdb.times import parse_time
from memdb.trash import to_trash
from memdb.types import Memory
from memdb.validate import Draft

if TYPE_CHECKING:
    from memdb.database import Database

_MAX_HEADING_CHARS = 200
_WHERE = ("source", "stream", "position", "tags", "event_time", "time_zone", "precision")
_OUR_METADATA = ("path", "title", "heading")


def source_uri(root: str, path: str, chunk: Chunk | None = None) -> str:
    """``file:///data/notes/a.md#L10-L42``. Only what would end the path early is escaped, so
    that names in any script stay readable and short."""
    absolute = stream_name(root, path)
    for character in "%#?":
        absolute = absolute.replace(character, f"%{ord(character):02X}")
    lines = "" if chunk is None else f"#L{chunk.start_line}-L{chunk.end_line}"
    return f"file://{'' if absolute.startswith('/') else '/'}{absolute}{lines}"


def stream_name(root: str, path: str) -> str:
    """The absolute path with ``/``: the stream whose positions are the file's chunks."""
    return f"{root.replace(chr(92), '/') if root[1:2] == ':' else root}".rstrip("/") + f"/{path}"


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A change with the memories it makes: of its new chunks, and (by raw id) of those that are
    to be restated."""

    change: FileChange
    new: Sequence[Draft] = ()
    restated: Sequence[tuple[bytes, Memory]] = ()


class Filed(NamedTuple):
    """What one transaction did: nothing where paths were stale, else which memories it wrote,
    restated or put into the trash."""

    stale: set[str]
    ids: tuple[str, ...]


class FileWriter:
    """Writes the changes of one synced folder."""

    def __init__(self, database: Database, root: str, prefix: bytes) -> None:
        self._db = database
        self._engine = database._engine.whole
        self._root = root
        self._prefix = prefix

    def write(
        self, changes: Sequence[FileChange], previous: Mapping[str, FileState]
    ) -> list[FileChange]:
        """Write a group of changes as one transaction; durable when this returns.

        Returns the changes as they were made: one whose chunks cannot be memories comes back as
        skipped with the reason, one that another process made meanwhile not at all.
        """
        drafted = [self._drafted(change) for change in changes]
        while drafted:
            try:
                filed = self._engine.store.write(self._transaction(drafted, previous))
            except SpaceReplaced:
                continue
            if not filed.stale:
                break
            drafted = [item for item in drafted if item.change.path not in filed.stale]
        self._db._maintenance.notify()
        return [item.change for item in drafted]

    def _transaction(
        self, drafted: Sequence[_Drafted], previous: Mapping[str, FileState]
    ) -> Callable[[Writer], Filed]:
        """Writes all of the group, or nothing and returns the paths that are stale."""
        insert = self._db._writer.insertion(
            [draft for item in drafted for draft in item.new], dedup="off"
        )
        now = self._engine.now()
        batch = self._engine.new_id(now)

        def run(txn: Writer) -> Filed:
            stale = {
                item.change.path
                for item in drafted
                if not self._is_current(txn, item.change, previous)
            }
            if stale:
                return Filed(stale, ())
            removed = [pair for item in drafted for pair in self._removed(txn, item.change)]
            if removed:
                to_trash(txn, self._engine, removed, batch, now)
            for item in drafted:
                self._restate(txn, item.restated)
            written = [one.id for one in insert(txn)]
            ids = iter(written)
            for item in drafted:
                self._enter_in_ledger(txn, item.change, [next(ids) for _ in item.new])
            restated = [one.id for item in drafted for _, one in item.restated]
            return Filed(stale, (*written, *restated, *(memory.id for _, memory in removed)))

        return run

    # --- before the transaction ---------------------------------------------------------

    def _drafted(self, change: FileChange) -> _Drafted:
        document = change.document
        if document is None:
            return _Drafted(change)
        try:
            common = self._common(change.path, document)
            drafts = [self._draft(change.path, chunk, common) for chunk in change.added]
            restated = [
                (require_id(kept.id), self._draft(change.path, kept.chunk, common).memory)
                for kept in change.kept
                if kept.restated
            ]
        except InvalidArgument as error:
            return _Drafted(_refused(change, str(error)))
        return _Drafted(change, drafts, restated)

    def _common(self, path: str, document: Document) -> dict[str, Any]:
        """What all chunks of a file share."""
        tags = [tag for tag in document.tags if len(tag.encode()) <= settings.MAX_NAME_BYTES]
        metadata: dict[str, Any] = {"path": path}
        if document.title:
            metadata["title"] = document.title[:_MAX_HEADING_CHARS]
        return {
            "kind": "chunk",
            "stream": stream_name(self._root, path),
            "tags": tags[: settings.MAX_LIST_ITEMS],
            "event_time": self._date(document),
            "metadata": metadata,
        }

    def _date(self, document: Document) -> str | None:
        """The document's date if it is one; a front matter may say anything."""
        if document.date is None:
            return None
        try:
            parse_time(document.date, zone=self._engine.zone, field="event_time")
        except InvalidArgument:
            return None
        return document.date

    def _draft(self, path: str, chunk: Chunk, common: Mapping[str, Any]) -> Draft:
        heading = [title[:_MAX_HEADING_CHARS] for title in chunk.heading if title]
        metadata = {**common["metadata"], **({"heading": heading} if heading else {})}
        draft = self._db._draft_of_file(
            {
                **common,
                "text": chunk.text,
                "source": source_uri(self._root, path, chunk),
                "position": chunk.ordinal,
                "metadata": metadata,
            }
        )
        draft.says = chunk.indexed_text
        return draft

    # --- inside the transaction ---------------------------------------------------------

    def _is_current(
        self, txn: Writer, change: FileChange, previous: Mapping[str, FileState]
    ) -> bool:
        paths = [change.path] if change.old_path is None else [change.path, change.old_path]
        return all(ledger.state_at(txn, self._prefix, path) == previous.get(path) for path in paths)

    def _enter_in_ledger(self, txn: Writer, change: FileChange, ids: Sequence[str]) -> None:
        state = change.state_with(ids)
        if change.old_path is not None:
            ledger.drop_state(txn, self._prefix, change.old_path)
        if state is not None:
            ledger.put_state(txn, self._prefix, state)
        elif change.kind == "removed":
            ledger.drop_state(txn, self._prefix, change.path)

    def _present(self, txn: Writer, raw_ids: Sequence[bytes]) -> list[tuple[bytes, int, Memory]]:
        """Those that are still there: the owner may have forgotten some of a file's chunks."""
        live = self._engine.filters.get_set(txn, LIVE)
        found = lookups.rows_of(txn, sorted(raw_ids))
        kept = {raw: row for raw, row in found.items() if row in live}
        memories = self._engine.records.get_many(txn, sorted(kept.values()))
        return [(raw, row, memories[row]) for raw, row in kept.items()]

    def _removed(self, txn: Writer, change: FileChange) -> list[tuple[int, Memory]]:
        """The rows that go, taken out of their file's order."""
        gone = self._present(txn, [require_id(one) for one in change.removed])
        for _, row, memory in gone:
            self._leave_place(txn, row, memory)
        return [(row, memory) for _, row, memory in gone]

    def _restate(self, txn: Writer, restated: Sequence[tuple[bytes, Memory]]) -> None:
        """Rewrite where chunks stand; all leave their places before any takes its new one."""
        wanted = dict(restated)
        present = self._present(txn, list(wanted))
        for _, row, old in present:
            self._leave_place(txn, row, old)
        for raw_id, row, old in present:
            new = _restated(old, wanted[raw_id])
            rows.rewrite(txn, self._engine, row, old, new)
            if new.stream is not None and new.position is not None:
                prefix = lookups.stream_prefix(txn, new.namespace, new.stream)
                lookups.set_position(txn, prefix, new.position, row)
            words = indexed_text(new)
            if words != indexed_text(old):
                postings.remove(txn, [row])
                postings.add(txn, row, self._engine.analyse([words])[0])

    @staticmethod
    def _leave_place(txn: Writer, row: int, memory: Memory) -> None:
        if memory.stream is not None and memory.position is not None:
            prefix = lookups.stream_prefix(txn, memory.namespace, memory.stream)
            lookups.clear_position(txn, prefix, memory.position, row)


def _restated(old: Memory, stated: Memory) -> Memory:
    """``old`` at the place of ``stated``; what the owner added to it stays."""
    own = {name: value for name, value in old.metadata.items() if name not in _OUR_METADATA}
    fields = {name: getattr(stated, name) for name in _WHERE}
    return old.replace(metadata={**own, **stated.metadata}, **fields)


def _refused(change: FileChange, reason: str) -> FileChange:
    """The change that leaves a file out because its chunks cannot be memories."""
    state = change.state
    if state is not None:
        state = msgspec.structs.replace(state, state="skipped", reason=reason, chunks=())
    kept: Sequence[Kept] = change.kept
    return replace(
        change,
        kind="skipped",
        reason=reason,
        state=state,
        kept=(),
        added=(),
        document=None,
        removed=(*change.removed, *(one.id for one in kept)),
    )
