"""``VectorIndex(kind="ssd")``: linked in the background, reopened, killed, shared, and chosen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memdb import Conflict, VectorIndex, vector_graph
from memdb.index import calibration, graph_file, planner
from memdb.index.calibration import Calibration
from memdb.storage.lease import Lease
from tests.memdb.test_vector_hnsw import clustered, distances_to

NO_ID = 2**64 - 1
SMALL = {"R": 16, "L_build": 32}
ROOT = Path(__file__).parents[2]
WALKS = Calibration(code_block_ns=60, record_ns=5, rough_ns=8, row_ns=1)


@pytest.fixture(autouse=True)
def small_spaces_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memdb.index.row_access.default_calibration", lambda: WALKS)


def points(n: int, seed: int = 0) -> np.ndarray:
    """As many dimensions as one bit of each tells apart."""
    return clustered(n, dim=64, seed=seed)


def filled(path: Path, n: int = 5000, **more: Any) -> tuple[VectorIndex, np.ndarray]:
    vectors = points(n)
    index = VectorIndex(path, dim=64, metric="l2", kind="ssd", params=SMALL, **more)
    index.add(np.arange(n), vectors)
    return index, vectors


def nearest(index: VectorIndex, vectors: np.ndarray) -> list[int]:
    found: list[int] = index.search(vectors, 1, effort=60)[0][:, 0].tolist()
    return found


def share(found: list[int], wanted: range) -> float:
    """How many of the vectors that were asked for were found."""
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)


class AgainstADictionary(RuleBasedStateMachine):
    """Random adds, upserts, removals, waits and reopenings; recall is counted over all searches."""

    @initialize(metric=st.sampled_from(["cosine", "ip", "l2"]))
    def make(self, metric: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.metric, self.seed, self.turn = metric, 0, 0
        self.model: dict[int, np.ndarray] = {}
        self.index = VectorIndex(
            self.directory.name, dim=16, metric=metric, kind="ssd", profile="exact", params=SMALL
        )
        self._add(range(4200))
        self.index.wait()
        self.hits = self.wanted = 0

    @rule(first=st.integers(0, 4300), count=st.sampled_from([0, 1, 20, 700]))
    def add(self, first: int, count: int) -> None:
        self._add(range(first, first + count))

    def _add(self, ids: range) -> None:
        self.seed += 1
        vectors = clustered(len(ids), seed=self.seed).astype(np.float16).astype(np.float32)
        self.index.add(np.array(ids, np.uint64), vectors)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(first=st.integers(0, 4300), count=st.sampled_from([1, 300, 2000]))
    def remove(self, first: int, count: int) -> None:
        ids = range(first, first + count)
        assert self.index.remove(np.array(ids)) == len(self.model.keys() & set(ids))
        for number in ids:
            self.model.pop(number, None)

    @rule()
    def wait(self) -> None:
        self.index.wait()
        assert self.index.stats()["waiting"] == 0

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = VectorIndex(self.directory.name)

    @invariant()
    def answers_are_right(self) -> None:
        self.turn += 1
        ids = np.array(sorted(self.model), np.uint64)
        vectors = np.array([self.model[int(number)] for number in ids]).reshape(-1, 16)
        query = clustered(1, seed=1000 + self.turn)[0]
        right = distances_to(query, vectors, self.metric)
        chosen = ids[:: 1 + self.turn % 3]
        for allowed in (None, chosen):
            found, distances = self.index.search(query, 10, allowed=allowed, effort=80)
            inside = ids if allowed is None else chosen
            count = min(10, len(inside))
            assert len(set(found[0, :count].tolist()) & set(inside.tolist())) == count
            assert (found[0, count:] == NO_ID).all()
            near = right[np.searchsorted(ids, found[0, :count])]
            np.testing.assert_allclose(distances[0, :count], near, rtol=2e-2, atol=2e-2)
            best = np.sort(right if allowed is None else right[:: 1 + self.turn % 3])[:count]
            self.hits += int((near <= best[-1] + 1e-6).sum()) if count else 0
            self.wanted += count

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.directory.cleanup()
            assert self.hits >= 0.85 * self.wanted - 5


AgainstADictionary.TestCase.settings = settings(
    max_examples=4,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAgainstADictionary = AgainstADictionary.TestCase


def test_what_was_linked_is_linked_when_it_is_opened_again(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path)
    assert share(nearest(index, vectors[:50]), range(50)) >= 0.9
    index.wait()
    stats = index.stats()
    assert (stats["kind"], stats["linked"], stats["waiting"]) == ("ssd", 5000, 0)
    assert stats["params"] == {**SMALL, "alpha": 1.2}
    index.close()
    with VectorIndex(tmp_path, readonly=True) as again:
        assert share(nearest(again, vectors[:50]), range(50)) >= 0.9
        stats = again.stats()
        assert (stats["linked"], stats["waiting"], stats["walked"]) == (5000, 0, 50)
        assert again.plan(5, effort=60).name == "graph"
        again.wait()


def test_what_replaces_a_linked_vector_waits_and_is_found(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path)
    index.wait()
    moved = points(600, seed=7)
    index.add(np.arange(600), moved)
    assert index.stats()["waiting"] == 600
    assert share(nearest(index, moved[:40]), range(40)) >= 0.9
    index.remove(np.arange(600, 1200))
    found, _ = index.search(vectors[600:620], 3, effort=60)
    assert not np.isin(found, np.arange(600, 1200)).any()
    index.wait()
    assert index.stats()["retired"] == index.stats()["waiting"] == 0
    assert share(nearest(index, moved[:40]), range(40)) >= 0.9
    index.close()


def test_many_that_wait_are_linked_in_memory_and_few_in_place(tmp_path: Path) -> None:
    wide = {"R": 16, "L_build": 96}
    index = VectorIndex(tmp_path, dim=64, metric="l2", kind="ssd", params=wide)
    for first, count, built, in_place in ((0, 4500, 1, 0), (4500, 1500, 2, 0), (6000, 600, 2, 600)):
        vectors = points(count, seed=first)
        index.add(np.arange(first, first + count), vectors)
        index.wait()
        stats = index.stats()
        assert (stats["graphs_built"], stats["linked_in_place"]) == (built, in_place)
        assert (stats["linked"], stats["waiting"]) == (first + count, 0)
        wanted = range(first, first + 40)
        assert share(nearest(index, vectors[:40]), wanted) >= 0.9
    index.close()


def test_a_build_that_is_killed_leaves_what_there_was(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path)
    index.wait()
    index.close()
    before = (tmp_path / graph_file.NAME).read_bytes()
    program = """
        import os, signal, sys
        import numpy as np
        from memdb import VectorIndex, vector_book, vector_graph
        from memdb.index import graph_file
        from tests.memdb.test_vector_ssd import points
        at = sys.argv[2]
        vector_graph._PART_SLOTS = 1000
        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        if at == "draft":
            graph_file._place_pages = killed
        elif at == "said":
            link, parts = vector_book.Draft.link, []
            def saying(draft, slots):
                link(draft, slots)
                parts.append(slots)
                if len(parts) == 2:
                    killed()
            vector_book.Draft.link = saying
        else:
            whole = graph_file.install
            def install(directory):
                whole(directory)
                killed()
            graph_file.install = install
        index = VectorIndex(sys.argv[1])
        index.add(np.arange(10_000, 15_100), points(5100, seed=3))
        index.wait()
    """
    for at, said in (("draft", 0), ("rename", 0), ("said", 1020)):  # of parts of 1,020 slots
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), at]
        done = subprocess.run(command, check=False, cwd=ROOT, timeout=100)
        assert done.returncode == -signal.SIGKILL
        if at == "draft":
            assert (tmp_path / graph_file.NAME).read_bytes() == before
        with VectorIndex(tmp_path, readonly=True) as again:
            assert again.stats()["linked"] == 5000 + said
            assert again.stats()["waiting"] == 5100 - said
            assert share(nearest(again, vectors[:30]), range(30)) >= 0.9
            added = points(5100, seed=3)[:30]
            assert share(nearest(again, added), range(10_000, 10_030)) >= 0.9
    with VectorIndex(tmp_path) as again:
        again.wait()
        assert again.stats()["waiting"] == 0


def test_processes_take_turns_and_see_what_another_linked(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path, 4500)
    index.wait()
    program = """
        import sys
        import numpy as np
        from memdb import VectorIndex
        from tests.memdb.test_vector_ssd import points
        with VectorIndex(sys.argv[1]) as index:
            index.add(np.arange(10_000, 10_600), points(600, seed=3))
            index.wait()
            assert index.stats()["waiting"] == 0
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100)
    added = points(600, seed=3)[:30]
    assert share(nearest(index, added), range(10_000, 10_030)) >= 0.9
    assert index.stats()["linked"] == 5100
    assert share(nearest(index, vectors[:30]), range(30)) >= 0.9
    index.close()


