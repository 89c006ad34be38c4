"""The nouns of memdb: what a memory is, and what the calls of the public interface return.

Values only: no input or output, no storage, no vectors' meaning. Times are timezone-aware
``datetime`` objects in UTC with microsecond resolution; the zone a time was written in is kept
beside it.

``Memory`` is a frozen, slotted ``msgspec.Struct`` rather than a dataclass: it is decoded
straight from the stored bytes in C, which is what makes a range scan of a day's events cost
about a microsecond a memory. The order of its fields is part of the storage format: append,
never reorder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import msgspec

if TYPE_CHECKING:
    import pandas
    import pyarrow

__all__ = [
    "Context",
    "ContextItem",
    "Feedback",
    "FileStatus",
    "Forgotten",
    "Hit",
    "Hits",
    "Memory",
    "Page",
    "Precision",
    "Reembedding",
    "Report",
    "Space",
    "SyncReport",
    "Trashed",
    "Why",
    "Written",
    "from_micros",
    "to_micros",
]

Precision = Literal["year", "month", "day", "minute", "exact"]
Role = Literal["fact", "earlier", "relevant", "neighbour", "recent"]
Status = Literal["inserted", "duplicate", "linked", "replaced", "superseded", "erased"]


class Memory(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One remembered thing, at one of its versions.

    ``id`` is a ULID. ``event_time`` is when it happened, ``valid_from``/``valid_to`` when it was
    true, ``recorded_at``/``retired_at`` when memdb learned it and stopped believing it.
    """

    id: str
    kind: str = "note"
    text: str | None = None
    source: str = ""
    namespace: str = "default"
    recorded_at: datetime | None = None
    event_time: datetime | None = None
    stream: str | None = None
    position: int | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    data: Any = None
    subject: str | None = None
    key: str | None = None
    about: tuple[str, ...] = ()
    external_id: str | None = None
    event_end: datetime | None = None
    time_zone: str | None = None
    precision: Precision = "exact"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    retired_at: datetime | None = None
    importance: float | None = None
    pinned: bool = False
    sensitivity: str | None = None
    derived_from: tuple[str, ...] = ()
    expires_at: datetime | None = None
    space: str | None = None
    version: int = 1
    last_used: datetime | None = None
    use_count: int = 0
    strength: float | None = None
    links: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Every field by name; times stay ``datetime``, empty fields are kept."""
        return msgspec.structs.asdict(self)

    def replace(self, **changes: Any) -> Memory:
        """A copy with some fields changed; nothing is written."""
        return msgspec.structs.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did.

    ``superseded``: it closed an older value of the same profile fact. ``linked``: it is stored, and
    ``memory.links`` names what it nearly repeats. ``erased``: nothing was written, since what had
    that external id was erased.
    """

    id: str
    status: Status
    memory: Memory


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What ``forget`` hid, and the batch under which ``restore`` brings it back."""

    batch: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trashed:
    """One batch of the trash: what was hidden when, and until when ``restore`` brings it back.

    ``expired``: nobody forgot it, its time was up; brought back, it expires no more.
    """

    batch: str
    forgotten_at: datetime
    restorable_until: datetime
    items: tuple[Memory, ...]
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Why:
    """How one hit came to its score: raw measures and each stage's contribution.

    ``stages`` are log-odds, and the score is the logistic of their plain sum. ``words`` says of
    each stage, where ``explain`` was asked for, why it added what it added.
    """

    cosine: float | None = None
    bm25: float | None = None
    terms: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """One recalled memory. ``score`` estimates, in [0, 1], that it is relevant.

    ``history``: the earlier values, oldest first, of a fact that the question named.
    """

    memory: Memory
    score: float
    why: Why
    history: tuple[Memory, ...] = ()

    @property
    def id(self) -> str:
        return self.memory.id

    @property
    def text(self) -> str | None:
        return self.memory.text

    @property
    def source(self) -> str:
        return self.memory.source

    @property
    def event_time(self) -> datetime | None:
        return self.memory.event_time

    def to_dict(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "cosine": self.why.cosine,
            "bm25": self.why.bm25,
            **self.memory.to_dict(),
        }


_JSON_FIELDS = ("data", "metadata")


def _arrow_type(pa: Any, kind: Any) -> Any:
    """The column type of a field: what an empty table has as well as a full one."""
    if kind == datetime | None:
        return pa.timestamp("us", "UTC")
    if kind == tuple[str, ...]:
        return pa.list_(pa.string())
    for plain, made in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if kind in (plain, plain | None):
            return made
    return pa.string()


class _Table:
    """``to_dicts``, ``to_arrow`` and ``to_pandas`` over ``_rows()``."""

    __slots__ = ()
    _measures: ClassVar[tuple[str, ...]] = ()  # columns of float64 before the fields of the memory

    def _rows(self) -> Iterator[dict[str, Any]]:
        raise AssertionError("a table gives its rows")

    def to_dicts(self) -> list[dict[str, Any]]:
        """One mapping a row, by the names of the columns."""
        return list(self._rows())

    def to_arrow(self) -> pyarrow.Table:
        """A column a field, the same for every result; ``data`` and ``metadata`` as JSON.

        Needs the ``[arrow]`` extra.
        """
        try:
            import pyarrow
        except ImportError as error:
            from memdb.errors import MissingDependency

            raise MissingDependency("to_arrow needs pyarrow", extra="arrow") from error
        rows = self.to_dicts()
        for row in rows:
            for name in _JSON_FIELDS:
                if row.get(name) is not None:
                    row[name] = msgspec.json.encode(row[name]).decode()
        columns = [pyarrow.field(name, pyarrow.float64()) for name in self._measures]
        columns += [
            pyarrow.field(field.name, _arrow_type(pyarrow, field.type))
            for field in msgspec.structs.fields(Memory)
        ]
        return pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(columns))

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with the columns of ``to_dicts``. Needs pandas."""
        try:
            import pandas
        except ImportError as error:
            from memdb.errors import MissingDependency

            raise MissingDependency(
                "to_pandas needs pandas", extra="arrow", hint="pip install pandas"
            ) from error
        names = [*self._measures, *Memory.__struct_fields__]
        return pandas.DataFrame(self.to_dicts(), columns=names)


