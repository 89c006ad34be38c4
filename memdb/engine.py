"""Everything one open database shares among its handles and threads.

An ``Engine`` joins the store with the filter index, the postings, the spaces' vectors and the
embedder, and gives ``Database`` and its faces (profile, history, files) the few things they all
need: snapshots, live rows, the current time. Handles differ in namespace and source only; there
is one engine a database directory and process.
"""

from __future__ import annotations

import threading
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Protocol

import msgspec
from pyroaring import BitMap

from memdb.embedding import DEFAULT_SPACE, Embedding, Given, checked
from memdb.errors import (
    Conflict,
    NotFound,
)
from memdb.query.analyser import Analyser
from memdb.space_vectors import SpaceVectors
from memdb.storage import postings, spaces, tables
from memdb.storage.blobs import BlobStore
from memdb.storage.filters import FilterIndex
from memdb.storage.ids import IdMaker
from memdb.storage.postings import Analysed
from memdb.storage.records import Records
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Store, Writer
from memdb.times import Clock, SystemClock, load_zone, local_zone
from memdb.types import Memory, to_micros

_ANALYSE_TOGETHER = 16
_SETTINGS_KEY = b"settings"
LIVE = "live"
HIDDEN = "hidden"
RETIRED = "retired"


class Admission(Protocol):
    """Who is asked before a write whether there is room for it."""

    def admit(self, rows: int, content_bytes: int) -> None:
        """Returns when there is; raises ``BudgetExceeded`` when there will not be. Not to be called
        inside a transaction."""
        ...

    def rows_at_once(self, wanted: int) -> int:
        """How many of ``wanted`` rows one transaction should bring."""
        ...


class Unlimited:
    """There is always room."""

    def admit(self, rows: int, content_bytes: int) -> None:
        pass

    def rows_at_once(self, wanted: int) -> int:
        return wanted