def test_while_another_process_builds_this_one_scans(tmp_path: Path) -> None:
    other = Lease(tmp_path / vector_graph.LOCK)
    tmp_path.mkdir(exist_ok=True)
    assert other.try_acquire()
    index, vectors = filled(tmp_path)
    index._shared._linker.wait()
    assert share(nearest(index, vectors[:30]), range(30)) >= 0.9
    assert index.stats()["waiting"] == 5000
    other.release()
    index.wait()
    assert index.stats()["waiting"] == 0
    index.close()


def test_a_failed_build_is_told_by_wait_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    index, vectors = filled(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Exception, match=r"no room to write graph\.bin\.new"):
            index.wait()
    assert share(nearest(index, vectors[:30]), range(30)) >= 0.9
    index.wait()
    assert index.stats()["waiting"] == 0
    index.close()


def test_a_smaller_profile_keeps_the_graph(tmp_path: Path) -> None:
    index, vectors = filled(tmp_path)
    index.wait()
    with pytest.raises(Conflict, match="nano"):
        index.convert("nano")
    index.convert("compact")
    stats = index.stats()
    assert (stats["profile"], stats["linked"], stats["waiting"]) == ("compact", 5000, 0)
    assert share(nearest(index, vectors[:30]), range(30)) >= 0.9
    assert index.stats()["walked"] >= 30
    index.close()


