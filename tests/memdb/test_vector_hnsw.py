"""``VectorIndex(kind="hnsw")`` against a dictionary: lagging, reopened, killed and shared."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memdb import BudgetExceeded, Conflict, InvalidArgument, MissingDependency, VectorIndex

pytest.importorskip("hnswlib")

NO_ID = 2**64 - 1
ROOT = Path(__file__).parents[2]


def clustered(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, dim))
    return (centres[rng.integers(0, 30, n)] + 0.4 * rng.standard_normal((n, dim))).astype("f4")


def distances_to(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    if metric == "l2":
        return ((vectors - query) ** 2).sum(axis=1)
    if metric == "cosine":
        query = query / np.linalg.norm(query)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return 1 - vectors @ query
    return -(vectors @ query)


class AgainstADictionary(RuleBasedStateMachine):
    """Random adds, upserts, removals, waits and reopenings; recall is counted over all searches."""

    @initialize(metric=st.sampled_from(["cosine", "ip", "l2"]))
    def make(self, metric: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.metric, self.seed, self.turn = metric, 0, 0
        self.model: dict[int, np.ndarray] = {}
        self.index = VectorIndex(
            self.directory.name, dim=16, metric=metric, kind="hnsw", profile="exact"
        )
        self._add(range(4200))
        self.hits = self.wanted = 0

    @rule(first=st.integers(0, 4300), count=st.sampled_from([0, 1, 3, 20, 700]))
    def add(self, first: int, count: int) -> None:
        self._add(range(first, first + count))

    @rule(first=st.sampled_from([10_000, 2**63]))
    def add_many(self, first: int) -> None:
        if len(self.model) < 7000:
            self._add(range(first, first + 1500))

    def _add(self, ids: range) -> None:
        self.seed += 1
        vectors = clustered(len(ids), seed=self.seed).astype(np.float16).astype(np.float32)
        self.index.add(np.array(ids, np.uint64), vectors)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(first=st.integers(0, 4300), count=st.sampled_from([1, 5, 300, 2000]))
    def remove(self, first: int, count: int) -> None:
        ids = range(first, first + count)
        assert self.index.remove(np.array(ids)) == len(self.model.keys() & set(ids))
        for number in ids:
            self.model.pop(number, None)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = VectorIndex(self.directory.name)
        assert self.index.stats()["graph_problem"] is None

    @rule()
    def wait(self) -> None:
        self.index.wait()
        stats = self.index.stats()
        assert (stats["retired"], stats["waiting"]) == (0, 0)
        assert stats["linked"] == stats["encoded"]

    @invariant()
    def every_answer_is_right(self) -> None:
        index, model = self.index, self.model
        assert len(index) == len(model)
        self.turn += 1
        ids = np.array(sorted(model), np.uint64)
        vectors = np.array([model[int(number)] for number in ids], np.float32).reshape(-1, 16)
        some = np.random.default_rng(self.turn).permutation(ids)[:400]
        for allowed in (None, some):
            query = clustered(1, seed=1000 + self.turn)[0]
            found, keys = index.search(query, 10, allowed=allowed)
            among = np.isin(ids, ids if allowed is None else allowed)
            right = distances_to(query, vectors[among], self.metric)
            count = min(10, len(right))
            sound = found[0][:count].tolist()
            assert len(set(sound)) == count and set(sound) <= set(ids[among].tolist())
            assert (found[0][count:] == NO_ID).all() and np.isinf(keys[0][count:]).all()
            told = [distances_to(query, model[n][None], self.metric)[0] for n in sound]
            np.testing.assert_allclose(keys[0][:count], told, rtol=1e-3, atol=2e-3)
            assert (np.diff(keys[0][:count]) >= 0).all()
            if allowed is None:
                best = ids[among][np.argsort(right, kind="stable")[:count]].tolist()
                self.hits += len(set(best) & set(sound))
                self.wanted += count

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.hits >= 0.95 * self.wanted
            self.index.close()
            self.directory.cleanup()


AgainstADictionary.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHnswAgainstADictionary = AgainstADictionary.TestCase


def test_kind_and_params_are_stored(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=4, kind="hnsw", params={"M": 8}) as index:
        stats = index.stats()
        assert (stats["kind"], stats["params"]) == ("hnsw", {"M": 8, "ef_construction": 200})
    for kind in (None, "auto", "hnsw"):
        with VectorIndex(tmp_path, kind=kind, params={"M": 8}) as index:
            assert index.stats()["kind"] == "hnsw"
    for options in ({"kind": "flat"}, {"params": {"M": 9}}, {"params": {"ef_construction": 9}}):
        with pytest.raises(Conflict):
            VectorIndex(tmp_path, **options)
    VectorIndex(tmp_path / "flat", dim=4).close()
    with pytest.raises(Conflict):
        VectorIndex(tmp_path / "flat", kind="hnsw")
    for params in ({"M": 8}, {"R": 32}):
        with pytest.raises(InvalidArgument):
            VectorIndex(tmp_path / "flat", params=params)
    for params in ({"M": 0}, {"ef": 10}, {"M": "8"}):
        with pytest.raises(InvalidArgument):
            VectorIndex(tmp_path / "none", dim=4, kind="hnsw", params=params)


def test_without_the_extra_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    VectorIndex(tmp_path / "made", dim=4, kind="hnsw").close()
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    for path in ("made", "new"):
        with pytest.raises(MissingDependency, match="hnswlib") as caught:
            VectorIndex(tmp_path / path, dim=4, kind="hnsw")
        assert caught.value.extra == "hnsw"
    VectorIndex(tmp_path / "new", dim=4).close()


def test_a_closed_index_opens_with_its_graph(tmp_path: Path) -> None:
    vectors = clustered(5000)
    with VectorIndex(tmp_path, dim=16, kind="hnsw", threads=2) as index:
        index.add(np.arange(5000), vectors)
        index.wait()
        assert index.stats()["linked"] == 5000
    with VectorIndex(tmp_path, readonly=True) as index:
        stats = index.stats()
        assert (stats["linked"], stats["waiting"], stats["graph_problem"]) == (5000, 0, None)
        found, _ = index.search(vectors[:200], 1)
        assert found[:, 0].tolist() == list(range(200))
        assert index.stats()["walked"] == 200


def test_a_damaged_graph_is_built_again(tmp_path: Path) -> None:
    vectors = clustered(5000)
    with VectorIndex(tmp_path, dim=16, kind="hnsw") as index:
        index.add(np.arange(5000), vectors)
        index.wait()
    (payload,) = tmp_path.glob("hnsw.*.graph")
    raw = bytearray(payload.read_bytes())
    raw[40_000:40_010] = b"0123456789"
    payload.write_bytes(raw)
    with VectorIndex(tmp_path) as index:
        assert payload.name in index.stats()["graph_problem"]
        assert index.search(vectors[7], 1)[0].tolist() == [[7]]
        index.wait()
        assert (index.stats()["waiting"], index.stats()["linked"]) == (0, 5000)
    with VectorIndex(tmp_path) as index:
        assert index.stats()["graph_problem"] is None and index.stats()["waiting"] == 0
    assert not payload.exists()


def test_what_is_removed_leaves_no_byte_in_the_graph(tmp_path: Path) -> None:
    vectors = clustered(5000).astype("<f2").astype("<f4")
    with VectorIndex(tmp_path, dim=16, metric="l2", kind="hnsw", profile="exact") as index:
        index.add(np.arange(5000), vectors)
        index.wait()

        def marks_found() -> int:
            raw = b"".join(path.read_bytes() for path in tmp_path.glob("hnsw*"))
            return sum(vector.tobytes() in raw for vector in vectors[1000:1050])

        assert marks_found() == 50
        index.remove(np.arange(1000, 1050))
        index.wait()
        assert marks_found() == 0
    assert marks_found() == 0 and len(list(tmp_path.glob("hnsw*"))) == 2


def test_the_graph_counts_against_the_memory_budget(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=64, kind="hnsw", memory_budget="5MB") as index:
        index.add(np.arange(1000), clustered(1000, 64))
        with pytest.raises(BudgetExceeded):
            index.add(np.arange(1000, 9000), clustered(8000, 64))
        assert len(index) == 1000 and index.stats()["memory_bytes"] <= 5_000_000


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def owned(ids, place):  # type: ignore[no-untyped-def]  # the writer takes it as source
    """(n, 16) vectors; two coordinates say whose each is."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((40, 16))[rng.integers(0, 40, 6000)]
    spread += 0.4 * rng.standard_normal((6000, 16))
    vectors = spread[(ids + place) % 6000]
    vectors[:, 0], vectors[:, 1] = ids % 100 / 64, ids // 100 / 64
    return vectors


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_leaves_a_graph_that_is_never_wrong(tmp_path: Path) -> None:
    code = """
        import sys
        import numpy as np
        from memdb import VectorIndex

        index = VectorIndex(sys.argv[1], dim=16, kind="hnsw", metric="l2", profile="exact")
        rng = np.random.default_rng(int(sys.argv[2]))
        while True:  # ids are moved to new places; their slots go to others
            ids, place = rng.integers(0, 6000, 900), int(rng.integers(0, 6000))
            index.remove(rng.integers(0, 6000, 300))
            index.wait()
            index.add(ids, owned(ids, place))
            print(place, flush=True)
    """
    code = textwrap.dedent(code).replace("index =", inspect.getsource(owned) + "\nindex =", 1)
    with VectorIndex(tmp_path, dim=16, kind="hnsw", metric="l2", profile="exact") as index:
        index.add(np.arange(6000), owned(np.arange(6000), 0))
        index.wait()
    for turn in range(3):
        writer = run(code, tmp_path, turn)
        assert writer.stdout is not None
        for _ in range(turn + 1):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with VectorIndex(tmp_path) as index:
            _check_owners(index)
            index.wait()
            assert index.stats()["waiting"] == 0
            walked = index.stats()["walked"]
            _check_owners(index)
            assert index.stats()["walked"] > walked


