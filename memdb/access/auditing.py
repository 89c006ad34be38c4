"""``db.audit``: what was done by whom, and whether anybody changed what is written about it.

A call by ``Database.acting`` leaves one row: of a write in the transaction of the write, of
anything else in the process's own file, before the caller is answered. This file says what a row
tells and reads rows back; ``storage.audit`` and ``storage.audit_log`` know their bytes.
"""

from __future__ import annotations

import base64
import heapq
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import msgspec

from memdb import validate
from memdb.engine import Engine
from memdb.errors import InvalidArgument, PermissionDenied, StoreCorrupt
from memdb.storage import audit, audit_log
from memdb.storage.audit import Broken, Head, What, Who
from memdb.storage.audit_log import AuditLog
from memdb.storage.ids import format_id, parse_id
from memdb.storage.store import Writer
from memdb.types import from_micros, to_micros
from memdb.validate import TimeLike

WHERE_BYTES: Final = 16 << 10
_ROWS_AT_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One thing that was done. ``seq``: its number among its writer's rows, where the writer is
    "store" for writes and a process for reads.

    ``principal`` did ``action`` by calling ``tool`` over ``transport`` for ``purpose``, as ``rule``
    allowed; ``ids`` were answered or written, ``where`` is what was asked for as JSON, ``count``
    how many there were. ``outcome``: "ok" or the code of an error. ``blanked``: an erasure took
    what it was about.
    """

    seq: int
    writer: str
    at: datetime
    principal: str
    action: str
    tool: str
    transport: str
    purpose: str | None
    rule: str
    ids: tuple[str, ...]
    where: str | None
    count: int
    outcome: str
    query: str | None = None
    blanked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Rows, the latest first, and where the next page begins."""

    items: tuple[AuditRow, ...]
    next_cursor: str | None = None

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each row as a mapping."""
        return [row.to_dict() for row in self.items]


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What ``verify`` found. ``rows`` are right; ``first_bad`` says where and why the first is not.

    ``lost_tail``: last rows that are not whole, each cut off by a crash in being written; nobody
    was answered by them. ``blanked``: rows whose content an erasure took.
    """

    ok: bool
    rows: int
    first_bad: str | None = None
    lost_tail: int = 0
    blanked: int = 0


class Told:
    """What a row tells of a result."""

    __slots__ = ("count", "ids")

    def __init__(self, ids: Sequence[str] = (), count: int | None = None) -> None:
        self.ids = ids
        self.count = len(ids) if count is None else count


@dataclass(slots=True)
class Called:
    """One call, as it came."""

    principal: str
    token: str
    action: str
    verb: str
    transport: str
    rule: str
    purpose: str | None
    tool: str | None
    where: str | None = None
    query: str | None = None

    def who(self, outcome: str) -> bytes:
        return audit.encode(
            Who(
                self.principal,
                self.token,
                self.action,
                self.verb,
                self.transport,
                self.rule,
                outcome,
            )
        )

    def what(self, told: Told) -> bytes:
        raw, samples = [], []
        for one in told.ids:
            raw_id = parse_id(one)
            if raw_id is None:
                samples.append(one)
            else:
                raw.append(raw_id)
        return audit.encode(
            What(
                b"".join(raw),
                tuple(samples),
                told.count,
                self.where,
                self.purpose,
                self.tool,
                self.query,
            )
        )