@dataclass(frozen=True, slots=True)
class Hits(_Table, Sequence[Hit]):
    """The answer of ``recall``: hits, best first, with how they were found.

    ``confidence``: an estimate in [0, 1] that the answer is there at all, by how far the best
    stands out; None where words take no part.
    """

    _measures: ClassVar[tuple[str, ...]] = ("score", "cosine", "bm25")
    items: tuple[Hit, ...]
    search_id: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    degraded: str | None = None
    confidence: float | None = None

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (hit.to_dict() for hit in self.items)


@dataclass(frozen=True, slots=True)
class Page(_Table):
    """One page of ``list``; ``next_cursor`` is None on the last one."""

    items: tuple[Memory, ...]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Memory]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (memory.to_dict() for memory in self.items)


@dataclass(frozen=True, slots=True)
class ContextItem:
    """One memory that ``context`` looked at.

    ``role``: what it is there for: a "fact" that the question names, its "earlier" value, a
    memory found "relevant", the "neighbour" of one in its stream, or something "recent".
    ``score`` is that of the hit, where it was one. ``reason``: why it was left out; None for what
    was packed.
    """

    memory: Memory
    role: Role
    score: float | None = None
    reason: str | None = None

    @property
    def id(self) -> str:
        return self.memory.id

    @property
    def text(self) -> str | None:
        return self.memory.text

    @property
    def source(self) -> str:
        return self.memory.source

    @property
    def event_time(self) -> datetime | None:
        return self.memory.event_time


@dataclass(frozen=True, slots=True)
class Context:
    """What ``context`` packed: text for an agent, at most the budget by ``counter``."""

    text: str
    items: tuple[ContextItem, ...]
    dropped: tuple[ContextItem, ...]
    tokens: int
    counter: str
    search_id: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Feedback:
    """What ``feedback`` recorded: the ids whose use counted, and those where one had lately."""

    search_id: str
    counted: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything known under a selector, and what ``erase`` of it would reach.

    ``items`` is what reads show, ``hidden`` what they do not: in the trash, or expired. ``derived``
    was inferred from those. ``mentions`` only name a person in their words: ``erase`` leaves them,
    for the owner to decide. ``counts``: what would go, by kind; ``snapshots``: where copies lie.
    """

    items: tuple[Memory, ...]
    derived: tuple[Memory, ...]
    mentions: tuple[Memory, ...]
    hidden: tuple[Memory, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    snapshots: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many memories would go: what ``erase`` takes as ``confirm_count``."""
        return len(self.items) + len(self.hidden) + len(self.derived)


@dataclass(frozen=True, slots=True)
class Space:
    """One embedding space. ``embedder`` is None for vectors the caller brings. ``replaces``: the
    space whose place it takes once ``reembed`` has filled it."""

    name: str
    dim: int
    metric: str
    profile: str
    embedder: str | None
    vectors: int
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Reembedding:
    """Texts embedded again by another model: ``done`` of ``total``.

    ``state``: "running" while the space before answers; "ending" when the new one does and what is
    left of the other is cleared away; "done". ``kept``: vectors of memories without text, which no
    model can make again; they stay where they are, which is called ``space`` afterwards.
    ``waiting``: why it does not go on, such as a model that cannot be loaded.
    """

    embedder: str
    state: Literal["running", "ending", "done"]
    done: int
    total: int
    kept: int = 0
    space: str | None = None
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What became of one file under ``files.sync``."""

    path: str
    state: Literal["indexed", "skipped", "failed"]
    reason: str | None = None
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one ``files.sync`` changed, as paths relative to the synced root."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[FileStatus, ...] = ()
    unchanged: int = 0


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of an aware ``datetime``; negative before it."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC ``datetime`` at ``micros`` microseconds since 1970-01-01 UTC."""
    return _EPOCH + timedelta(0, micros // 1_000_000, micros % 1_000_000)