def _check_owners(index: VectorIndex) -> None:
    present = np.array([n for n in range(0, 6000, 7) if n in index])
    vectors = index.get(present)
    assert (vectors[:, 0] == (present % 100 / 64)).all()
    assert (vectors[:, 1] == (present // 100 / 64)).all()
    found, distances = index.search(vectors, 1)
    assert (found[:, 0] == present).mean() >= 0.97
    np.testing.assert_allclose(distances[found[:, 0] == present], 0, atol=1e-3)


def test_another_process_sees_writes_at_once_and_its_graph_follows(tmp_path: Path) -> None:
    code = """
        import sys
        from memdb import VectorIndex

        index = VectorIndex(sys.argv[1], readonly=True)
        for line in sys.stdin:
            words = line.split()
            if words == ["wait"]:
                index.wait()
                print(index.stats()["waiting"], index.stats()["linked"], flush=True)
            else:
                found, keys = index.search([float(word) for word in words], 1)
                print(len(index), found[0, 0], keys[0, 0] < 1e-3, flush=True)
    """
    vectors = clustered(14_000)
    with VectorIndex(tmp_path, dim=16, kind="hnsw", metric="l2", profile="exact") as index:
        index.add(np.arange(5000), vectors[:5000])
        reader = run(code, tmp_path)
        assert reader.stdin is not None and reader.stdout is not None

        def ask(line: str) -> list[str]:
            assert reader.stdin is not None and reader.stdout is not None
            reader.stdin.write(line + "\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        done = 5000
        for count in (1, 600, 2000, 5, 3000):
            index.add(np.arange(done, done + count), vectors[done : done + count])
            done += count
            gone = np.arange(done - 700, done - 500)
            index.remove(gone)
            index.wait()  # the slots are free: the next add takes them
            query = " ".join(map(str, vectors[done - 1].astype(np.float16)))
            assert ask(query) == [str(len(index)), str(done - 1), "True"]
            query = " ".join(map(str, vectors[int(gone[9])].astype(np.float16)))
            assert ask(query)[1] not in map(str, gone)
            if count != 600:
                assert ask("wait")[0] == "0"
        assert ask("wait") == ["0", str(index.stats()["encoded"])]
        reader.stdin.close()
        assert reader.wait(60) == 0


def test_threads_search_while_one_adds_and_removes(tmp_path: Path) -> None:
    vectors = clustered(9000)
    done = threading.Event()
    with VectorIndex(tmp_path, dim=16, kind="hnsw") as index, ThreadPoolExecutor(3) as pool:
        index.add(np.arange(5000), vectors[:5000])
        index.wait()

        def search() -> int:
            searches = 0
            while not done.is_set():
                found, distances = index.search(vectors[[1234, 4321]], 3)
                assert found[:, 0].tolist() == [1234, 4321] and np.isfinite(distances).all()
                assert not np.isin(found, removed).any()
                searches += 1
            return searches

        removed = np.arange(100)
        index.remove(removed)
        counts = [pool.submit(search) for _ in range(3)]
        for first in range(5000, 9000, 600):
            part = slice(first, first + 600)
            index.add(np.arange(9000)[part], vectors[part])
            index.remove(np.arange(first, first + 300))
        index.wait()
        done.set()
        assert all(count.result() > 0 for count in counts)
        assert index.stats()["waiting"] == 0


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyError", "os.fork() or sys.exit()"])
def test_a_process_may_end_while_its_graph_is_being_built(tmp_path: Path, ending: str) -> None:
    if "fork" in ending and not hasattr(os, "fork"):
        pytest.skip("fork")
    code = f"""
        import os, sys
        import numpy as np
        from memdb import VectorIndex

        index = VectorIndex(sys.argv[1], dim=16, kind="hnsw")
        index.add(np.arange(20_000), np.random.default_rng(0).standard_normal((20_000, 16)))
        print(index.stats()["waiting"] > 0)
        {ending}
    """
    process = run(code, tmp_path)
    out, _ = process.communicate(timeout=60)
    assert out.split()[0] == "True"
    assert process.returncode == {"sys.exit(3)": 3, "raise KeyError": 1}.get(ending, 0)
    with VectorIndex(tmp_path) as index:
        assert len(index) == 20_000
