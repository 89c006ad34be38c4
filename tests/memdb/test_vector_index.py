"""``VectorIndex`` against a dictionary and brute force, alone, reopened, killed and shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pyroaring import BitMap

from memdb import (
    BudgetExceeded,
    Conflict,
    DimensionMismatch,
    InvalidArgument,
    MemdbError,
    NotFound,
    PermissionDenied,
    VectorIndex,
)
from memdb.index import exact

NO_ID = 2**64 - 1
ROOT = Path(__file__).parents[2]


def some(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


class AgainstADictionary(RuleBasedStateMachine):
    """Random adds, upserts, removals and reopenings; every answer equals brute force."""

    @initialize(metric=st.sampled_from(["cosine", "ip", "l2"]))
    def make(self, metric: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.metric = metric
        self.rng = np.random.default_rng(1)
        self.model: dict[int, np.ndarray] = {}
        self.index = VectorIndex(self.directory.name, dim=6, metric=metric, profile="exact")

    @rule(first=st.integers(0, 40), count=st.sampled_from([0, 1, 3, 20]))
    def add_a_few(self, first: int, count: int) -> None:
        self._add(range(first, first + count))

    @rule(first=st.sampled_from([0, 10_000, 2**63]))
    def add_many(self, first: int) -> None:
        if len(self.model) < 12_000:
            self._add(range(first, first + 4_200))

    def _add(self, ids: range) -> None:
        vectors = self.rng.standard_normal((len(ids), 6)).astype(np.float16).astype(np.float32)
        self.index.add(np.array(ids, np.uint64), vectors)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(first=st.integers(0, 60), count=st.sampled_from([1, 5, 300]))
    def remove(self, first: int, count: int) -> None:
        ids = range(first, first + count)
        assert self.index.remove(np.array(ids)) == len(self.model.keys() & set(ids))
        for number in ids:
            self.model.pop(number, None)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = VectorIndex(self.directory.name)

    @rule()
    def wait(self) -> None:
        self.index.wait()
        assert self.index.stats()["retired"] == 0

    @invariant()
    def every_answer_is_right(self) -> None:
        index, model = self.index, self.model
        assert len(index) == len(model)
        ids = np.array(sorted(model), np.uint64)
        query = self.rng.standard_normal(6).astype(np.float32)
        found, distances = index.search(query, 5, exact=True)
        wanted = np.array([model[int(number)] for number in ids], np.float32).reshape(-1, 6)
        _, keys = exact.scan(query, wanted, 5, self.metric)
        np.testing.assert_allclose(distances, keys, atol=1e-3)
        sound = found[0][: min(5, len(model))]
        assert len(set(sound.tolist())) == len(sound) and set(sound.tolist()) <= model.keys()
        assert (found[0][len(sound) :] == NO_ID).all()
        some_ids = self.rng.permutation(ids)[:30]
        stored = [model[int(number)] for number in some_ids]
        np.testing.assert_allclose(
            index.get(some_ids), np.reshape(stored, (-1, 6)), rtol=1e-3, atol=1e-6
        )
        among, _ = index.search(query, 50, allowed=some_ids)
        assert sorted(among[0][: len(some_ids)].tolist()) == sorted(some_ids.tolist())
        assert 7 in index if 7 in model else 7 not in index

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.directory.cleanup()


AgainstADictionary.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestVectorIndexAgainstADictionary = AgainstADictionary.TestCase


def test_fresh_and_encoded_vectors_are_ranked_together(tmp_path: Path) -> None:
    vectors = some(5200, 16)
    with VectorIndex(tmp_path / "new" / "index", dim=16) as index:
        index.add(np.arange(5000) * 10**12, vectors[:5000])
        index.add(np.arange(5000, 5200) * 10**12, vectors[5000:])
        stats = index.stats()
        assert (stats["fresh"], stats["encoded"]) == (200, 5000)
        ids, distances = index.search(vectors[[3, 5100]], 2)
        assert ids.dtype == np.uint64 and distances.dtype == np.float32
        assert (ids[:, 0] // 10**12).tolist() == [3, 5100]
        assert index.search(vectors[3], 2)[0].shape == (1, 2)


def test_single_adds_are_encoded_when_enough_have_come(tmp_path: Path) -> None:
    vectors = some(4_100, 4)
    with VectorIndex(tmp_path, dim=4, metric="l2") as index:
        for first in range(0, 4_100, 100):
            part = slice(first, first + 100)
            index.add(np.arange(4_100)[part], vectors[part])
        stats = index.stats()
        assert (stats["fresh"], stats["encoded"], stats["count"]) == (0, 4_100, 4_100)
        assert index.search(vectors, 1, exact=True)[0][:, 0].tolist() == list(range(4_100))


def test_an_id_given_twice_keeps_its_last_vector(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=2, metric="l2", profile="exact") as index:
        index.add([5, 6, 5], [[1, 1], [2, 2], [3, 3]])
        assert index.get([5, 6]).tolist() == [[3, 3], [2, 2]] and len(index) == 2


def test_an_allowed_set_may_be_a_roaring_bitmap_or_unknown_ids(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=8) as index:
        index.add(np.arange(50), some(50))
        ids, distances = index.search(some(1), 10, allowed=BitMap([3, 4, 999]))
        assert sorted(ids[0, :2].tolist()) == [3, 4] and (ids[0, 2:] == NO_ID).all()
        assert np.isinf(distances[0, 2:]).all()
        assert (index.search(some(1), 3, allowed=[])[0] == NO_ID).all()
        assert (index.search(some(1), 3, allowed=[0, 10**15])[0][0, 1:] == NO_ID).all()


def test_none_means_as_stored_and_other_settings_conflict(tmp_path: Path) -> None:
    VectorIndex(tmp_path, dim=8, metric="l2", profile="exact").close()
    with VectorIndex(tmp_path) as index:
        assert (index.stats()["metric"], index.stats()["profile"]) == ("l2", "exact")
        with pytest.raises(DimensionMismatch):
            VectorIndex(tmp_path, dim=9)
        with pytest.raises(Conflict):
            VectorIndex(tmp_path, metric="ip")
        with pytest.raises(Conflict):
            VectorIndex(tmp_path, profile="standard")
    with pytest.raises(Conflict):
        VectorIndex(tmp_path, metric="cosine")


def test_bad_input_is_typed_and_changes_nothing(tmp_path: Path) -> None:
    for options in (
        {},
        {"dim": 0},
        {"dim": 8, "metric": "taxi"},
        {"dim": 8, "kind": "ssd", "metric": "hamming"},
        {"dim": 8, "kind": "ssd", "profile": "nano"},
        {"dim": 8, "kind": "ssd", "params": {"R": 1}},
        {"dim": 8, "kind": "ssd", "params": {"M": 16}},
        {"dim": 8, "kind": "ivf"},
        {"dim": 8, "profile": "tiny"},
        {"dim": 8, "params": {"M": 16}},
        {"dim": 8, "memory_budget": "much"},
        {"dim": 8, "threads": 0},
    ):
        with pytest.raises(InvalidArgument):
            VectorIndex(tmp_path / "refused", **options)
    with VectorIndex(tmp_path / "index", dim=8) as index:
        for ids, vectors in (
            ([1, 2], some(1)),
            ([-1], some(1)),
            ([NO_ID], some(1)),
            ([1.5], some(1)),
            (["a"], some(1)),
            ([1], some(1) * np.nan),
            ([1], some(1, 9)),
        ):
            with pytest.raises(InvalidArgument):
                index.add(ids, vectors)
        with pytest.raises(InvalidArgument):
            index.search(some(1), 0)
        with pytest.raises(NotFound, match="17"):
            index.get([17])
        assert len(index) == 0 and index.remove([17]) == 0
        assert "a" not in index and -1 not in index and True not in index


def test_a_memory_budget_is_kept(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=64, memory_budget=50_000) as index:
        index.add(np.arange(1000), some(1000, 64))
        with pytest.raises(BudgetExceeded):
            index.add(np.arange(1000, 6000), some(5000, 64))
        assert len(index) == 1000 and index.stats()["memory_bytes"] <= 50_000


def test_what_is_removed_leaves_no_byte_in_the_files(tmp_path: Path) -> None:
    vectors = some(5000, 64)
    with VectorIndex(tmp_path, dim=64, profile="exact") as index:
        index.add(np.arange(5000), vectors)
        marks = [vector.astype("<f2").tobytes() for vector in vectors[100:500]]
        assert all(mark in (tmp_path / "refine.f16").read_bytes() for mark in marks[:3])
        assert index.remove(np.arange(100, 500)) == 400
        index.wait()
        raw = (tmp_path / "refine.f16").read_bytes()
        assert not any(mark in raw for mark in marks)
        index.add(np.arange(10_000, 10_400), some(400, 64, seed=3))
        assert index.stats()["capacity"] <= 5200


def test_slots_that_a_reader_may_see_are_not_zeroed(tmp_path: Path) -> None:
    vectors = some(5000)
    with VectorIndex(tmp_path, dim=8) as index:
        index.add(np.arange(5000), vectors)
        with index._shared.snapshot() as (_, book, _):
            index.remove(np.arange(5000))
            index.wait()
            assert index.stats()["retired"] == 5000
            slots, _ = index._shared.files.search(vectors[7], 1, allowed=book.encoded)
            assert book.ids[slots[0, 0]] == 7
        index.wait()
        assert index.stats()["retired"] == 0


def test_read_only_handles_read_and_refuse_to_write(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        VectorIndex(tmp_path / "none", readonly=True)
    assert not (tmp_path / "none").exists()
    with VectorIndex(tmp_path / "index", dim=8) as index:
        index.add(np.arange(5000), some(5000))
    with VectorIndex(tmp_path / "index", readonly=True) as index:
        assert len(index) == 5000 and index.search(some(5000)[9], 1)[0].tolist() == [[9]]
        index.wait()
        for write in (lambda: index.add([1], some(1)), lambda: index.remove([1])):
            with pytest.raises(PermissionDenied):
                write()


def test_a_closed_handle_says_so_and_another_goes_on(tmp_path: Path) -> None:
    one, two = VectorIndex(tmp_path, dim=8), VectorIndex(tmp_path)
    one.close()
    one.close()
    with pytest.raises(MemdbError, match="closed"):
        len(one)
    two.add([1], some(1))
    assert 1 in two
    two.close()


def test_a_database_is_not_taken_for_an_index(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "FORMAT").write_text("memdb 1\n")
    with pytest.raises(InvalidArgument):
        VectorIndex(tmp_path / "db", dim=8)
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermissionDenied):
        VectorIndex(tmp_path / "file", dim=8)


WRITER = """
    import sys
    import numpy as np
    from memdb import VectorIndex

    index = VectorIndex(sys.argv[1], dim=8, metric="l2")
    rng = np.random.default_rng(int(sys.argv[2]))
    number = int(sys.argv[2]) * 10**9
    while True:
        count = int(rng.choice([1, 7, 600, 4096]))
        ids = np.arange(number, number + count)
        index.add(ids, np.stack((ids % 1000, *[ids // 1000 % 1000] * 7), axis=1))
        if count == 7:
            index.remove(ids[:3])
        print(number, count, flush=True)
        number += count
"""


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_writers_lose_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[tuple[int, int]] = []
    with VectorIndex(tmp_path, dim=8, metric="l2"):
        pass
    for round_number in range(4):
        writers = [run(WRITER, tmp_path, 2 * round_number + which) for which in (1, 2)]
        lines = [writer.stdout.readline() for writer in writers if writer.stdout is not None]
        time.sleep(0.1 + 0.13 * round_number)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            lines += writer.communicate()[0].splitlines()
        acknowledged += [(int(a), int(b)) for a, b in (line.split() for line in lines)]
        with VectorIndex(tmp_path) as index:
            _check_acknowledged(index, acknowledged)
    assert len(acknowledged) >= 8


def _check_acknowledged(index: VectorIndex, acknowledged: list[tuple[int, int]]) -> None:
    for first, count in acknowledged:
        ids = np.arange(first + (3 if count == 7 else 0), first + count)
        wanted = np.stack((ids % 1000, *[ids // 1000 % 1000] * 7), axis=1)
        np.testing.assert_allclose(index.get(ids), wanted, rtol=0.05, atol=20)
        if count == 7:
            assert first not in index
    stats = index.stats()
    assert stats["fresh"] + stats["encoded"] == len(index)
    found, _ = index.search(np.zeros(8), 50)
    assert len(set(found[0].tolist()) - {NO_ID}) == min(50, len(index))


def test_another_process_sees_a_write_at_its_next_call(tmp_path: Path) -> None:
    code = """
        import sys
        from memdb import VectorIndex

        index = VectorIndex(sys.argv[1], readonly=True)
        for line in sys.stdin:
            query = [float(word) for word in line.split()]
            print(len(index), index.search(query, 1)[0][0, 0], flush=True)
    """
    vectors = some(9000)
    with VectorIndex(tmp_path, dim=8) as index:
        reader = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdin is not None and reader.stdout is not None
        done = 0
        for count in (1, 5, 4200, 10, 3000, 1):
            index.add(np.arange(done, done + count), vectors[done : done + count])
            done += count
            index.remove([done - 2] if count == 10 else [])
            reader.stdin.write(" ".join(map(str, vectors[done - 1])) + "\n")
            reader.stdin.flush()
            assert reader.stdout.readline().split() == [str(len(index)), str(done - 1)]
        reader.stdin.close()
        assert reader.wait(30) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_is_told_to_open_again(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=8) as index:
        child = os.fork()
        if child == 0:
            try:
                len(index)
            except MemdbError as error:
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert len(index) == 0


def test_threads_search_while_one_writes(tmp_path: Path) -> None:
    vectors = some(12_000)
    done = threading.Event()
    with VectorIndex(tmp_path, dim=8) as index, ThreadPoolExecutor(3) as pool:
        index.add(np.arange(2000), vectors[:2000])

        def search() -> int:
            searches = 0
            while not done.is_set():
                ids, _ = index.search(vectors[1234], 3)
                assert ids[0, 0] == 1234
                searches += 1
            return searches

        counts = [pool.submit(search) for _ in range(3)]
        for first in range(2000, 12_000, 500):
            index.add(np.arange(first, first + 500), vectors[first : first + 500])
            index.remove(np.arange(first, first + 250))
        done.set()
        assert all(count.result() > 0 for count in counts)


@pytest.mark.skipif(os.name == "nt", reason="blocks of a file are not told there")
def test_an_id_costs_at_most_forty_bytes_beside_its_vector(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=2) as index:
        index.add(np.arange(100_000), some(100_000, 2))
    used = (tmp_path / "kv" / "data.mdb").stat().st_blocks * 512
    assert used <= 40 * 100_000
