"""The embedders of one database: which it has, when they are loaded, whose vectors they may join.

A database records the *spec* of its embedder (a string that finds the model again) and, with each
space of embedded texts, its *identity* (whose vectors those are). Models are loaded on first use,
and no vector is stored or compared before the loaded model's identity is the space's. While texts
are embedded again there are two: the recorded one, which answers, and that of the space being
filled. When that takes the other's place the record changes, and every process follows.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memdb import reembed_job, settings
from memdb.errors import Conflict, EmbedderMismatch, EmbedderUnavailable, MissingDependency
from memdb.ingest import embedders
from memdb.ingest.embedders import Embedder, Identity, identity_of
from memdb.storage import spaces, tables
from memdb.storage.environment import ReadTxn
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Store, Writer

DEFAULT_SPACE = "default"
NONE = "none"
_OBJECT = "object:"
_KEY = b"embedder"
_LOADS_AFTER = 8  # writes

Given = Embedder | str | None


class SpaceReplaced(Conflict):
    """What was embedded is for a space that is not the default one any more: embed it again."""

    default_hint = "write it again"


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


def record(txn: Writer, spec: str) -> None:
    """Make ``spec`` the database's embedder."""
    txn.put(tables.META, _KEY, spec.encode())
    txn.layout_moved()


def _recorded(txn: ReadTxn) -> str | None:
    payload = txn.get(tables.META, _KEY)
    return None if payload is None else payload.decode()


class _Seen(NamedTuple):
    """What a snapshot says, as of one ``layout_seq``."""

    layout_seq: int
    spec: str
    space: SpaceRecord | None
    job: reembed_job.Job | None
    target: SpaceRecord | None


class Embedding:
    """What turns a database's texts into vectors; thread-safe."""

    def __init__(self, store: Store, spec: str | None, loaded: Embedder | None) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._models: list[tuple[str, Embedder]] = []
        self._off = spec == NONE  # for this handle, whatever others do
        self._last: _Seen | None = None
        self._seconds = 0  # writes that another space wants to know of
        with store.read() as txn:
            recorded = _recorded(txn)
        self._first = spec or recorded or settings.DEFAULT_EMBEDDER
        replaces = spec is not None and spec not in (recorded, NONE)
        if loaded is not None:
            self._models.append((self._first, loaded))
        if loaded is not None or (recorded is not None and replaces):
            # Another name: refuse here and now if it is another model.
            model = loaded or embedders.load(spec)
            replaces = self._require_known(model, self._first) and replaces
            if loaded is None and model is not None:
                self._models.append((self._first, model))
        if not store.readonly and (recorded is None or replaces):
            store.write(lambda txn: record(txn, self._first))
            self._last = None

    def _require_known(self, model: Embedder | None, spec: str) -> bool:
        """Whether the default space may be of this model; False where one being filled is.

        Raises ``EmbedderMismatch`` where neither is.
        """
        seen = self._now()
        if model is None or seen.space is None:
            return True
        try:
            require_identity(seen.space, identity_of(model), spec)
        except EmbedderMismatch:
            if not _is_of(seen.target, identity_of(model)):
                raise
            return False
        return True

    def accepts(self, given: Given) -> None:
        """Raise ``EmbedderMismatch`` when a further handle asks for another embedder."""
        if given is None or given in (self.spec, NONE):
            return
        if any(model is given for _, model in self._models):
            return
        spec, loaded = checked(given)
        wanted = loaded or embedders.load(spec)
        seen, current = self._now(), self.get()
        if wanted is None or _is_of(seen.target, identity_of(wanted)):
            return
        if current is None or identity_of(current) != identity_of(wanted):
            raise EmbedderMismatch(
                "this process has the database open with another embedder", hint=_remedy(spec)
            )

    def offer(self, spec: str, model: Embedder) -> None:
        """Have a model at hand; from here on this handle follows what is recorded."""
        with self._guard:
            self._models.append((spec, model))
        self._off = False

    # --- which ---------------------------------------------------------------------------

    @property
    def spec(self) -> str:
        """What names the embedder of the default space."""
        return NONE if self._off else self._now().spec

    def get(self) -> Embedder | None:
        """The embedder of the default space, loaded on first use; None for "none".

        Raises ``EmbedderUnavailable``, ``EmbedderMismatch``, ``MissingDependency``.
        """
        if self._off:
            return None
        seen = self._now()
        return self._model(seen.spec, seen.space)

    def of(self, space: SpaceRecord) -> Embedder | None:
        """The embedder whose vectors a space holds; None for those that were brought.

        Raises as ``get``.
        """
        if self._off or space.embedder is None:
            return None
        seen = self._now()
        if seen.job is not None and space.number == seen.job.target:
            return self._model(seen.job.embedder, space)
        return self._model(seen.spec, space)

    @property
    def loaded(self) -> Embedder | None:
        """The embedder of the default space if it has been loaded already."""
        if self._off:
            return None
        seen = self._now()
        return self._at_hand(seen.spec, seen.space)

    def _now(self) -> _Seen:
        with self._store.read() as txn:
            last = self._last
            if last is not None and last.layout_seq == txn.state.layout_seq:
                return last
            job = reembed_job.job(txn)
            seen = _Seen(
                txn.state.layout_seq,
                _recorded(txn) or self._first,
                spaces.find_space(txn, DEFAULT_SPACE),
                job,
                None if job is None else spaces.get_space(txn, job.target),
            )
        if seen.space is not None:  # its making moves nothing that a reader may have seen
            self._last = seen
        return seen

    def _at_hand(self, spec: str, space: SpaceRecord | None) -> Embedder | None:
        identity = None
        if space is not None and space.embedder is not None:
            identity = Identity.from_dict(space.embedder)
        for name, model in reversed(self._models):
            if identity_of(model) == identity if identity is not None else name == spec:
                return model
        return None

    def _model(self, spec: str, space: SpaceRecord | None) -> Embedder | None:
        if spec == NONE:
            return None
        with self._guard:
            model = self._at_hand(spec, space)
            if model is None and spec.startswith(_OBJECT):
                raise EmbedderUnavailable(
                    "the database was made with an embedder object; pass it to open",
                    hint="memdb.open(path, embedder=...) with the same object",
                )
            if model is None:
                model = embedders.load(spec)
                if model is not None and (space is None or _is_of(space, identity_of(model))):
                    self._models.append((spec, model))
        if model is not None and space is not None:
            require_identity(space, identity_of(model), spec)
        return model

    # --- embedding -----------------------------------------------------------------------

    def embed(self, texts: list[str], role: str) -> NDArray[np.float32] | None:
        """(n, dim) float32 unit vectors of texts; None when the database embeds nothing."""
        return _embed(self.get() if texts else None, texts, role)

    def embed_for(
        self, space: SpaceRecord, texts: list[str], role: str
    ) -> NDArray[np.float32] | None:
        """The same by the embedder of that space, whichever is the default one by then."""
        return _embed(self.of(space) if texts else None, texts, role)

    def embed_documents(self, texts: list[str]) -> tuple[SpaceRecord, NDArray[np.float32]] | None:
        """Vectors of texts and the default space, which is theirs, made on the first vector."""
        embedder = self.get() if texts else None
        vectors = _embed(embedder, texts, "document")
        if vectors is None or embedder is None:
            return None
        return default_space(self._store, vectors.shape[1], identity_of(embedder)), vectors

    def embed_next(self, texts: list[str]) -> tuple[SpaceRecord, NDArray[np.float32]] | None:
        """The same for the space that is to take the default one's place, if one is.

        None, too, while it would take loading a model: a process that writes a little leaves that
        to the one that fills the space, unless next to nothing is missing there.
        """
        seen = self._now()
        if self._off or not texts or seen.job is None or seen.target is None:
            return None
        self._seconds += 1
        loads = seen.job.closing or self._seconds >= _LOADS_AFTER
        if not loads and self._at_hand(seen.job.embedder, seen.target) is None:
            return None
        try:
            vectors = self.embed_for(seen.target, texts, "document")
        except (EmbedderUnavailable, MissingDependency):
            return None  # who fills that space will embed them
        return None if vectors is None else (seen.target, vectors)

    @property
    def is_replaced(self) -> bool:
        """Whether another space is being filled."""
        return self._now().job is not None


