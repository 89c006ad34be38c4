"""Keeping house: statistics, compaction, snapshots, export and import.

What the owner of a database does to it as a whole. Each verb is a thin sequence of calls into the
packages that own the bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb import checking, reembedding, snapshots, space_convert
from memdb.embedding import NONE, Given
from memdb.engine import HIDDEN, Engine
from memdb.erasure import sample_mark
from memdb.errors import InvalidArgument, LockHeld
from memdb.maintenance import Maintenance
from memdb.progress import Progress, reporting
from memdb.query import filters
from memdb.reader import MemoryReader, is_sample
from memdb.reembed_call import ReembedCall
from memdb.removal import remove_dropped_files
from memdb.retention import usage
from memdb.storage import erased, generations, lookups, series, spaces, tables
from memdb.storage import format as disk_format
from memdb.storage.environment import Environment
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory, Reembedding
from memdb.validate import Draft
from memdb.writer import MemoryWriter

if TYPE_CHECKING:
    from memdb.transfer import Exported, SpaceOf

_IMPORT_BATCH = 1_024


class Admin:
    """The owner's verbs over one engine; stateless between calls."""

    def __init__(
        self,
        engine: Engine,
        reader: MemoryReader,
        writer: MemoryWriter,
        maintenance: Maintenance,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._maintenance = maintenance
        self._reembed = ReembedCall(engine, maintenance)

    # --- looking ------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counts and bytes. ``bytes.tables`` is what LMDB's pages of each table take;
        ``bytes.kinds`` has memories and about their bytes by kind and level of fidelity."""
        engine = self._engine
        if engine.granted:
            return self._granted_stats()
        with engine.store.read() as txn:
            live = engine.unexpired(txn, engine.live(txn), engine.now())
            kinds = dict(engine.filters.values(txn, "kind", live))
            hidden = len(engine.filters.get_set(txn, HIDDEN))
            by_table = {name: txn.bytes_of(name) for name in tables.ALL if txn.has(name)}
            series_of = [header for _, header in series.every(txn)]
            known = spaces.spaces(txn)
            state = txn.state
            vectors = {s.name: len(engine.vectors(s).rows_with_vectors(txn)) for s in known}
            by_level = usage.by_kind_and_level(engine, txn)
            jobs = {s.name: space_convert.job_of(txn, engine.filters, s) for s in known}
        again = self._reembed.look()
        files = usage.disk_bytes(engine.store.path)
        pid, host = engine.store.lease.holder()
        return {
            "memories": len(live),
            "kinds": kinds,
            "series": {
                "count": len(series_of),
                "samples": sum(one.samples - one.hidden for one in series_of),
                "bytes": by_table[tables.SERIES] + by_table[tables.SAMPLES],
            },
            "trash": hidden + sum(one.hidden for one in series_of),
            "vectors": vectors,
            "profiles": {s.name: s.profile for s in known},
            "converting": {name: job._asdict() for name, job in jobs.items() if job is not None},
            "reembedding": None if again is None else asdict(again),
            "bytes": {
                "total": sum(files.values()),
                "files": files,
                "tables": by_table,
                "kinds": by_level,
            },
            "backlog": self._maintenance.backlog(),
            "content_seq": state.content_seq,
            "layout_seq": state.layout_seq,
            "generation": engine.store.generation,
            "lease": {"held": engine.store.lease.held, "pid": pid, "host": host},
            "maintenance_error": str(self._maintenance.last_error or "") or None,
        }

    def _granted_stats(self) -> dict[str, Any]:
        """What a grant lets be counted: no bytes and no backlog, which are the whole database's."""
        engine = self._engine
        with engine.store.read() as txn:
            live = engine.unexpired(txn, engine.live(txn), engine.now())
            return {
                "memories": len(live),
                "kinds": dict(engine.filters.values(txn, "kind", live)),
                "namespaces": dict(engine.filters.values(txn, "namespace", live)),
            }

    def check(self, *, repair: bool) -> dict[str, Any]:
        """Verify everything; see ``checking``."""
        return checking.check(self._engine, repair=repair)

    def reembed(self, embedder: Given, progress: Progress, wait: bool) -> Reembedding:
        """Embed all texts with another model; see ``reembed_call``."""
        return self._reembed.reembed(embedder, progress, wait)

    # --- moving bytes ---------------------------------------------------------------------

    def compact(self) -> dict[str, Any]:
        """Finish the backlog, freeze old records, rewrite the store. Raises ``LockHeld``."""
        before = sum(usage.disk_bytes(self._engine.store.path).values())
        self._require_lease()
        with self._maintenance.paused():
            frozen = self._maintenance.freeze()
            self._engine.store.compact(packed=True)
            swept = self._engine.blobs.sweep(self._engine.store)
            if self._engine.store.wait_for_readers():
                remove_dropped_files(self._engine)
        after = sum(usage.disk_bytes(self._engine.store.path).values())
        return {"before": before, "after": after, "frozen": frozen, "blobs_removed": swept}

    def snapshot(self, path: Path) -> Path:
        """A copy that opens as a database. Raises ``InvalidArgument`` when ``path`` exists."""
        target = path.expanduser().resolve()
        if target.exists():
            raise InvalidArgument("the snapshot's path exists already", field="path")
        if target.is_relative_to(self._engine.store.path):
            raise InvalidArgument("a snapshot cannot lie inside its database", field="path")
        self._require_lease()
        temporary = target.with_name(target.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        with self._maintenance.paused():
            with self._engine.store.read() as txn:
                number = snapshots.settled(txn)
            try:
                self._copy(temporary, number)
                os.rename(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            generations.fsync_directory(target.parent)
            snapshots.register(self._engine, target, number)
        return target

    def _copy(self, directory: Path, number: int) -> None:
        """LMDB first: what the files gain meanwhile is not yet published in the copy."""
        disk_format.make_directories(directory)
        first = directory / "kv" / generations.name_of(1)
        first.mkdir(mode=0o700)
        self._engine.store.copy_to(first)
        copied = Environment(first)
        with copied.write() as txn:
            snapshots.begin_copy(txn, self._engine.store.path, number)
        copied.close()
        (first / "users").touch(mode=0o600)  # so that it opens read-only as well
        for folder in ("space", "blob", "audit"):
            shutil.copytree(
                self._engine.store.path / folder, directory / folder, dirs_exist_ok=True
            )
        for file in (entry for entry in directory.rglob("*") if entry.is_file()):
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
        for folder_path in (first, directory / "kv", directory):
            generations.fsync_directory(folder_path)
        generations.write_current(directory / "kv", 1)
        disk_format.write_version(directory)

    def _require_lease(self) -> None:
        """Finish the backlog under the lease. Raises ``LockHeld`` naming who has it."""
        if not self._maintenance.drain():
            pid, host = self._engine.store.lease.holder()
            raise LockHeld(
                f"process {pid} on {host} is maintaining this database", pid=pid, host=host
            )

    # --- in and out -------------------------------------------------------------------------

    def export(
        self,
        path: Path,
        format: str,
        namespace: str,
        where: Mapping[str, Any] | None,
        progress: Progress,
    ) -> int:
        """Every selected memory and sample with every field, and a vector that was given."""
        from memdb import transfer  # pyarrow and compression: only when asked for

        total = self._reader.count(namespace, where)
        with self._engine.store.read() as txn:
            described = [
                transfer.SpaceOf(one.name, one.dim, one.metric, one.profile)
                for one in spaces.spaces(txn)
                if one.embedder is None and self._has_any(txn, one)
            ]
        memories = chain(
            self._with_vectors(self._reader.iterate(namespace, where)),
            self._samples(namespace, self._reader.compile(where)),
        )
        with reporting(progress, total, "exporting") as report:
            written: int = transfer.export(
                memories, path, format, spaces=described, progress=report
            )
        return written

    def _has_any(self, txn: Reader, space: spaces.SpaceRecord) -> bool:
        """Whether a space is to be told of: under a grant, if a memory that is seen lies in it."""
        visible = self._engine.visible(txn, self._engine.now())
        having = self._engine.vectors(space).rows_with_vectors(txn)
        return visible is None or having.intersect(visible)

    def _samples(
        self, namespace: str, condition: filters.Filter | None
    ) -> Iterator[tuple[Memory, None]]:
        """The samples of all series in order of time, a chunk a snapshot."""
        last: series.Position | None = None
        while True:
            with self._engine.store.read() as txn:
                known = series.matching(txn, namespace=namespace)
                chunk = series.read_memories(txn, known, limit=_IMPORT_BATCH, after=last).memories
            if not chunk:
                return
            last = series.position_of(chunk[-1])
            for memory in chunk:
                if not self._engine.shows(memory):
                    continue
                if condition is None or filters.matches(condition, memory):
                    yield memory, None

    def _with_vectors(
        self, memories: Iterable[Memory]
    ) -> Iterator[tuple[Memory, list[float] | None]]:
        for memory in memories:
            yield memory, self._given_vector(memory)

    def _given_vector(self, memory: Memory) -> list[float] | None:
        """The stored vector of a memory, unless embedding its text gives it again."""
        engine = self._engine
        with engine.store.read() as txn:
            space = engine.space_named(txn, memory.space)
            if space is None or (memory.text is not None and space.embedder is not None):
                return None
            row = lookups.row_of(txn, require_id(memory.id))
            if row is None:
                return None
            for one in (space, *reembedding.keeping(txn)):
                found = engine.vectors(one).fetch(txn, [row])
                if row in found:
                    return list(map(float, found[row]))
        return None

    def import_(self, path: Path, progress: Progress) -> int:
        """Read an export; memories whose id is known are left alone. Idempotent."""
        from memdb import transfer

        described = {one.name: one for one in transfer.read_spaces(path)}
        entries = iter(transfer.read_export(path))
        added = 0
        with reporting(progress, None, "importing") as report:
            while batch := list(islice(entries, _IMPORT_BATCH)):
                self._make_spaces(batch, described)
                records = [entry for entry in batch if not is_sample(entry.memory.id)]
                added += self._import_records(records)
                added += self._import_samples([e.memory for e in batch if is_sample(e.memory.id)])
                report(added)
        return added

    def _make_spaces(self, batch: Sequence[Exported], described: Mapping[str, SpaceOf]) -> None:
        """Create the spaces that memories with a vector name and that are not here yet."""
        from memdb.transfer import SpaceOf

        wanted = {
            memory.space: described.get(memory.space) or SpaceOf(memory.space, len(vector))
            for memory, vector in batch
            if memory.space is not None and vector is not None
        }
        for name, one in wanted.items():
            record = spaces.SpaceRecord(
                number=0, name=name, dim=one.dim, metric=one.metric, profile=one.profile
            )

            def make(txn: Writer, record: spaces.SpaceRecord = record) -> None:
                if spaces.find_space(txn, record.name) is None:
                    spaces.create_space(txn, record)

            self._engine.store.write(make)

    def _import_records(self, entries: Sequence[Exported]) -> int:
        if not entries:
            return 0
        embeds = self._engine.embedding.spec != NONE
        drafts = [
            # What was brought for a text goes where texts are not embedded; elsewhere the
            # database's own model makes the vector.
            Draft(m, None if embeds and m.text is not None and m.space is None else vector)
            for m, vector in entries
        ]
        written = self._writer.insert(drafts, on_conflict="skip", dedup="off", by_id=True)
        return sum(1 for one in written if one.status not in ("duplicate", "erased"))

    def _import_samples(self, memories: Sequence[Memory]) -> int:
        """Append the samples that are neither held nor were erased; they get ids of their own."""
        given = [(memory, *series.from_memory(memory)) for memory in memories]

        def append(txn: Writer) -> int:
            gone: set[bytes] = set()
            marks: list[bytes] = []
            if erased.anything(txn):
                marks = [sample_mark(txn, memory) for memory, _, _ in given]
                gone = erased.among(txn, marks)
            grouped: dict[series.SeriesKey, list[series.Sample]] = {}
            for place, (_, key, sample) in enumerate(given):
                if not gone or marks[place] not in gone:
                    grouped.setdefault(key, []).append(sample)
            new = [id for key, found in grouped.items() for id in
                   series.append_missing(txn, key, found)]  # fmt: skip
            if new:
                txn.series_changed()
            return len(new)

        return self._engine.store.write(append) if given else 0
