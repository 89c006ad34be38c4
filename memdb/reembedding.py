"""Texts embedded again by another model, a batch at a time, while the old space answers.

The new space shares the runs of rows of the old one (``storage.spaces.share``), so that a row has a
slot in both. A step reads some texts in a snapshot, embeds them outside any transaction, and puts
the vectors of those still there: what was erased meanwhile gets none. What lacks a vector is told
from the sets of rows alone, so a step that was cut off left nothing to clean up, and what was
written meanwhile is simply not done yet; who has the model at hand, or writes much, embeds for both
spaces, so that this ends. When next to nothing is missing the job is *closing*: everybody does.
Once nothing is missing, one transaction gives the new space
the default one's name and the database its embedder; the old one goes, but for the vectors of
memories without text, which it keeps under another name.

Any process may take a step; the holder of the maintenance lease does it in the background. This
file knows sets of rows, texts and vectors; it does not know threads or the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import embedding, reembed_job, settings, space_convert
from memdb.embedded_text import embedded_text
from memdb.embedding import DEFAULT_SPACE
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import EmbedderUnavailable, MemdbError
from memdb.ingest import embedders
from memdb.ingest.embedders import Embedder, Identity
from memdb.reembed_job import NEXT_SPACE, Job, Last, textless
from memdb.removal import remove_dropped_files
from memdb.storage import spaces, vectors
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Writer
from memdb.types import Reembedding

BROUGHT: Final = "brought"
"""What the old space goes by where it keeps vectors."""
_STEP_S: Final = 0.1  # of embedding, with the texts that takes
_ROWS_MOST: Final = 512
_ROWS_FIRST: Final = 16
_RETRY_S: Final = 10.0  # a model that cannot be loaded
_CLOSED_AFTER: Final = 200  # tries; who cannot load the model may write on and on
_RESTATED_AT_ONCE: Final = 32
_READERS_END_S: Final = 0.02


def begin(txn: Writer, engine: Engine, spec: str, identity: Identity) -> None:
    """Aim at another embedder; the present one gives up what is under way.

    What is under way to the same one goes on. Of the present one, texts that have no vector get
    theirs.
    """
    default, job = spaces.find_space(txn, DEFAULT_SPACE), reembed_job.job(txn)
    target = None if job is None else spaces.get_space(txn, job.target)
    if job is not None and target is not None and _is_of(target, identity):
        return
    if target is not None:
        drop(txn, engine, target)
    reembed_job.put_job(txn, None)
    txn.layout_moved()
    if default is not None and _is_of(default, identity):
        last = reembed_job.last(txn)
        if last is None or last.target != default.number or last.over:
            reembed_job.put_last(txn, Last(default.number))
        return
    made = spaces.create_space(
        txn,
        SpaceRecord(
            number=0,
            name=NEXT_SPACE,
            dim=identity.dim,
            metric="cosine",
            profile=_profile_of(default),
            embedder=identity.to_dict(),
            filling=True,
        ),
    )
    reembed_job.put_job(txn, Job(made.number, spec))


def _profile_of(
    space: SpaceRecord | None,
) -> Literal["exact", "standard", "compact", "nano", "pico"]:
    """The profile a space has, or is to have."""
    return settings.DEFAULT_PROFILE if space is None else space.converting or space.profile


def drop(txn: Writer, engine: Engine, space: SpaceRecord) -> None:
    """A space with its vectors, and what is noted of it."""
    for name in (f"encoded/{space.number}", textless(space.number)):
        engine.filters.set_discard(txn, name, engine.filters.get_set(txn, name))
    space_convert.forget(txn, engine.filters, space)
    vectors.drop_all_fresh(txn, space.number)
    spaces.drop_space(txn, space.number)
    txn.layout_moved()


def state(txn: Reader, engine: Engine) -> Reembedding | None:
    """What is under way, or was last; None where there never was anything."""
    job, last = reembed_job.job(txn), reembed_job.last(txn)
    number = job.target if job is not None else last.target if last is not None else 0
    target = spaces.get_space(txn, number)
    if target is None:
        return None
    view = _View(txn, engine, target)
    done, left = len(view.stored & view.wanted), len(view.pending)
    kept, kept_as = len(view.textless), None
    if job is not None:
        default = spaces.find_space(txn, DEFAULT_SPACE)
        kept = 0 if default is None else len(view.textless & stored(txn, engine, default))
    elif last is not None:
        kept, kept_as = last.kept, last.kept_as or None
    over = job is None and last is not None and last.over
    return Reembedding(
        embedder=str((target.embedder or {}).get("name")),
        state="running" if job is not None else "done" if over else "ending",
        done=done,
        total=done + left,
        kept=kept,
        space=kept_as,
    )


def due(txn: Reader) -> bool:
    """Whether there is anything to do."""
    last = reembed_job.last(txn)
    return reembed_job.job(txn) is not None or (last is not None and not last.over)


def keeping(txn: Reader) -> list[SpaceRecord]:
    """The space with the vectors of memories without text, while not all of those say so."""
    last = reembed_job.last(txn)
    found = None if last is None or last.over else spaces.get_space(txn, last.old)
    return [] if found is None else [found]


def stored(txn: Reader | Writer, engine: Engine, space: SpaceRecord) -> BitMap:
    """The rows that have a vector in a space, as this transaction sees it."""
    encoded: BitMap = engine.filters.get_set(txn, f"encoded/{space.number}")
    return encoded | BitMap(vectors.fresh_rows(txn, space.number))


class _View:
    """Which rows a space is to have vectors of, has, and lacks, as one transaction sees it."""

    def __init__(self, txn: Reader | Writer, engine: Engine, target: SpaceRecord) -> None:
        filters = engine.filters
        rows = filters.get_set(txn, LIVE) | filters.get_set(txn, HIDDEN)
        self.wanted: BitMap = rows - filters.present(txn, "space")
        self.stored = stored(txn, engine, target)
        self.textless: BitMap = filters.get_set(txn, textless(target.number)) & self.wanted
        self.wanted -= self.textless
        self.pending: BitMap = self.wanted - self.stored


class _Batch(NamedTuple):
    """Rows (n,) that lack a vector, with the texts of those that have one, and how many lack."""

    rows: list[int]
    texts: dict[int, str]
    waiting: int


class Reembedder:
    """Takes the steps of one engine; ``error`` says why it cannot go on, and is tried again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at_once = _ROWS_FIRST
        self._tries = 0
        self._retry_at = float("-inf")
        self.error: MemdbError | None = None

    def step(self, *, again: bool = False) -> bool:
        """One short step; False when there is nothing to do or nothing can be done by now.

        ``again``: try at once what could not be done a moment ago.
        """
        if time.monotonic() < self._retry_at and not again:
            return False
        try:
            done = self._end() or self._fill()
            self.error = None
        except MemdbError as error:
            self.error, self._retry_at = error, time.monotonic() + _RETRY_S
            return False
        return done

    # --- filling ------------------------------------------------------------------------

    def _fill(self) -> bool:
        with self._engine.store.read() as txn:
            job = reembed_job.job(txn)
            target = None if job is None else spaces.get_space(txn, job.target)
            batch = None if target is None else self._batch(txn, target)
        if job is None:
            return False
        if target is None or batch is None:  # it was dropped with the job's record left behind
            self._engine.store.write(lambda txn: reembed_job.put_job(txn, None))
            return True
        if batch.rows:
            self._embed(target, batch)
        if not job.closing and batch.waiting <= len(batch.rows):
            self._engine.store.write(_closing(job))
            self._tries = 0
            return True
        if job.closing and batch.waiting <= len(batch.rows):
            self._tries += 1
            self._engine.store.write(lambda txn: self._switch(txn, job))
        return True

    def _batch(self, txn: Reader, target: SpaceRecord) -> _Batch:
        pending = _View(txn, self._engine, target).pending
        rows = list(pending[: self._at_once])
        memories = self._engine.records.get_many(txn, rows)
        texts = {row: embedded_text(memory) for row, memory in memories.items()}
        return _Batch(
            rows, {row: text for row, text in texts.items() if text is not None}, len(pending)
        )

    def _embed(self, target: SpaceRecord, batch: _Batch) -> None:
        """Embed a batch, then put the vectors of rows that are still there."""
        engine = self._engine
        matrix = np.empty((0, target.dim), np.float32)
        if batch.texts:
            model = engine.embedding.of(target)
            if model is None:
                raise EmbedderUnavailable("this handle was opened with embedder='none'")
            started = time.perf_counter()
            matrix = _embedded(model, list(batch.texts.values()))
            took = max(time.perf_counter() - started, 1e-6)
            most = int(len(batch.texts) * _STEP_S / took)
            self._at_once = max(1, min(most, 2 * self._at_once, _ROWS_MOST))
        rows = np.fromiter(batch.texts, np.int64, len(batch.texts))

        def put(txn: Writer) -> None:
            present = spaces.get_space(txn, target.number)
            if present is None or present.embedder != target.embedder:
                return  # given up meanwhile
            pending = _View(txn, engine, present).pending
            kept = np.array([int(row) in pending for row in rows], bool)
            put_vectors(txn, engine, present, rows[kept].tolist(), matrix[kept])
            blank = BitMap(batch.rows) - BitMap(rows.tolist())
            engine.filters.set_add(txn, textless(target.number), blank & pending)
            if not present.filling:  # it is the default one: caches are bound to the layout
                txn.layout_moved()

        engine.store.write(put)

    def _switch(self, txn: Writer, job: Job) -> None:
        """Give the new space the default one's place, if it lacks nothing."""
        engine = self._engine
        present, last = reembed_job.job(txn), reembed_job.last(txn)
        target = spaces.get_space(txn, job.target)
        if present != job or target is None or (last is not None and _restates(last)):
            return
        view = _View(txn, engine, target)
        if view.pending and self._tries < _CLOSED_AFTER:
            return
        old, kept, name = spaces.find_space(txn, DEFAULT_SPACE), BitMap(), ""
        if old is not None:
            mine = stored(txn, engine, old)
            kept = mine & view.textless
            if kept:
                name = _free_name(txn)
                _keep_only(txn, engine, old, mine, kept, name)
            else:
                drop(txn, engine, old)
        spaces.put_space(txn, msgspec.structs.replace(target, name=DEFAULT_SPACE, filling=False))
        embedding.record(txn, job.embedder)
        reembed_job.put_job(txn, None)
        number = 0 if old is None else old.number
        reembed_job.put_last(txn, Last(target.number, number, name, len(kept)))

    # --- ending ---------------------------------------------------------------------------

    def _end(self) -> bool:
        """What is left when the new space answers: rows that were written while it took the
        place, records that say where their vector is, and the files of the old one."""
        engine = self._engine
        with engine.store.read() as txn:
            last = reembed_job.last(txn)
            target = None if last is None else spaces.get_space(txn, last.target)
            if last is None or last.over:
                return False
            batch = None if target is None else self._batch(txn, target)
            old = spaces.get_space(txn, last.old)
            moving: list[int] = []
            if old is not None and last.kept_as:
                marked = engine.filters.get_set(txn, textless(last.target))
                mine = marked & stored(txn, engine, old) - engine.filters.present(txn, "space")
                moving = list(mine[:_RESTATED_AT_ONCE])
        if moving:
            engine.store.write(lambda txn: _restate(txn, engine, moving, last))
            return True
        if target is not None and batch is not None and batch.rows:
            self._embed(target, batch)
            return True
        if last.old and old is None:
            if not engine.store.lease.held or not engine.store.wait_for_readers(_READERS_END_S):
                return False
            engine.close_space(last.old)
            remove_dropped_files(engine)

        def over(txn: Writer) -> None:
            if reembed_job.last(txn) == last:
                reembed_job.put_last(txn, msgspec.structs.replace(last, over=True))

        engine.store.write(over)
        return True