class Recorder:
    """Adds rows to the audit of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._log: AuditLog | None = None

    def note(self, called: Called, told: Told, outcome: str = "ok") -> None:
        """Add a row to this process's file. Raises ``StoreFull``, ``PermissionDenied``: then
        nobody is answered."""
        log = self._log or self._opened()
        now = to_micros(self._engine.now())
        log.append(now, called.who(outcome), called.what(told))

    def commit(self, txn: Writer, called: Called, told: Told) -> None:
        """Add a row to the transaction of a write."""
        now = to_micros(self._engine.now())
        audit.append(txn, now, called.who("ok"), called.what(told))

    def _opened(self) -> AuditLog:
        store = self._engine.store
        if store.readonly:
            raise PermissionDenied(
                "acting on a database leaves rows in its audit, and it was opened read-only"
            )
        with self._guard:
            if self._log is None:
                self._log = AuditLog(store.path / audit_log.FOLDER, self._anchor)
            return self._log

    def _anchor(self, writer: str, head: Head) -> None:
        self._engine.store.write(lambda txn: audit.put_head(txn, writer, head))

    def close(self) -> None:
        """Sync and anchor what this process wrote."""
        if self._log is not None:
            self._log.close()


class Audit:
    """The audit of one database, read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(
        self,
        *,
        principal: str | None = None,
        since: TimeLike | None = None,
        before: TimeLike | None = None,
        action: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> AuditPage:
        """What was done, the latest first; pass ``next_cursor`` for what was before.

        ``since`` and ``before`` are times, ``since <= at < before``. Raises ``InvalidArgument``.
        """
        validate.integer(limit, "limit", 1, _ROWS_AT_MOST)
        zone = self._engine.zone
        low = None if since is None else to_micros(_instant(since, "since", zone))
        high = None if before is None else to_micros(_instant(before, "before", zone))
        after = None if cursor is None else _read_cursor(cursor)
        wanted = (
            (writer, row)
            for writer, row in self._every()
            if (low is None or row.at_us >= low)
            and (high is None or row.at_us < high)
            and (principal is None or row.who.principal == principal)
            and (action is None or row.who.action == action)
            and (after is None or (row.at_us, writer, row.seq) < after)
        )
        latest = heapq.nlargest(
            limit + 1, wanted, key=lambda one: (one[1].at_us, one[0], one[1].seq)
        )
        items = tuple(_told(writer, row) for writer, row in latest[:limit])
        if len(latest) <= limit:
            return AuditPage(items)
        writer, last = latest[limit - 1]
        return AuditPage(items, _make_cursor(last.at_us, writer, last.seq))

    def _every(self) -> Iterator[tuple[str, audit.Row]]:
        """Every row that decodes, with its writer; what does not is ``verify``'s to tell."""
        for file in audit_log.files(self._engine.store.path):
            for _, raw in audit_log.rows_in(audit_log.read(file)):
                row = _unpacked(raw)
                if row is not None:
                    yield file.writer, row
        with self._engine.store.read() as txn:
            for _, raw in audit.stored(txn):
                row = _unpacked(raw)
                if row is not None:
                    yield audit.STORE, row

    def verify(self) -> AuditVerdict:
        """Check every link of every chain, and that none is shorter than its last anchor."""
        return Verifier(self._engine).run()


class Verifier:
    """One verification."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows = self._lost = self._blanked = 0
        self._bad: list[str] = []

    def run(self) -> AuditVerdict:
        """The anchors first: what is written meanwhile is past them."""
        with self._engine.store.read() as txn:
            heads = audit.heads(txn)
            self._check_store(audit.stored(txn), heads.pop(audit.STORE, None))
        found: dict[str, list[audit_log.LogFile]] = {writer: [] for writer in heads}
        for file in audit_log.files(self._engine.store.path):
            found.setdefault(file.writer, []).append(file)
        for writer in sorted(found):
            self._check_files(writer, found[writer], heads.get(writer))
        first = self._bad[0] if self._bad else None
        return AuditVerdict(first is None, self._rows, first, self._lost, self._blanked)

    def _check_store(self, rows: Iterator[tuple[int, bytes]], head: Head | None) -> None:
        link, seq = audit.NO_LINK, 0
        for number, raw in rows:
            if number != seq + 1:
                self._bad.append(f"writes: row {seq + 1} is missing")
                return
            try:
                link = self._row(raw, link, number)
            except Broken as error:
                self._bad.append(f"writes: row {number} {error}")
                return
            seq = number
        if head is not None and (head.seq, head.link) != (seq, link):
            self._bad.append(f"writes: row {min(seq, head.seq) + 1} is missing or was replaced")

    def _row(self, raw: bytes, before: bytes, seq: int) -> bytes:
        link = audit.verified(raw, before, seq)
        self._rows += 1
        self._blanked += audit.is_blanked(raw)
        return link

    def _check_files(
        self, writer: str, files: Sequence[audit_log.LogFile], head: Head | None
    ) -> None:
        link, seq, anchored = audit.NO_LINK, 0, head is None
        for place, file in enumerate(files, 1):
            name = f"{audit_log.FOLDER}/{file.path.name}"
            content = audit_log.read(file)
            try:
                header = audit_log.header_of(content, file.path)
            except StoreCorrupt as error:
                self._bad.append(f"{name}: {error}")
                return
            if file.number != place or (
                header is not None and header != audit_log.LogHeader(writer, place, seq, link)
            ):
                self._bad.append(f"{name}: row {seq + 1} is missing, with the file it was in")
                return
            end = audit_log.HEADER_BYTES
            for offset, raw in audit_log.rows_in(content):
                try:
                    link = self._row(raw, link, seq + 1)
                except Broken as error:
                    if place == len(files) and audit_log.is_unwritten(content, offset):
                        break
                    self._bad.append(f"{name}: row {seq + 1} {error}")
                    return
                seq += 1
                end = offset + len(raw)
                if head is not None and seq == head.seq:
                    anchored = link == head.link
                    if not anchored:
                        self._bad.append(f"{name}: row {seq} is not the one that was anchored")
                        return
            if end < len(content) or header is None:
                if place < len(files):
                    self._bad.append(f"{name}: row {seq + 1} is cut off")
                    return
                self._lost += 1
        if not anchored:
            self._bad.append(f"{audit_log.FOLDER}/{writer}: row {seq + 1} is missing")


def _unpacked(raw: bytes) -> audit.Row | None:
    try:
        return audit.unpack(raw)
    except Broken:
        return None


def _told(writer: str, row: audit.Row) -> AuditRow:
    who, what = row.who, row.what or What()
    ids = [format_id(what.ids[at : at + 16]) for at in range(0, len(what.ids), 16)]
    return AuditRow(
        seq=row.seq,
        writer=writer,
        at=from_micros(row.at_us),
        principal=who.principal,
        action=who.action,
        tool=what.tool or who.verb,
        transport=who.transport,
        purpose=what.purpose,
        rule=who.rule,
        ids=(*ids, *what.samples),
        where=what.where,
        count=what.count,
        outcome=who.outcome,
        query=what.query,
        blanked=row.what is None,
    )


def asked_for(given: Mapping[str, Any]) -> str | None:
    """What a call asked for, as JSON; None where it named nothing."""
    named = {name: value for name, value in given.items() if value is not None}
    if not named:
        return None
    try:
        text = msgspec.json.encode(named, enc_hook=str).decode()
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return '{"unreadable": true}'  # the call itself will be refused
    return text if len(text) <= WHERE_BYTES else '{"longer_than_bytes": ' + f"{WHERE_BYTES}}}"


def _instant(value: TimeLike, field: str, zone: Any) -> datetime:
    moment = validate.moment(value, field, zone)
    assert moment is not None
    return moment


def _make_cursor(at_us: int, writer: str, seq: int) -> str:
    packed = msgspec.msgpack.encode((at_us, writer, seq))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[int, str, int]:
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(packed, type=tuple[int, str, int])
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise InvalidArgument(
            "cursor is not one that audit.rows returned", field="cursor"
        ) from error


__all__ = [
    "Audit",
    "AuditPage",
    "AuditRow",
    "AuditVerdict",
    "Called",
    "Recorder",
    "Told",
    "asked_for",
]