def test_an_index_that_may_choose_gets_a_graph_when_scans_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = points(6000)
    monkeypatch.setattr(planner, "_WORTH", 5)
    with VectorIndex(tmp_path / "auto", dim=64, metric="l2") as index:
        index.add(np.arange(5000), vectors[:5000])
        index.wait()
        assert index.stats()["kind"] == "flat"
        monkeypatch.setattr(planner, "_WORTH", 0.5)
        index.add(np.arange(5000, 6000), vectors[5000:])
        assert share(nearest(index, vectors[:30]), range(30)) >= 0.9
        index.wait()
        stats = index.stats()
        assert (stats["kind"], stats["linked"], stats["waiting"]) == ("ssd", 6000, 0)
        assert share(nearest(index, vectors[4990:5010]), range(4990, 5010)) >= 0.9
        assert index.stats()["walked"] == 20
    with VectorIndex(tmp_path / "auto", kind="auto") as index:
        assert share(nearest(index, vectors[4990:5010]), range(4990, 5010)) >= 0.9
    with VectorIndex(tmp_path / "flat", dim=64, metric="l2", kind="flat") as index:
        index.add(np.arange(6000), vectors)
        index.wait()
        assert index.stats()["kind"] == "flat"
    budget = 6240 * 23  # codes, factors and the book; a graph's places would make it 25
    with VectorIndex(tmp_path / "small", dim=64, metric="l2", memory_budget=budget) as index:
        index.add(np.arange(6000), vectors)
        index.wait()
        assert index.stats()["kind"] == "flat"


def test_the_constants_are_measured_for_rows_too() -> None:
    found = calibration.measure(calibration.default_kernels())
    assert 0 < found.row_ns < 1e5