class Engine:
    """The shared state of one open database; thread-safe. Made by ``open_engine``."""

    def __init__(
        self,
        path: Path,
        *,
        embedder: Given,
        readonly: bool,
        create: bool,
        memory_budget: int,
        clock: Clock | None,
    ) -> None:
        spec, loaded = checked(embedder)
        self.store = Store.open(path, readonly=readonly, create=create)
        try:
            self.clock: Clock = clock or SystemClock()
            self.memory_budget = memory_budget
            self.blobs = BlobStore(self.store.path, self.store.digest(b"blobs", 32))
            self.records = Records(self.blobs)
            self.filters = FilterIndex()
            self.analyser = Analyser()
            self.new_id = IdMaker()
            self._guard = threading.Lock()
            self._vectors: dict[int, SpaceVectors] = {}
            self.embedding = Embedding(self.store, spec, loaded)
            self._live: tuple[int, BitMap] | None = None
            self._subtrees: dict[str, tuple[int, BitMap]] = {}
            self._zone: tuple[int, tzinfo] | None = None
            self.admission: Admission = Unlimited()
            self._extents: dict[str, tuple[int, tuple[int, int] | None]] = {}
            self._named: dict[str, tuple[int, SpaceRecord | None]] = {}
        except BaseException:
            self.store.close()
            raise

    def require_compatible(self, embedder: Given, *, readonly: bool, clock: Clock | None) -> None:
        """Raise ``Conflict`` when a further handle asks for another engine than this one."""
        if self.store.readonly and not readonly:
            raise Conflict("this process has the database open read-only already")
        if clock is not None and clock is not self.clock:
            raise Conflict("this process has the database open with another clock")
        self.embedding.accepts(embedder)

    def analyse(self, texts: list[str]) -> list[Analysed]:
        """The index terms of texts, hashed with the store's key."""
        digest = self.store.digest
        if len(texts) < _ANALYSE_TOGETHER:
            return [self.analyser.analyse(text, digest) for text in texts]
        return self.analyser.analyse_many(texts, digest)

    # --- spaces -------------------------------------------------------------------------

    def space_named(self, txn: Reader | Writer, name: str | None) -> SpaceRecord | None:
        return self._find_space(txn, name or DEFAULT_SPACE)

    def _find_space(self, txn: Reader | Writer, name: str) -> SpaceRecord | None:
        if isinstance(txn, Writer):  # what is not committed must not be remembered
            return spaces.find_space(txn, name)
        cached = self._named.get(name)
        if cached is None or cached[0] != txn.state.layout_seq:
            if len(self._named) > 64:
                self._named.clear()
            cached = self._named[name] = (txn.state.layout_seq, spaces.find_space(txn, name))
        return cached[1]

    def require_space(self, txn: Reader | Writer, name: str) -> SpaceRecord:
        space = self._find_space(txn, name)
        if space is None:
            raise NotFound(
                "there is no space of that name", hint="create it with db.spaces.create(...)"
            )
        return space

    def vectors(self, space: SpaceRecord) -> SpaceVectors:
        """The open vectors of a space."""
        with self._guard:
            opened = self._vectors.get(space.number)
            if opened is None:
                opened = SpaceVectors(self.store, self.filters, space)
                self._vectors[space.number] = opened
            return opened

    def close_space(self, number: int) -> None:
        with self._guard:
            opened = self._vectors.pop(number, None)
        if opened is not None:
            opened.close()

    # --- who looks ----------------------------------------------------------------------
    # A ``memdb.access.view.View`` stands in for an engine where a grant limits what is seen, and
    # answers these otherwise. Whoever reads asks its engine, and so cannot forget the grant.

    granted = False  # whether a grant limits what is seen
    unsure: frozenset[str] = frozenset()  # fields that only a look at the memory decides

    @property
    def whole(self) -> Engine:
        """The engine with everything in it, to write with."""
        return self

    def seen(self, txn: Reader | Writer, rows: BitMap) -> BitMap:
        """Those of ``rows``, live or not, that may be seen; do not change it."""
        return rows

    def shows(self, memory: Memory) -> bool:
        """Whether a memory that has no current row (an earlier version, a sample) may be seen."""
        return True

    def shown(self, txn: Reader | Writer, memory: Memory) -> Memory:
        """A memory that may be seen, without what it tells of others that may not."""
        return memory

    def visible(self, txn: Reader | Writer, now: datetime) -> BitMap | None:
        """All that may be seen and so be counted; None: whatever is stored."""
        return None

    def documents(self, txn: Reader | Writer, now: datetime) -> int:
        """How many rows have words, of those that may be counted."""
        return postings.stats(txn).docs

    # --- rows ---------------------------------------------------------------------------

    def live(self, txn: Reader | Writer) -> BitMap:
        """Rows that are current, not forgotten and not retired; do not change it."""
        if isinstance(txn, Writer):  # what is not committed must not be remembered
            return self.filters.get_set(txn, LIVE)
        cached = self._live
        if cached is not None and cached[0] == txn.state.content_seq:
            return cached[1]
        rows = self.filters.logged_set(txn, LIVE)
        self._live = (txn.state.content_seq, rows)
        return rows

    def subtree(self, txn: Reader | Writer, namespace: str) -> BitMap:
        """Live rows in a namespace and everything under it; do not change it."""
        if not namespace:
            return self.live(txn)
        if isinstance(txn, Writer):
            return self.live(txn) & self.filters.subtree(txn, namespace)
        cached = self._subtrees.get(namespace)
        if cached is not None and cached[0] == txn.state.content_seq:
            return cached[1]
        rows = self.live(txn) & self.filters.subtree(txn, namespace)
        if len(self._subtrees) > 64:
            self._subtrees.clear()
        self._subtrees[namespace] = (txn.state.content_seq, rows)
        return rows

    def unexpired(self, txn: Reader | Writer, rows: BitMap, now: datetime) -> BitMap:
        """``rows`` without those whose ``expires_at`` has come."""
        times = self._times(txn, "expires_at")
        if times is None or to_micros(now) < times[0]:
            return rows
        gone = self.filters.range(txn, "expires_at", None, to_micros(now), include_high=True)
        return rows - gone if gone else rows

    def valid_at(self, txn: Reader | Writer, rows: BitMap, moment: datetime) -> BitMap:
        """``rows`` whose validity interval holds ``moment``; an open end always does."""
        micros = to_micros(moment)
        ends, begins = self._times(txn, "valid_to"), self._times(txn, "valid_from")
        if ends is not None and ends[0] <= micros:
            rows = rows - self.filters.range(txn, "valid_to", None, micros, include_high=True)
        if begins is not None and micros < begins[1]:
            rows = rows - self.filters.range(txn, "valid_from", micros, None, include_low=False)
        return rows

    def _times(self, txn: Reader | Writer, field: str) -> tuple[int, int] | None:
        """The least and the greatest time of a field, most often none or far away."""
        if isinstance(txn, Writer):
            return self.filters.times_extent(txn, field)
        cached = self._extents.get(field)
        if cached is None or cached[0] != txn.state.content_seq:
            found = self.filters.times_extent(txn, field)
            cached = self._extents[field] = (txn.state.content_seq, found)
        return cached[1]

    # --- settings -----------------------------------------------------------------------

    def now(self) -> datetime:
        return self.clock.now()

    def stored_settings(self, txn: Reader | Writer) -> dict[str, Any]:
        payload = txn.get(tables.META, _SETTINGS_KEY)
        return {} if payload is None else msgspec.msgpack.decode(payload)

    def change_setting(self, name: str, value: Any) -> None:
        def change(txn: Writer) -> None:
            stored = self.stored_settings(txn)
            stored[name] = value
            txn.put(tables.META, _SETTINGS_KEY, msgspec.msgpack.encode(stored))
            txn.layout_moved()

        self.store.write(change)
        self._zone = None

    @property
    def zone(self) -> tzinfo:
        """The database's time zone, in which naive times are read; the system's by default."""
        with self.store.read() as txn:
            return self.zone_in(txn)

    def zone_in(self, txn: Reader | Writer) -> tzinfo:
        """``zone`` as a snapshot has it."""
        cached = self._zone
        if cached is None or cached[0] != txn.state.layout_seq:
            name = self.stored_settings(txn).get("time_zone")
            found = local_zone() if name is None else load_zone(name)
            cached = self._zone = (txn.state.layout_seq, found)
        return cached[1]

    def close(self) -> None:
        for opened in self._vectors.values():
            opened.close()
        self._vectors.clear()
        self.store.close()