def put_vectors(
    txn: Writer,
    engine: Engine,
    space: SpaceRecord,
    rows: list[int],
    matrix: NDArray[np.float32],
) -> None:
    """Keep vectors of rows that other spaces may hand out."""
    if rows:
        spaces.share(txn, space.number, {row >> 16 for row in rows})
        engine.vectors(space).put_fresh(txn, rows, matrix)


def _closing(job: Job) -> Callable[[Writer], None]:
    def close(txn: Writer) -> None:
        if reembed_job.job(txn) == job:
            reembed_job.put_job(txn, msgspec.structs.replace(job, closing=True))
            txn.layout_moved()

    return close


def _embedded(model: Embedder, texts: list[str]) -> NDArray[np.float32]:
    try:
        return embedders.embed_documents(model, texts)
    except MemdbError:
        raise
    except Exception as error:  # an object of the caller's may raise anything
        raise EmbedderUnavailable(
            f"the embedder {model.name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _is_of(space: SpaceRecord, identity: Identity) -> bool:
    return space.embedder is not None and Identity.from_dict(space.embedder) == identity


def _restates(last: Last) -> bool:
    return bool(last.kept_as) and not last.over


def _free_name(txn: Writer) -> str:
    taken = {space.name for space in spaces.spaces(txn)}
    names = (f"{BROUGHT}-{number}" if number > 1 else BROUGHT for number in range(1, 1 << 16))
    return next(name for name in names if name not in taken)


def _keep_only(
    txn: Writer, engine: Engine, space: SpaceRecord, stored: BitMap, kept: BitMap, name: str
) -> None:
    """Leave a space the vectors of some rows, under a name of its own."""
    gone = stored - kept
    for rows in (f"encoded/{space.number}", space_convert.converted(space)):
        engine.filters.set_discard(txn, rows, gone & engine.filters.get_set(txn, rows))
    fresh = gone & BitMap(vectors.fresh_rows(txn, space.number))
    vectors.drop_fresh(txn, space.number, list(fresh))
    spaces.put_space(txn, msgspec.structs.replace(space, name=name, embedder=None))


def _restate(txn: Writer, engine: Engine, rows: list[int], last: Last) -> None:
    """Write down in records which space their vector is in."""
    live = engine.filters.get_set(txn, LIVE)
    known = live | engine.filters.get_set(txn, HIDDEN)
    for row, old in engine.records.iterate(txn, [row for row in rows if row in known]):
        new = old.replace(space=last.kept_as)
        engine.filters.change(txn, row, old, new)
        engine.records.put(txn, row, new, engine.records.blob_of(txn, row))
        # A hidden row stays so; caches must look at it again all the same.
        txn.changed(**{"added" if row in live else "removed": [row]})
    gone = [row for row in rows if row not in known]
    engine.filters.set_discard(txn, textless(last.target), gone)
