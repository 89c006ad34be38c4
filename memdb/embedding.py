"""The embedder of one database: which it is, when it is loaded, whose vectors it may join.

A database records the *spec* of its embedder (a string that finds the model again) and, with the
default space, its *identity* (whose vectors those are). Models are loaded on first use, and no
vector is stored or compared before the loaded model's identity is the space's.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memdb import settings
from memdb.errors import EmbedderMismatch, EmbedderUnavailable
from memdb.ingest import embedders
from memdb.ingest.embedders import Embedder, Identity, identity_of
from memdb.storage import spaces, tables
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Store, Writer

DEFAULT_SPACE = "default"
NONE = "none"
_OBJECT = "object:"
_KEY = b"embedder"

Given = Embedder | str | None


def checked(given: Given) -> tuple[str | None, Embedder | None]:
    """(spec, object) of what a caller passed; raises ``InvalidArgument`` before anything is made.

    The spec is None when nothing was passed. A path of a local model becomes absolute: what is
    recorded must not depend on the working directory.
    """
    if given is None:
        return None, None
    if not isinstance(given, str):
        loaded = embedders.load(given)
        return f"{_OBJECT}{given.name}", loaded
    embedders.check_spec(given)
    scheme, _, rest = given.partition(":")
    if scheme == "st" and Path(rest).expanduser().is_dir():
        return f"st:{Path(rest).expanduser().resolve()}", None
    return given, None


class Embedding:
    """What turns a database's texts into vectors; thread-safe."""

    def __init__(self, store: Store, spec: str | None, loaded: Embedder | None) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._loaded = loaded
        with store.read() as txn:
            payload = txn.get(tables.META, _KEY)
        recorded = None if payload is None else payload.decode()
        self.spec = spec or recorded or settings.DEFAULT_EMBEDDER
        if loaded is not None:
            self._require_same(loaded)
        elif recorded not in (None, self.spec) and self.spec != NONE:
            self.get()  # another name: refuse here and now if it is another model
        if not store.readonly and (recorded is None or self._replaces(recorded)):
            store.write(lambda txn: txn.put(tables.META, _KEY, self.spec.encode()))

    def _replaces(self, recorded: str) -> bool:
        """Whether the spec given is to be used from now on; "none" is for one handle only."""
        return self.spec not in (recorded, NONE)

    def accepts(self, given: Given) -> None:
        """Raise ``EmbedderMismatch`` when a further handle asks for another embedder."""
        if given is None or given is self._loaded or given in (self.spec, NONE):
            return
        _, loaded = checked(given)
        wanted = loaded or embedders.load(given)
        current = self.get()
        if wanted is not None and (current is None or identity_of(current) != identity_of(wanted)):
            raise EmbedderMismatch("this process has the database open with another embedder")

    def get(self) -> Embedder | None:
        """The embedder, loaded on first use; None for "none".

        Raises ``EmbedderUnavailable``, ``EmbedderMismatch``, ``MissingDependency``.
        """
        if self._loaded is not None or self.spec == NONE:
            return self._loaded
        with self._guard:
            if self._loaded is None:
                if self.spec.startswith(_OBJECT):
                    raise EmbedderUnavailable(
                        "the database was made with an embedder object; pass it to open",
                        hint="memdb.open(path, embedder=...) with the same object",
                    )
                loaded = embedders.load(self.spec)
                if loaded is not None:
                    self._require_same(loaded)
                self._loaded = loaded
        return self._loaded

    @property
    def loaded(self) -> Embedder | None:
        """The embedder if it has been loaded already."""
        return self._loaded

    def _require_same(self, embedder: Embedder) -> None:
        with self._store.read() as txn:
            space = spaces.find_space(txn, DEFAULT_SPACE)
        if space is not None:
            require_identity(space, identity_of(embedder))

    def embed(self, texts: list[str], role: str) -> NDArray[np.float32] | None:
        """(n, dim) float32 unit vectors of texts; None when the database embeds nothing."""
        embedder = self.get()
        if embedder is None or not texts:
            return None
        if role == "query":
            return embedders.embed_queries(embedder, texts)
        return embedders.embed_documents(embedder, texts)

    def space_for(self, dim: int) -> SpaceRecord:
        """The default space, made on the first vector, checked to be this embedder's."""
        embedder = self.get()
        return default_space(self._store, dim, None if embedder is None else identity_of(embedder))


def default_space(store: Store, dim: int, identity: Identity | None) -> SpaceRecord:
    """The default space; ``identity`` None: for vectors the caller brings."""
    with store.read() as txn:
        space = spaces.find_space(txn, DEFAULT_SPACE)
    if space is None:
        record = SpaceRecord(
            number=0,
            name=DEFAULT_SPACE,
            dim=dim,
            metric="cosine",
            profile=settings.DEFAULT_PROFILE,
            embedder=None if identity is None else identity.to_dict(),
        )

        def make(txn: Writer) -> SpaceRecord:
            return spaces.find_space(txn, DEFAULT_SPACE) or spaces.create_space(txn, record)

        space = store.write(make)
    if identity is not None:
        require_identity(space, identity)
    return space


def require_identity(space: SpaceRecord, identity: Identity) -> None:
    """Raise ``EmbedderMismatch`` unless the space holds vectors of exactly this embedder."""
    if space.embedder is None:
        raise EmbedderMismatch(
            f"the space {space.name!r} holds vectors that were brought, not embedded",
            hint="open with embedder='none', or keep your vectors in a space of their own",
        )
    stored = Identity.from_dict(space.embedder)
    if stored != identity:
        raise EmbedderMismatch(
            f"the database holds vectors of {stored.name}, not of {identity.name}"
        )
