"""``Database``: the one object a user holds. Names, defaults and wiring; the work is elsewhere.

A handle has a namespace and a source for what its calls do not name. Handles on one directory in
one process share an ``Engine``. Page by page: ``writer`` and ``rows`` write, ``reader`` selects,
``recall`` and ``asking`` answer, ``profile``, ``history``, ``files`` and ``spaces`` are its faces,
``forgetting`` and ``upkeep`` have the verbs that forget and keep house, ``maintenance`` works in
the background.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from memdb import sharing, validate
from memdb.admin import Admin
from memdb.asking import Asking
from memdb.batches import batches_of
from memdb.engine import Engine
from memdb.erasure import Eraser
from memdb.errors import InvalidArgument, NotFound
from memdb.files import Files
from memdb.forgetting import Forgetting
from memdb.history import History
from memdb.pauses import collection_paused
from memdb.profile import Profile
from memdb.progress import Progress, reporting
from memdb.reader import MemoryReader
from memdb.recall import Recaller
from memdb.retention.face import Retention
from memdb.settings_store import Settings
from memdb.sharing import Shared
from memdb.spaces import Spaces
from memdb.storage.ids import require_id
from memdb.storage.series import SeriesKey
from memdb.storage.series_codec import Sample
from memdb.types import Hits, Memory, Page, Written
from memdb.upkeep import Upkeep
from memdb.validate import Draft, TimeLike
from memdb.writer import MemoryWriter, with_changes

if TYPE_CHECKING:
    from memdb.access.acting import Acting
    from memdb.access.auditing import Audit
    from memdb.access.grant import Principal
    from memdb.access.tokens import Tokens

Mode = Literal["vector", "lexical", "hybrid"]
OnConflict = Literal["error", "replace", "skip"]
Dedup = Literal["exact", "near", "off"]
TimeUse = Literal["boost", "filter", "off"]


class Database(Asking, Forgetting, Upkeep):
    """One person's memory. Open it with ``memdb.open``; use it from any thread.

    Every method raises a ``memdb.MemdbError`` with a ``hint`` when it cannot do what was asked.
    """

    def __init__(
        self, shared: Shared, *, namespace: str, source: str, view: Engine | None = None
    ) -> None:
        whole = shared.engine
        engine = whole if view is None else view
        self._shared = shared
        self._engine = engine  # what is read through: a grant may limit it
        self._namespace = namespace  # where writes go
        self._reads = namespace  # what reads cover when they name nothing
        self._acts = namespace  # where memories are forgotten and erased
        self._source = source
        self._closed = False
        self._guard = threading.Lock()
        self._reader = MemoryReader(engine)
        self._writer = MemoryWriter(whole, engine)
        self._recaller = Recaller(engine, self._reader)
        self._maintenance = shared.maintenance
        self._eraser = Eraser(engine, self._reader)
        self._admin = Admin(engine, self._reader, self._writer, self._maintenance)
        self.profile = Profile(self)
        self.history = History(self)
        self.files = Files(self)
        self.spaces = Spaces(engine, self._maintenance)
        self.settings = Settings(whole)
        self.retention = Retention(whole, self._maintenance, self._writer)
        self._maintenance.notify()  # what others left behind, if nobody is at it

    # --- writing ------------------------------------------------------------------------

    def remember(
        self,
        text: str | None = None,
        *,
        data: Any = None,
        source: str | None = None,
        external_id: str | None = None,
        kind: str = "note",
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        namespace: str | None = None,
        stream: str | None = None,
        position: int | None = None,
        subject: str | None = None,
        key: str | None = None,
        about: Sequence[str] = (),
        event_time: TimeLike | None = None,
        event_end: TimeLike | None = None,
        valid_from: TimeLike | None = None,
        valid_to: TimeLike | None = None,
        importance: float | None = None,
        pinned: bool = False,
        sensitivity: str | None = None,
        derived_from: Sequence[str] = (),
        expires_at: TimeLike | None = None,
        expires_in: Any = None,
        vector: Any = None,
        space: str | None = None,
        on_conflict: OnConflict = "error",
        dedup: Dedup = "exact",
    ) -> Written:
        """Remember one thing; durable and visible to every process when this returns.

        One of ``text``, ``data`` and ``vector`` is needed. ``external_id`` is your own id, unique
        in its namespace; ``on_conflict`` says what happens when it exists: "error" raises
        ``Conflict``, "replace" writes a new version, "skip" keeps the stored one. With
        ``dedup="exact"`` the same content in the same namespace is stored once; "near" also takes
        what says the same words for it, and links what is nearly the same (``memory.links``).
        """
        fields = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "on_conflict", "dedup")
        }
        draft = self._draft(fields)
        (written,) = self._write([draft], on_conflict=on_conflict, dedup=dedup)
        return written

    def remember_many(
        self,
        items: Iterable[Mapping[str, Any] | str],
        *,
        batch: int = 1024,
        progress: Progress = None,
        on_conflict: OnConflict = "error",
        dedup: Dedup = "exact",
    ) -> list[Written]:
        """Remember many; each batch is one durable transaction.

        An item is the keyword arguments of ``remember`` as a mapping, or a text; of a list, the
        next batch is checked in another thread while one is committed. ``progress`` is
        True (a bar on a terminal) or a callable of (done, total or None). An error in one batch
        leaves the batches before it written.
        """
        validate.integer(batch, "batch", 1, 1 << 16)
        written: list[Written] = []
        total = len(items) if isinstance(items, Sequence) else None
        batch = self._engine.admission.rows_at_once(batch)
        with (
            reporting(progress, total, "remembering") as report,
            closing(batches_of(items, batch, self._checker)) as batches,
        ):
            for one in batches:
                with self._maintenance.importing(), collection_paused():
                    written.extend(
                        self._write(
                            one.drafts(),
                            on_conflict=on_conflict,
                            dedup=dedup,
                            committing=one.begin_next,
                        )
                    )
                report(len(written))
        return written

    def update(self, /, id: str, **fields: Any) -> Written:
        """Change fields of a memory; the version before stays under ``versions``.

        Raises ``NotFound``, ``InvalidArgument``, ``Conflict`` (it changed meanwhile).
        """
        done = self._writer.update(self._seen(id), fields, self._redraft)
        self._maintenance.notify()
        return done

    def _write(
        self,
        drafts: Sequence[Draft],
        *,
        on_conflict: str = "error",
        dedup: str = "exact",
        committing: Callable[[], None] | None = None,
    ) -> builtins.list[Written]:
        written = self._writer.insert(
            drafts, on_conflict=on_conflict, dedup=dedup, committing=committing
        )
        self._maintenance.notify()
        return written

    def _draft(self, fields: Mapping[str, Any]) -> Draft:
        return self._checker()(fields)

    def _draft_of_file(self, fields: Mapping[str, Any]) -> Draft:
        """Of a part of a file, whose source is the file."""
        return self._draft(fields)

    def _redraft(self, old: Memory, fields: Mapping[str, Any]) -> Draft:
        """What ``old`` becomes with ``fields`` changed, checked."""
        return self._draft(with_changes(old, fields))

    def _checker(self) -> Callable[[Mapping[str, Any]], Draft]:
        """What checks the fields of a ``remember`` at this moment."""
        engine = self._engine
        zone, now = engine.zone, engine.now()

        def check(fields: Mapping[str, Any]) -> Draft:
            if not isinstance(fields, Mapping):
                raise InvalidArgument("an item must be a mapping or a string", field="items")
            return validate.draft(
                fields,
                zone=zone,
                now=now,
                default_namespace=self._namespace,
                default_source=self._source,
            )

        return check

    # --- reading ------------------------------------------------------------------------

    def get(
        self,
        id: str | None = None,
        *,
        as_of: TimeLike | None = None,
        external_id: str | None = None,
        namespace: str | None = None,
    ) -> Memory | None:
        """The memory of that id (or your own ``external_id``), or None.

        ``as_of``: the version memdb held for true then.
        """
        if (id is None) == (external_id is None):
            raise InvalidArgument("name either id or external_id", field="id")
        if external_id is not None:
            validate.string(external_id, "external_id")
            return self._reader.by_external_id(self._one_namespace(namespace), external_id)
        moment = self._moment(as_of)
        return self._reader.get(self._read_namespace(namespace), str(id), moment)

    def get_many(self, ids: Sequence[str]) -> list[Memory | None]:
        """The memories of those ids, in their order; None where there is none."""
        return self._reader.get_many(self._reads, ids)

    def __getitem__(self, id: str) -> Memory:
        memory = self.get(id)
        if memory is None:
            raise NotFound("no memory has that id")
        return memory

    def versions(self, id: str) -> list[Memory]:
        """Every version of a memory, oldest first, the current one last."""
        return self._reader.versions(self._reads, id)

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """How many memories pass the filter; exact.

        Samples of a series are not among them: ``stats()["series"]`` has their number.
        """
        return self._reader.count(self._reads, where)

    def iter(self, where: Mapping[str, Any] | None = None) -> Iterator[Memory]:
        """Every memory that passes the filter, in the order written."""
        return self._reader.iterate(self._reads, where)

    def list(
        self,
        where: Mapping[str, Any] | None = None,
        order_by: str = "event_time",
        descending: bool = True,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """One page in time order; pass its ``next_cursor`` for the next."""
        return self._reader.page(
            self._reads,
            where,
            order_by=order_by,
            descending=descending,
            limit=limit,
            cursor=cursor,
        )

    def values(
        self, field: str, where: Mapping[str, Any] | None = None
    ) -> builtins.list[tuple[Any, int]]:
        """Each value of a field with how many memories have it, most frequent first.

        Pairs, not a dict: True and 1 are two values of ``metadata`` and one key of a dict.
        """
        return self._reader.values(self._reads, field, where)

    def namespaces(self) -> Sequence[str]:
        """The namespaces that hold memories, within this handle's."""
        return self._reader.namespaces(self._reads)

    # --- recall -------------------------------------------------------------------------

    def recall(
        self,
        query: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        *,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
        space: str | None = None,
        vector: Any = None,
        min_score: float | None = None,
        exact: bool = False,
        explain: bool = False,
        stages: Mapping[str, bool] | None = None,
        time: TimeUse = "boost",
        rerank: Any = None,
        min_confidence: float | None = None,
    ) -> Hits:
        """The k memories that answer ``query`` best, best first.

        Exactly min(k, matches) of them, at every selectivity of ``where``. ``as_of`` asks for what
        was true then. ``vector`` replaces the query's embedding; ``space`` names where to look for
        it. ``min_score`` (of ``hit.score``, in [0, 1]) leaves out single memories; below
        ``min_confidence`` (of ``hits.confidence``, in [0, 1]) there is none: "I do not know".
        ``stages`` switches stages of the ranking on or off by name: ``{"neighbours": False}``.
        ``time`` says what a time that the question names does ("last March", "before the trip"):
        "boost" prefers memories of then, "filter" takes no others, "off" leaves it to the words.
        ``rerank`` has a cross-encoder read the best 32 again: "st:NAME", "st:/path" (needs the
        extra [text]), or an object whose ``predict(pairs)`` gives log-odds.
        """
        question = self._recaller.check(
            query,
            k=k,
            where=where,
            mode=mode,
            as_of=as_of,
            namespace=self._read_namespace(namespace),
            space=space,
            vector=vector,
            min_score=min_score,
            exact=exact,
            explain=explain,
            stages=stages,
            time=time,
            rerank=rerank,
            min_confidence=min_confidence,
        )
        return self._recaller.recall(question)

    def recall_within(
        self,
        radius: float,
        *,
        query: str | None = None,
        vector: Any = None,
        where: Mapping[str, Any] | None = None,
        namespace: str | None = None,
        space: str | None = None,
    ) -> Hits:
        """Every memory at distance <= ``radius`` of the query's vector, closest first."""
        return self._recaller.within(
            radius,
            query=query,
            vector=vector,
            where=where,
            namespace=self._read_namespace(namespace),
            space=space,
        )

    # --- who may know what ----------------------------------------------------------------

    def acting(
        self,
        principal: Principal,
        *,
        purpose: str | None = None,
        transport: str = "library",
        tool: str | None = None,
    ) -> Acting:
        """This database as ``principal`` may have it: the same verbs, within its grant, each told
        in the audit with the ``purpose``, the ``transport`` and the ``tool`` named here.

        Costs next to nothing: make one for each request. Raises ``InvalidArgument``.
        """
        from memdb.access.acting import Acting

        return Acting(
            self,
            self._shared.access,
            principal,
            purpose=purpose,
            transport=transport,
            tool=tool,
        )

    @property
    def tokens(self) -> Tokens:
        """Capability tokens: who may act on the database, and how."""
        return self._shared.access.tokens

    @property
    def audit(self) -> Audit:
        """What principals did, and whether that was tampered with."""
        return self._shared.access.audit

    # --- the handle ---------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The database directory."""
        return self._engine.store.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop background work and let go of the files. Idempotent."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        sharing.release(self._shared)

    def __repr__(self) -> str:
        return f"memdb.open({str(self.path)!r}, namespace={self._namespace!r})"

    def _seen(self, id: str) -> str:
        """``id`` if this handle may see it; ``NotFound`` otherwise."""
        require_id(id)
        self[id]
        return id

    def _read_namespace(self, namespace: str | None) -> str:
        return self._reads if namespace is None else validate.namespace(namespace)

    def _one_namespace(self, namespace: str | None) -> str:
        """The one namespace in which something is looked up by its name."""
        path = self._namespace if namespace is None else validate.namespace(namespace)
        if not path:
            raise InvalidArgument("namespace must name one namespace here", field="namespace")
        return path

    def _write_namespace(self, namespace: str | None) -> str:
        """The one namespace that a write goes to."""
        return self._one_namespace(namespace)

    def _write_source(self, source: str | None) -> str:
        return self._source if source is None else source

    def _require_samples(self, key: SeriesKey, samples: Sequence[Sample]) -> None:
        """Where a grant limits what is written, samples are checked here."""

    def _moment(self, as_of: TimeLike | None) -> Any:
        return None if as_of is None else validate.instant_of(as_of, "as_of", self._engine.zone)
