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
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import settings
from memdb.errors import (
    Conflict,
    EmbedderMismatch,
    EmbedderUnavailable,
    NotFound,
)
from memdb.ingest import embedders
from memdb.ingest.embedders import Embedder, Identity, identity_of
from memdb.query.analyser import Analyser
from memdb.space_vectors import SpaceVectors
from memdb.storage import spaces, tables
from memdb.storage.blobs import BlobStore
from memdb.storage.filters import FilterIndex
from memdb.storage.ids import IdMaker
from memdb.storage.postings import Analysed
from memdb.storage.records import Records
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Store, Writer
from memdb.times import Clock, SystemClock, load_zone, local_zone
from memdb.types import to_micros

DEFAULT_SPACE = "default"
_ANALYSE_TOGETHER = 16
_EMBEDDER_KEY = b"embedder"
_SETTINGS_KEY = b"settings"
LIVE = "live"
HIDDEN = "hidden"
RETIRED = "retired"


class Engine:
    """The shared state of one open database; thread-safe. Made by ``open_engine``."""

    def __init__(
        self,
        path: Path,
        *,
        embedder: Embedder | str | None,
        readonly: bool,
        create: bool,
        memory_budget: int,
        clock: Clock | None,
    ) -> None:
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
            self._embedder: Embedder | None = None
            self._embedder_spec = self._settle_embedder(embedder)
            self._live: tuple[int, BitMap] | None = None
            self._subtrees: dict[str, tuple[int, BitMap]] = {}
            self._zone: tuple[int, tzinfo] | None = None
        except BaseException:
            self.store.close()
            raise

    def require_compatible(
        self, embedder: Embedder | str | None, *, readonly: bool, clock: Clock | None
    ) -> None:
        """Raise ``Conflict`` when a further handle asks for another engine than this one."""
        if self.store.readonly and not readonly:
            raise Conflict("this process has the database open read-only already")
        if clock is not None and clock is not self.clock:
            raise Conflict("this process has the database open with another clock")
        if embedder is None or embedder is self._embedder or embedder == self._embedder_spec:
            return
        wanted = embedders.load(embedder)
        if wanted is not None:
            self._check_identity(wanted)

    # --- embedding ----------------------------------------------------------------------

    def _settle_embedder(self, given: Embedder | str | None) -> str:
        """Which embedder this database uses; records it when the database is new."""
        with self.store.read() as txn:
            payload = txn.get(tables.META, _EMBEDDER_KEY)
        recorded = None if payload is None else payload.decode()
        if given is None:
            spec = recorded or settings.DEFAULT_EMBEDDER
        elif isinstance(given, str):
            spec = given
        else:
            self._embedder = embedders.load(given)
            spec = f"object:{given.name}"
        if recorded is None and not self.store.readonly:
            self._check_spec(spec)

            def record(txn: Writer) -> None:
                if txn.get(tables.META, _EMBEDDER_KEY) is None:
                    txn.put(tables.META, _EMBEDDER_KEY, spec.encode())

            self.store.write(record)
        elif recorded is not None and spec != recorded and spec != "none":
            self._embedder_spec = spec
            self.embedder()  # raises EmbedderMismatch when the vectors would differ
        return spec

    @staticmethod
    def _check_spec(spec: str) -> None:
        """A new database must not record an embedder that cannot be meant."""
        if not spec.startswith("object:"):
            embedders.check_spec(spec)

    def embedder(self) -> Embedder | None:
        """The embedder, loaded on first use; None for "none".

        Raises ``EmbedderUnavailable``, ``EmbedderMismatch``, ``MissingDependency``.
        """
        if self._embedder is None and self._embedder_spec != "none":
            with self._guard:
                if self._embedder is None:
                    if self._embedder_spec.startswith("object:"):
                        raise EmbedderUnavailable(
                            "the database was made with an embedder object; pass it to open",
                            hint="memdb.open(path, embedder=...) with the same object",
                        )
                    loaded = embedders.load(self._embedder_spec)
                    self._check_identity(loaded)
                    self._embedder = loaded
        elif self._embedder is not None and not self._vectors:
            self._check_identity(self._embedder)
        return self._embedder

    def _check_identity(self, embedder: Embedder | None) -> None:
        if embedder is None:
            return
        with self.store.read() as txn:
            space = spaces.find_space(txn, DEFAULT_SPACE)
        if space is None or space.embedder is None:
            return
        stored = Identity.from_dict(space.embedder)
        given = identity_of(embedder)
        if given != stored:
            raise EmbedderMismatch(
                f"the database holds vectors of {stored.name}, not of {given.name}"
            )

    def analyse(self, texts: list[str]) -> list[Analysed]:
        """The index terms of texts, hashed with the store's key."""
        digest = self.store.digest
        if len(texts) < _ANALYSE_TOGETHER:
            return [self.analyser.analyse(text, digest) for text in texts]
        return self.analyser.analyse_many(texts, digest).split()

    def embed(self, texts: list[str], role: str) -> NDArray[np.float32] | None:
        """(n, dim) float32 unit vectors of texts; None when the database embeds nothing."""
        embedder = self.embedder()
        if embedder is None or not texts:
            return None
        if role == "query":
            return embedders.embed_queries(embedder, texts)
        return embedders.embed_documents(embedder, texts)

    # --- spaces -------------------------------------------------------------------------

    def space_named(self, txn: Reader | Writer, name: str | None) -> SpaceRecord | None:
        return spaces.find_space(txn, name or DEFAULT_SPACE)

    def require_space(self, txn: Reader | Writer, name: str) -> SpaceRecord:
        space = spaces.find_space(txn, name)
        if space is None:
            raise NotFound(
                "there is no space of that name", hint="create it with db.spaces.create(...)"
            )
        return space

    def default_space(self, dim: int, identity: Identity | None) -> SpaceRecord:
        """The default space, made on the first vector."""
        with self.store.read() as txn:
            space = spaces.find_space(txn, DEFAULT_SPACE)
        if space is not None:
            return space

        def make(txn: Writer) -> SpaceRecord:
            return spaces.find_space(txn, DEFAULT_SPACE) or spaces.create_space(
                txn,
                SpaceRecord(
                    number=0,
                    name=DEFAULT_SPACE,
                    dim=dim,
                    metric="cosine",
                    profile=settings.DEFAULT_PROFILE,
                    embedder=None if identity is None else identity.to_dict(),
                ),
            )

        return self.store.write(make)

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

    # --- rows ---------------------------------------------------------------------------

    def live(self, txn: Reader | Writer) -> BitMap:
        """Rows that are current, not forgotten and not retired; do not change it."""
        if isinstance(txn, Writer):  # what is not committed must not be remembered
            return self.filters.get_set(txn, LIVE)
        cached = self._live
        if cached is not None and cached[0] == txn.state.content_seq:
            return cached[1]
        rows = self.filters.get_set(txn, LIVE)
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
        gone = self.filters.range(txn, "expires_at", None, to_micros(now), include_high=True)
        return rows - gone if gone else rows

    def valid_at(self, txn: Reader | Writer, rows: BitMap, moment: datetime) -> BitMap:
        """``rows`` whose validity interval holds ``moment``; an open end always does."""
        micros = to_micros(moment)
        over = self.filters.range(txn, "valid_to", None, micros, include_high=True)
        early = self.filters.range(txn, "valid_from", micros, None, include_low=False)
        if over:
            rows = rows - over
        return rows - early if early else rows

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
            sequence = txn.state.layout_seq
            if self._zone is None or self._zone[0] != sequence:
                name = self.stored_settings(txn).get("time_zone")
                self._zone = (sequence, local_zone() if name is None else load_zone(name))
        return self._zone[1]

    def close(self) -> None:
        for opened in self._vectors.values():
            opened.close()
        self._vectors.clear()
        self.store.close()