def _embed(embedder: Embedder | None, texts: list[str], role: str) -> NDArray[np.float32] | None:
    if embedder is None or not texts:
        return None
    if role == "query":
        return embedders.embed_queries(embedder, texts)
    return embedders.embed_documents(embedder, texts)


def default_space(store: Store, dim: int, identity: Identity | None) -> SpaceRecord:
    """The default space; ``identity`` None: for vectors the caller brings.

    Raises ``SpaceReplaced`` when it is of another embedder since the vectors were made.
    """
    with store.read() as txn:
        space = spaces.find_space(txn, DEFAULT_SPACE)
        moved = reembed_job.last(txn) is not None
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
    if identity is not None and not _is_of(space, identity):
        if moved and space.embedder is not None:
            raise SpaceReplaced("the texts were embedded for a space that was replaced meanwhile")
        require_identity(space, identity)
    return space


def _is_of(space: SpaceRecord | None, identity: Identity) -> bool:
    if space is None or space.embedder is None:
        return False
    return Identity.from_dict(space.embedder) == identity


def require_identity(space: SpaceRecord, identity: Identity, spec: str | None = None) -> None:
    """Raise ``EmbedderMismatch`` unless the space holds vectors of exactly this embedder."""
    if _is_of(space, identity):
        return
    if space.embedder is None:
        raise EmbedderMismatch(
            f"the space {space.name!r} holds vectors that were brought, not embedded",
            hint="open with embedder='none', or keep your vectors in a space of their own",
        )
    stored = Identity.from_dict(space.embedder)
    raise EmbedderMismatch(
        f"the database holds vectors of {stored.name}, not of {identity.name}", hint=_remedy(spec)
    )


def _remedy(spec: str | None) -> str | None:
    """What to do about another embedder; None: as the error says by itself."""
    if spec is None or spec == NONE:
        return None
    if spec.startswith(_OBJECT):
        return "open with the recorded embedder, then db.reembed(yours) moves to yours"
    return f"open with the recorded embedder, or move to this one: memdb reembed {spec}"
