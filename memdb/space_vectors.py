"""One embedding space while the database is open: fresh vectors in LMDB, encoded ones in files.

A vector is *fresh* (durable in LMDB, scanned exactly) until the holder of the maintenance lease
has written it to the space's files, and *encoded* from the commit that publishes it. A search
sees both in one snapshot, so the state of a vector is never visible in an answer.

This file joins the store (rows, bitmaps, transactions) and the index (slots, arrays); neither
knows the other. It does not know text, embedding or ranking.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import settings, space_convert
from memdb.aside import Encoding
from memdb.errors import StoreCorrupt
from memdb.index import exact
from memdb.index.flat import FlatIndex
from memdb.index.protocol import Encoded, Metric, SpaceSpec
from memdb.index.slots import SlotSet
from memdb.space_views import (
    NO_NEIGHBOURS,
    Compiled,
    Fresh,
    Layout,
    Neighbours,
    Sample,
    evenly_spaced,
    merge,
    rows_array,
    rows_bitmap,
    same_vectors,
    unit,
    unit_of,
)
from memdb.storage import spaces, vectors
from memdb.storage.changes import changes_since
from memdb.storage.filters import FilterIndex
from memdb.storage.generations import make_folder
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Store, Writer

_ENCODE_BATCH = 1_024
_COMPILED_KEPT = 8
_SAMPLES_KEPT = 4  # some hundred vectors each
_FAITHFUL = ("exact", "standard")  # profiles whose stored vectors measure as their records do


class SpaceVectors:
    """Search, fetch and encode in one space; thread-safe."""

    def __init__(self, store: Store, filters: FilterIndex, record: SpaceRecord) -> None:
        self.record = record
        # Fresh vectors of a cosine space are kept at unit length: then a product is enough.
        self._metric: Metric = "ip" if record.metric == "cosine" else record.metric
        self._store = store
        self._filters = filters
        self.directory: Path = store.path / "space" / str(record.number)
        self._guard = threading.Lock()
        self.files_guard = threading.Lock()
        self._index: FlatIndex | None = None
        self._fresh: Fresh | None = None
        self._layout: Layout | None = None
        self._compiled: list[Compiled] = []
        self._sampled: list[Sample] = []
        with store.read() as txn:  # the snapshot keeps the files from being removed
            self._follow(spaces.get_space(txn, record.number))

    @property
    def trained(self) -> bool:
        """Whether the mean and rotation are fixed, so that vectors can be encoded."""
        return self._index is not None

    def _follow(self, stored: SpaceRecord | None) -> None:
        """Open the files that a record names: the first ones, or those of another profile.

        Who searches the old ones ends with them: nobody closes them.
        """
        if stored is None:
            return
        self.record = stored
        if not stored.index:
            return
        spec = SpaceSpec.from_dict(stored.index)
        if self._index is None or self._index.spec.profile != spec.profile:
            make_folder(self.directory)
            self._index = FlatIndex(self.directory, spec, writable=not self._store.readonly)

    # --- reading ------------------------------------------------------------------------

    def search(
        self,
        txn: Reader,
        query: NDArray[np.float32],
        k: int,
        allowed: BitMap,
        *,
        effort: int | None = None,
        exact_search: bool = False,
        passing: bool = False,
    ) -> Neighbours:
        """The min(k, matches) rows of ``allowed`` closest to ``query`` (dim,).

        ``passing``: nobody is likely to ask for these rows again.
        """
        fresh = self._fresh_view(txn)
        layout = self.layout_view(txn)
        query = self._measured_as(query)
        encoded = NO_NEIGHBOURS
        if layout.files is not None:
            slots = self._compile(layout, allowed, keep=not passing)
            if slots:
                places, distances = layout.files.search(
                    query[None, :], k, allowed=slots, effort=effort, exact=exact_search
                )
                found = min(k, slots.count)
                rows = layout.allocation.rows(places[0, :found])
                encoded = Neighbours(rows, distances[0, :found])
        fresh_allowed = fresh.bitmap & allowed if len(fresh.rows) else None
        if fresh_allowed:
            return merge([self._scan_fresh(fresh, fresh_allowed, query, k), encoded], k)
        # Slots that are equally far come in their own order, which is that of rows, most often.
        return encoded if layout.allocation.rising else merge([encoded], k)

    def _measured_as(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query (dim,) as its distances are taken: of unit length for cosine."""
        return unit_of(query) if self.record.metric == "cosine" else query

    def plan(
        self, txn: Reader, k: int, allowed: BitMap, *, exact_search: bool = False
    ) -> dict[str, Any]:
        """Which way ``search`` of the same arguments goes, why, and what it touches."""
        layout = self.layout_view(txn)
        fresh = self._fresh_view(txn).bitmap.intersection_cardinality(allowed)
        if layout.files is None or not layout.encoded.intersect(allowed):
            return {"way": "fresh", "fresh": fresh}
        plan = layout.files.plan(self._compile(layout, allowed), k, exact=exact_search)
        return {
            "way": plan.name,
            "reason": plan.reason,
            "bytes_touched": plan.bytes_touched,
            "fresh": fresh,
        }

    def within(
        self, txn: Reader, query: NDArray[np.float32], radius: float, allowed: BitMap
    ) -> Neighbours:
        """Every row of ``allowed`` at distance <= ``radius``, closest first."""
        fresh, layout = self._fresh_view(txn), self.layout_view(txn)
        found: list[Neighbours] = []
        query = self._measured_as(query)
        fresh_allowed = fresh.bitmap & allowed if len(fresh.rows) else BitMap()
        if fresh_allowed:
            near = self._scan_fresh(fresh, fresh_allowed, query, len(fresh_allowed))
            kept = near.distances <= radius
            found.append(Neighbours(near.rows[kept], near.distances[kept]))
        if layout.files is not None:
            slots = self._compile(layout, allowed)
            places, distances = layout.files.within(query, radius, allowed=slots)
            found.append(Neighbours(layout.allocation.rows(places), distances))
        return merge(found, None)

    def fetch(self, txn: Reader, rows: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """The stored vectors of those rows that have one."""
        ids, matrix = vectors.load_fresh(txn, self.record.number, self.record.dim, rows)
        found = {int(row): matrix[place] for place, row in enumerate(ids)}
        layout = self.layout_view(txn)
        encoded = [row for row in rows if row not in found and row in layout.encoded]
        if encoded and layout.files is not None:
            fetched = layout.files.fetch(layout.allocation.slots(np.array(encoded, np.uint32)))
            found.update(zip(encoded, fetched, strict=True))
        return found

    def distances(
        self, query: NDArray[np.float32], matrix: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n,) distances of ``query`` (dim,) to each row of ``matrix`` (n, dim), in their order."""
        found: NDArray[np.float32] = exact.distances(query[None, :], matrix, self.record.metric)[0]
        return found

    def measure(
        self, txn: Reader, query: NDArray[np.float32], rows: NDArray[np.uint32]
    ) -> NDArray[np.float32]:
        """(n,) distances of ``query`` (dim,) to the vectors of ``rows`` (n,), in their order.

        They are what an exact search finds, but for the last bit, and NaN for a row without a
        vector.
        """
        if not len(rows):
            return np.empty(0, np.float32)
        sample = next((one for one in self._sampled if one.rows is rows), None)
        if sample is not None and self.record.profile in _FAITHFUL:
            return self._measured(txn, query, sample)
        layout, wanted = self.layout_view(txn), rows_bitmap(rows)
        if (
            layout.files is not None
            and len(wanted) == len(rows)
            and wanted.issubset(layout.encoded)
            and not wanted.intersect(self._fresh_view(txn).bitmap)
        ):
            slots = layout.allocation.slots(rows)
            return layout.files.measure(self._measured_as(query), slots)
        near = self.search(txn, query, len(rows), wanted, exact_search=True, passing=True)
        found = np.full(len(rows), np.nan, np.float32)
        if len(near.rows):
            order = np.argsort(near.rows)
            places = np.searchsorted(near.rows, rows, sorter=order)
            places = order[np.minimum(places, len(order) - 1)]
            known = near.rows[places] == rows
            found[known] = near.distances[places[known]]
        return found

    def sample(self, txn: Reader, allowed: BitMap, size: int) -> NDArray[np.uint32]:
        """Up to ``size`` rows of ``allowed``, evenly spaced among those that have a vector."""
        fresh, layout = self._fresh_view(txn), self.layout_view(txn)
        asked = (fresh.content_seq, layout.layout_seq, allowed, size)
        samples = self._sampled  # replaced whole, never changed: agents ask by turns, each its own
        cached = next((one for one in samples if one.of == asked), None)
        if cached is not None:
            return cached.rows
        known = fresh.bitmap | layout.encoded
        rows = evenly_spaced(rows_array(known & allowed), size)
        matrix = same_vectors(samples, asked, rows)
        self._sampled = [*samples[1 - _SAMPLES_KEPT :], Sample(asked, rows, matrix)]
        return rows

    def _measured(
        self, txn: Reader, query: NDArray[np.float32], sample: Sample
    ) -> NDArray[np.float32]:
        """(n,) distances of ``query`` to a sample, whose vectors are kept for the next question."""
        matrix = sample.matrix
        if matrix is None or len(matrix) < len(sample.rows):
            held = 0 if matrix is None else len(matrix)
            fetched = self.fetch(txn, sample.rows[held:].tolist())
            added = np.full((len(sample.rows) - held, self.record.dim), np.nan, np.float32)
            for place, row in enumerate(sample.rows[held:].tolist()):
                if row in fetched:
                    added[place] = fetched[row]
            matrix = added if matrix is None else np.concatenate((matrix, added))
            others = [one for one in self._sampled if one is not sample]
            measured = sample._replace(matrix=matrix)
            self._sampled = [*others[1 - _SAMPLES_KEPT :], measured]
        return self.distances(query, matrix)

    def rows_with_vectors(self, txn: Reader) -> BitMap:
        """Every row of the space that has a vector, live or not."""
        return self._fresh_view(txn).bitmap | self.layout_view(txn).encoded

    def _scan_fresh(
        self, fresh: Fresh, allowed: BitMap, query: NDArray[np.float32], k: int
    ) -> Neighbours:
        rows, matrix = fresh.within(allowed)
        places, distances = exact.scan(query[None, :], matrix, k, self._metric)
        kept = np.isfinite(distances[0])
        return Neighbours(rows[places[0][kept]], self._scaled(distances[0][kept]))

    def _fresh_view(self, txn: Reader) -> Fresh:
        """Fresh vectors visible to ``txn``; later ones may be in it: the caller masks them."""
        with self._guard:
            cached, state = self._fresh, txn.state
            behind = -1 if cached is None else state.layout_seq - cached.layout_seq
            if cached is not None and (behind > 0 or (behind == 0 and self.record.filling)):
                # Some were encoded or removed, or come without a change of what is visible: the
                # keys tell. A row's vector never changes, nor is a row used again.
                present = BitMap(vectors.fresh_rows(txn, self.record.number))
                came = self._load(txn, list(present - cached.bitmap))
                kept = cached.among(present, state.layout_seq)
                self._fresh = kept.extended(state.content_seq, *came)
                return self._fresh
            if cached is not None and behind == 0:
                if cached.content_seq >= state.content_seq:
                    return cached
                change = changes_since(txn, cached.content_seq, state.content_seq)
                if change is not None:
                    new = list(change.added - cached.bitmap)
                    self._fresh = cached.extended(state.content_seq, *self._load(txn, new))
                    return self._fresh
            rows, matrix = self._load(txn, None)
            loaded = Fresh(state.content_seq, state.layout_seq, rows, matrix, rows_bitmap(rows))
            if cached is None or cached.layout_seq <= state.layout_seq:
                self._fresh = loaded
            return loaded

    def _load(
        self, txn: Reader, rows: list[int] | None
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        ids, matrix = vectors.load_fresh(txn, self.record.number, self.record.dim, rows)
        return ids, unit(matrix) if self.record.metric == "cosine" else matrix

    def _scaled(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine distances from the inner products of unit vectors; others as they are."""
        return distances + 1 if self.record.metric == "cosine" else distances

    def layout_view(self, txn: Reader) -> Layout:
        with self._guard:
            cached = self._layout
            if cached is not None and cached.layout_seq == txn.state.layout_seq:
                return cached
            number = self.record.number
            newest = cached is None or cached.layout_seq < txn.state.layout_seq
            if newest:
                self._follow(spaces.get_space(txn, number))
            if self._index is not None:
                self._index.refresh()
            loaded = Layout(
                txn.state.layout_seq,
                self._filters.get_set(txn, f"encoded/{number}"),
                spaces.allocation(txn, number),
                self._index,
            )
            if newest:
                self._layout = loaded
            return loaded

    def _compile(self, layout: Layout, allowed: BitMap, *, keep: bool = True) -> SlotSet:
        """The slots of those of ``allowed`` that are encoded; the last few sets are kept, since
        most searches repeat their filter."""
        last = self._compiled[-1] if self._compiled else None
        if last is not None and last.layout is layout and last.allowed is allowed:
            return last.slots
        encoded = layout.encoded & allowed
        if not keep:
            return SlotSet.from_slots(layout.allocation.slots(rows_array(encoded)))
        with self._guard:  # what was written since is fresh, most often: the set is what it was
            known = [one for one in self._compiled if one.layout is layout]
            same = next((one for one in known if one.encoded == encoded), None)
        slots = None if same is None else same.slots
        if slots is None:
            slots = SlotSet.from_slots(layout.allocation.slots(rows_array(encoded)))
        with self._guard:
            others = [one for one in self._compiled if one is not same]
            compiled = Compiled(layout, allowed, encoded, slots)
            self._compiled = [*others[1 - _COMPILED_KEPT :], compiled]
        return slots

    # --- writing ------------------------------------------------------------------------

    def put_fresh(self, txn: Writer, rows: Sequence[int], matrix: NDArray[np.float32]) -> None:
        """Keep vectors of rows just allocated in this space; durable with ``txn``.

        A cosine space keeps directions: unit vectors, which float16 holds to what 8 bits will
        keep. Elsewhere lengths matter and may pass float16's range: float32.
        """
        kept: NDArray[np.float16 | np.float32] = matrix
        if self.record.metric == "cosine":
            directions = unit_of(matrix[0])[None, :] if len(matrix) == 1 else unit(matrix)
            kept = directions.astype(np.float16) if self.record.profile != "exact" else directions
        vectors.put_fresh(txn, self.record.number, rows, kept)

    def begin_encoded(
        self, txn: Writer, rows: Sequence[int], matrix: NDArray[np.float32]
    ) -> Encoding | None:
        """Begin to write vectors of rows to the files, beside what else is done in ``txn``.

        They are read from its commit on, once ``Encoding.publish`` was called. Lease holder only.
        None while untrained or without sound codes: nothing is written.
        """
        with self._guard:  # the profile may have changed with the last commit, or in this one
            self._follow(spaces.get_space(txn, self.record.number))
            index = self._index
        if index is None or index.codes_problem is not None:
            return None
        slots = self._slots(txn, rows)
        write = lambda: self._write_slots(index, slots, index.encode(matrix))
        return Encoding(lambda txn: self._publish(txn, rows), write)

    def _slots(self, txn: Reader | Writer, rows: Sequence[int]) -> NDArray[Any]:
        allocation = spaces.allocation(txn, self.record.number)
        return allocation.slots(np.asarray(rows, dtype=np.uint32))

    def _write_files(
        self, txn: Reader | Writer, index: FlatIndex, rows: Sequence[int], encoded: Encoded
    ) -> None:
        """Durable on return, where nobody looks before ``_publish``. Two syncs."""
        self._write_slots(index, self._slots(txn, rows), encoded)

    def _write_slots(self, index: FlatIndex, slots: NDArray[Any], encoded: Encoded) -> None:
        with self.files_guard:
            index.publish(index.prepare(slots, encoded))

    def _publish(self, txn: Writer, rows: Sequence[int]) -> None:
        """From the commit of ``txn`` on, these rows are read from the files."""
        self._filters.set_add(txn, f"encoded/{self.record.number}", rows_bitmap(rows))
        txn.layout_moved()

    def clear(self, rows: BitMap) -> None:
        """Zero the slots of rows that no reader sees any more, durably. Lease holder only."""
        with self._store.read() as txn:
            layout = self.layout_view(txn)
        if layout.files is not None:
            with self.files_guard:
                layout.files.clear(layout.allocation.slots(rows_array(rows)))

    def encode_step(self, at_least: int | None = None) -> bool:
        """Move one batch of fresh vectors into the files; False when there is too little to do.

        ``at_least``: so many are enough, for a first batch too. The caller holds the maintenance
        lease.
        """
        number, dim = self.record.number, self.record.dim
        with self._store.read() as txn:
            waiting = vectors.fresh_rows(txn, number)
            index = self.layout_view(txn).files  # another process may have trained or converted
            outdated = index is not None and index.codes_outdated
            enough = settings.FRESH_VECTORS_MAX if index is None else settings.ENCODE_AT
            enough = enough if at_least is None else at_least
            if len(waiting) < enough and not outdated:
                return False
            if index is not None and index.codes_problem is not None:
                self.rebuild_codes(txn)  # lost, damaged or outdated: they follow from the vectors
                return True
            chosen = waiting if index is None else waiting[:_ENCODE_BATCH]
            ids, matrix = vectors.load_fresh(txn, number, dim, chosen)
        if index is None:
            index = self._train(matrix)
            ids, matrix = ids[:_ENCODE_BATCH], matrix[:_ENCODE_BATCH]
        encoded = index.encode(matrix)
        rows = ids.tolist()
        with self._store.read() as txn:
            self._write_files(txn, index, rows, encoded)

        def publish(txn: Writer) -> None:
            stored = spaces.get_space(txn, number)
            if stored is None or stored.profile != index.spec.profile:
                return  # they lie in files that are no longer those of the space: the next step
            self._publish(txn, rows)
            vectors.drop_fresh(txn, number, rows)

        self._store.write(publish)
        return True

    def convert_step(self) -> bool:
        """Bring one batch to the profile that was asked for; False when there is none to bring.

        The caller holds the maintenance lease.
        """
        return space_convert.step(self, self._store, self._filters)

    def _train(self, sample: NDArray[np.float32]) -> FlatIndex:
        with self._store.read() as txn:
            record = spaces.get_space(txn, self.record.number) or self.record
        make_folder(self.directory)
        untrained = SpaceSpec(dim=record.dim, metric=record.metric, profile=record.profile)
        index = FlatIndex(self.directory, untrained, writable=True)
        self._save_spec(index.train(sample))
        with self._guard:
            self._index = index
        return index

    def _save_spec(self, spec: SpaceSpec) -> None:
        def save(txn: Writer) -> None:
            stored = spaces.get_space(txn, self.record.number)
            if stored is not None and stored.profile == spec.profile:
                spaces.put_space(txn, msgspec.structs.replace(stored, index=spec.to_dict()))
                txn.layout_moved()

        self._store.write(save)

    def damaged(self, txn: Reader, rows: NDArray[np.uint32]) -> str | None:
        """What is wrong with the files of these encoded rows; None when they are sound."""
        layout = self.layout_view(txn)
        if layout.files is None or not len(rows):
            return None
        try:
            layout.files.verify(layout.allocation.slots(rows))
        except StoreCorrupt as error:
            return str(error)
        return None

    def rebuild_codes(self, txn: Reader) -> None:
        """Make the codes again from the refinement vectors. Lease holder only."""
        layout = self.layout_view(txn)
        if layout.files is not None:
            slots = layout.allocation.slots(rows_array(layout.encoded))
            with self.files_guard:
                spec = layout.files.rebuild_codes(SlotSet.from_slots(slots))
            self._save_spec(spec)

    def stats(self) -> dict[str, int]:
        """Bytes by file; empty while nothing is encoded."""
        return {} if self._index is None else self._index.stats()

    @property
    def index(self) -> FlatIndex | None:
        """The files of the space, for ``check`` and ``snapshot``."""
        return self._index

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
