"""``VectorIndex(kind="ssd")`` while it changes: linked and taken out in place, killed, shared."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memdb import VectorIndex
from memdb.index import graph_file
from tests.memdb.test_vector_ssd import (
    ROOT,
    SMALL,
    WALKS,
    filled,
    nearest,
    points,
    share,
)


@pytest.fixture(autouse=True, scope="module")
def walking() -> Iterator[None]:
    """A few thousand vectors are walked: a scan would not meet the graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memdb.index.row_access.default_calibration", lambda: WALKS)
        yield


def inode(path: Path) -> int:
    return (path / graph_file.NAME).stat().st_ino


def test_what_is_added_is_linked_in_place(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path)
    index.wait()
    before = inode(tmp_path)
    index.add(np.arange(10_000, 12_000), points(2000, seed=3))
    index.wait()
    stats = index.stats()
    assert (stats["linked"], stats["waiting"], stats["linked_in_place"]) == (7000, 0, 2000)
    assert inode(tmp_path) == before
    added = points(2000, seed=3)[:50]
    assert share(nearest(index, added), range(10_000, 10_050)) >= 0.9
    assert share(nearest(index, vectors[:50]), range(50)) >= 0.9
    index.close()


def test_after_every_vector_was_replaced_it_is_as_good_as_new(tmp_path: Path) -> None:
    index, _ = filled(tmp_path / "lived")
    index.wait()
    before = inode(tmp_path / "lived")
    newest = points(5000, seed=9)
    for first in range(0, 5000, 1000):
        index.add(np.arange(first, first + 1000), newest[first : first + 1000])
        index.wait()
    assert inode(tmp_path / "lived") == before
    with VectorIndex(tmp_path / "fresh", dim=64, metric="l2", kind="ssd", params=SMALL) as fresh:
        fresh.add(np.arange(5000), newest)
        fresh.wait()
        queries = points(200, seed=11)
        truth, _ = fresh.search(queries, 10, exact=True)
        found = [one.search(queries, 10, effort=60)[0] for one in (index, fresh)]
        assert (index.stats()["walked"], fresh.stats()["walked"]) == (200, 200)
        lived, new = (
            sum(len(set(a) & set(b)) for a, b in zip(one.tolist(), truth.tolist(), strict=True))
            for one in found
        )
        assert lived >= new - 20  # of 2,000: one point
        sizes = [one.stats()["graph_disk_bytes"] for one in (index, fresh)]
        assert sizes[0] <= 1.12 * sizes[1]
    index.close()


def test_bytes_of_what_was_removed_are_in_no_file(tmp_path: Path) -> None:
    index, _ = filled(tmp_path)
    index.wait()
    with index._shared.snapshot() as view:
        records = view.files.flat._records.records
        slot = int(np.flatnonzero(view.book.ids == 77)[0])
        payload = records[slot, 12:-4].tobytes()
        code = view.files.flat.space_arrays().rows[slot, :-4].tobytes()
        place = int(view.files._state.file.places[slot])
    assert any(payload in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    with index._shared.snapshot():  # a reader who saw it
        index.remove([77])
        index.wait()
        assert index.stats()["retired"] == 1
        assert payload in (tmp_path / "refine.8").read_bytes()
    index.wait()
    assert index.stats()["retired"] == 0
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        content = path.read_bytes()
        assert payload not in content, path
        assert code not in content or path.name != "codes.bin"
    page, at = divmod(place, 256)
    whole = np.frombuffer((tmp_path / graph_file.NAME).read_bytes(), np.uint8)[4096:]
    record = whole.reshape(-1, 4096)[page, 16 + at * 52 :][:52]  # of 16 neighbours
    assert not record.any()
    named = slot.to_bytes(3, "little")
    size, records_a_page = 52, 78
    body = whole.reshape(-1, 4096)[graph_file.ENTRY_PAGES :, 16 : 16 + size * records_a_page]
    heads = body.reshape(len(body), records_a_page, size)[:, :, :3].reshape(-1, 3)
    used = np.ones(len(body), bool)
    used[:: 1 + graph_file.pages_of_extent(16)] = False
    heads = heads.reshape(len(body), -1, 3)[used].reshape(-1, 3)
    assert not (heads == np.frombuffer(named, np.uint8)).all(axis=1).any()
    index.close()


def test_a_killed_writer_loses_nothing_and_readers_see_nothing_wrong() -> None:
    """Some of what ``python -m bench ann processes --kills 500`` does."""
    command = [sys.executable, "-m", "bench", "ann", "processes", "--kills", "6", "--readers", "1"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, timeout=110, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kills (" in done.stdout and "): 0 wrong, 0 failed to open" in done.stdout


class AgainstADictionary(RuleBasedStateMachine):
    """Adds, replacements, removals and reopenings, most of them while linking lags behind."""

    @initialize()
    def make(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.seed = self.turn = self.hits = self.wanted = 0
        self.model: dict[int, np.ndarray] = {}
        self.index = VectorIndex(
            self.directory.name, dim=16, metric="l2", kind="ssd", profile="exact", params=SMALL
        )
        self._add(range(4200))
        self.index.wait()
        self.inode = inode(Path(self.directory.name))

    @rule(first=st.integers(0, 5000), count=st.sampled_from([1, 90, 600]))
    def add(self, first: int, count: int) -> None:
        self._add(range(first, first + count))

    def _add(self, ids: range) -> None:
        self.seed += 1
        rng = np.random.default_rng(self.seed)
        vectors = rng.standard_normal((len(ids), 16)).astype(np.float16).astype(np.float32)
        self.index.add(np.array(ids, np.uint64), vectors)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(first=st.integers(0, 5000), count=st.sampled_from([1, 90, 600]))
    def remove(self, first: int, count: int) -> None:
        ids = range(first, first + count)
        assert self.index.remove(np.array(ids)) == len(self.model.keys() & set(ids))
        for number in ids:
            self.model.pop(number, None)

    @rule()
    def wait(self) -> None:
        self.index.wait()
        stats = self.index.stats()
        assert stats["waiting"] == stats["retired"] == 0
        with self.index._shared.snapshot() as view:
            view.files.verify(view.book.encoded.array)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = VectorIndex(self.directory.name)

    @invariant()
    def answers_are_right(self) -> None:
        self.turn += 1
        ids = np.array(sorted(self.model), np.uint64)
        vectors = np.array([self.model[int(number)] for number in ids]).reshape(-1, 16)
        query = np.random.default_rng(10_000 + self.turn).standard_normal(16).astype(np.float32)
        right = ((vectors - query) ** 2).sum(axis=1)
        found, distances = self.index.search(query, 10, effort=320)
        count = min(10, len(ids))
        assert len(set(found[0, :count].tolist()) & self.model.keys()) == count
        near = right[np.searchsorted(ids, found[0, :count])]
        np.testing.assert_allclose(distances[0, :count], near, rtol=2e-2, atol=2e-2)
        self.hits += int((near <= np.sort(right)[count - 1] + 1e-6).sum()) if count else 0
        self.wanted += count

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            assert inode(Path(self.directory.name)) == self.inode  # nothing was built anew
            self.directory.cleanup()
            assert self.hits >= 0.85 * self.wanted - 5


AgainstADictionary.TestCase.settings = settings(
    max_examples=3, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAgainstADictionary = AgainstADictionary.TestCase
