"""``VectorIndex.convert`` beside readers and writers, cut off, killed, shared and measured."""

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

from memdb import Conflict, InvalidArgument, PermissionDenied, VectorIndex, vector_convert
from memdb.index import exact, layout
from memdb.index.convert import LADDER
from memdb.storage.environment import WriteTxn
from memdb.vector_book import Draft

NO_ID = 2**64 - 1
ROOT = Path(__file__).parents[2]
DIM = 32
COSINES = {"exact": 0.99999, "standard": 0.999, "compact": 0.97, "nano": 0.7, "pico": 0.5}
"""Of what a profile gives back with what was given, at the least; of two vectors it is under .8."""
OFF = {"exact": 2e-3, "standard": 5e-3, "compact": 0.03, "nano": 0.5, "pico": 1.0}
"""How far distances may lie from those of the vectors that ``get`` gives, whose length is kept."""
FILES = {
    "exact": "refine.f16",
    "standard": "refine.8",
    "compact": "refine.5",
    "nano": "refine.2",
    "pico": "refine.1",
}


def some(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def begin(index: VectorIndex, target: str) -> None:
    shared = index._shared
    shared.write(lambda _, draft: vector_convert.begin(shared.path, draft, target))


def step(index: VectorIndex, target: str) -> bool:
    """One transaction of the job, as ``convert`` does it."""
    shared, done = index._shared, False

    def one(_: WriteTxn, draft: Draft) -> None:
        nonlocal done
        done = vector_convert.step(shared.path, shared.files, draft, target, 1024)

    shared.write(one)
    return done


def check_vectors(index: VectorIndex, model: dict[int, np.ndarray], profile: str) -> None:
    ids = np.array(sorted(model), np.uint64)
    found = index.get(ids)
    wanted = np.array([model[int(n)] for n in ids], np.float32).reshape(-1, DIM)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = (found * wanted).sum(axis=1) / lengths
    assert cosines.min(initial=1) >= COSINES[profile]


def check_files(index: VectorIndex) -> None:
    """Every encoded slot holds a sound record, and the code that it gives."""
    with index._shared.snapshot() as (_, book, files):
        files.verify(book.encoded.array)


class WhileItIsConverted(RuleBasedStateMachine):
    """Writes, removals and reopenings between the steps of a conversion, against a dictionary."""

    @initialize(
        kind=st.sampled_from(["flat", "flat", "hnsw"]),
        metric=st.sampled_from(["cosine", "ip", "l2"]),
        profile=st.sampled_from(["exact", "standard"]),
        count=st.sampled_from([100, 4500, 9000]),
    )
    def make(self, kind: str, metric: str, profile: str, count: int) -> None:
        if kind == "hnsw":
            pytest.importorskip("hnswlib")
        self.directory = tempfile.TemporaryDirectory()
        self.metric, self.profile, self.seed = metric, profile, 0
        self.target: str | None = None
        self.model: dict[int, np.ndarray] = {}
        self.index = VectorIndex(
            self.directory.name, dim=DIM, metric=metric, kind=kind, profile=profile
        )
        self._add(range(count))

    def _add(self, ids: range) -> None:
        self.seed += 1
        vectors = some(len(ids), self.seed)
        self.index.add(np.array(ids, np.uint64), vectors)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(first=st.integers(0, 9000), count=st.sampled_from([1, 20, 600]))
    def add(self, first: int, count: int) -> None:
        self._add(range(first, first + count))

    @rule(first=st.integers(0, 9000), count=st.sampled_from([1, 300, 2000]))
    def remove(self, first: int, count: int) -> None:
        ids = range(first, first + count)
        assert self.index.remove(np.array(ids)) == len(self.model.keys() & set(ids))
        for number in ids:
            self.model.pop(number, None)

    @rule(wanted=st.sampled_from(LADDER))
    def begin_another(self, wanted: str) -> None:
        if LADDER.index(wanted) < LADDER.index(self.profile):
            with pytest.raises(Conflict):
                self.index.convert(wanted)
            return
        begin(self.index, wanted)
        self.target = None if wanted == self.profile else wanted

    @rule()
    def go_on(self) -> None:
        if self.target is not None and step(self.index, self.target):
            self.profile, self.target = self.target, None

    @rule()
    def end(self) -> None:
        target = self.target or self.profile
        self.index.convert(target)
        self.profile, self.target = target, None
        left = {path.name for path in Path(self.directory.name).glob("refine.*")}
        assert left <= {FILES[target]}

    @rule()
    def wait(self) -> None:
        self.index.wait()
        assert self.index.stats()["retired"] == 0

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = VectorIndex(self.directory.name)

    @invariant()
    def every_answer_is_right(self) -> None:
        index, model = self.index, self.model
        stats = index.stats()
        assert stats["count"] == len(index) == len(model)
        assert stats["profile"] == self.profile
        assert (stats["converting"] or {"profile": None})["profile"] == self.target
        check_vectors(index, model, self.profile)
        check_files(index)
        query = some(1, 1000 + self.seed)[0]
        found, distances = index.search(query, 5, exact=True)
        ids = np.array(sorted(model), np.uint64)
        stored = index.get(ids)
        _, keys = exact.scan(query, stored, 5, self.metric)
        within = OFF[self.profile] * np.abs(keys[np.isfinite(keys)]).max(initial=1)
        np.testing.assert_allclose(distances, keys, rtol=0, atol=within)
        sound = found[0][: min(5, len(model))].tolist()
        assert len(set(sound)) == len(sound) and set(sound) <= model.keys()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.convert(LADDER[-1])
            check_vectors(self.index, self.model, LADDER[-1])
            check_files(self.index)
            self.index.close()
            self.directory.cleanup()


WhileItIsConverted.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestWhileItIsConverted = WhileItIsConverted.TestCase


@pytest.mark.parametrize("target", ["standard", "compact", "nano", "pico"])
def test_an_index_becomes_what_it_would_be_if_made_at_that_profile(
    tmp_path: Path, target: str
) -> None:
    vectors, queries = some(9000), some(30, 7)
    _, keys = exact.scan(queries, vectors, 10, "cosine")
    recalls = []
    with VectorIndex(tmp_path / "one", dim=DIM, profile="exact") as index:
        index.add(np.arange(9000), vectors)
        calls: list[tuple[int, int | None]] = []
        index.convert(target, progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (9000, 9000) and sorted(set(calls)) == calls
        steps = np.diff([0, *(done for done, _ in calls)])
        assert steps[0] == 256 and (steps[1:] <= 2 * steps[:-1]).all()  # as ``Pace`` lets them
        recalls.append(_recall(index, vectors, queries, keys))
        check_files(index)
        converted = index.stats()
    with VectorIndex(tmp_path / "two", dim=DIM, profile=target) as index:
        index.add(np.arange(9000), vectors)
        recalls.append(_recall(index, vectors, queries, keys))
        made = index.stats()
    assert recalls[0] >= recalls[1] - 0.03
    for name in ("count", "profile", "record_bytes", "codes_mapped_bytes"):
        assert converted[name] == made[name]
    for name in ("records_disk_bytes", "codes_disk_bytes"):  # in blocks of the file system
        assert abs(converted[name] - made[name]) <= 64 << 10
    names = [
        {path.name for path in (tmp_path / which).iterdir() if path.is_file()}
        for which in ("one", "two")
    ]
    assert names[0] == names[1]
    with VectorIndex(tmp_path / "one", profile=target) as index:
        assert index.stats()["converting"] is None


def _recall(
    index: VectorIndex, vectors: np.ndarray, queries: np.ndarray, keys: np.ndarray
) -> float:
    """Ties by distance: how many of what was found lie as near as the tenth."""
    found, _ = index.search(queries, 10)
    near = [
        exact.distances(q[None], vectors[f], "cosine")[0]
        for q, f in zip(queries, found, strict=True)
    ]
    return float(np.mean([n <= k[-1] + 1e-6 for n, k in zip(near, keys, strict=True)]))


def test_bad_targets_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=DIM, profile="compact") as index:
        index.add(np.arange(5000), some(5000))
        with pytest.raises(InvalidArgument, match="profile"):
            index.convert("tiny")
        for target in ("standard", "exact"):
            with pytest.raises(Conflict, match="does not hold"):
                index.convert(target)
        index.convert("compact")
        assert index.stats()["profile"] == "compact" and len(index) == 5000
    with VectorIndex(tmp_path, readonly=True) as index, pytest.raises(PermissionDenied):
        index.convert("nano")
    with (
        VectorIndex(tmp_path / "bits", dim=DIM, metric="hamming") as index,
        pytest.raises(Conflict, match="hamming"),
    ):
        index.convert("nano")


def test_an_index_without_files_only_changes_its_mind(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=DIM) as index:
        index.add(np.arange(100), some(100))
        index.convert("nano")
        assert (index.stats()["profile"], index.stats()["fresh"]) == ("nano", 100)
        index.add(np.arange(5000), some(5000))
        assert index.stats()["encoded"] == 5000
        check_files(index)
    assert {path.name for path in tmp_path.glob("refine.*")} == {"refine.2"}


def test_another_target_begins_anew_and_the_present_profile_gives_up(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=DIM) as index:
        index.add(np.arange(9000), some(9000))
        begin(index, "compact")
        assert not step(index, "compact")
        assert index.stats()["converting"] == {"profile": "compact", "done": 1024, "total": 9000}
        begin(index, "nano")
        assert index.stats()["converting"] == {"profile": "nano", "done": 0, "total": 9000}
        with pytest.raises(Conflict, match="given up"):
            step(index, "compact")
        assert not step(index, "nano")
        index.convert("standard")
        assert index.stats()["converting"] is None
        assert {path.name for path in tmp_path.glob("refine.*")} == {"refine.8"}
        assert not (tmp_path / "codes.next").exists()
        check_files(index)


def test_what_a_crash_left_half_made_or_damaged_is_made_again(tmp_path: Path) -> None:
    vectors = some(9000)
    model = dict(enumerate(vectors))
    with VectorIndex(tmp_path, dim=DIM) as index:
        index.add(np.arange(9000), vectors)
        begin(index, "compact")
        assert not step(index, "compact")
        assert not step(index, "compact")
    (tmp_path / "refine.5").write_bytes(b"torn")
    with VectorIndex(tmp_path) as index:
        again = some(600, 5)
        index.add(np.arange(600), again)  # a write meets it first
        model.update(enumerate(again))
        assert index.stats()["converting"]["done"] == 0
        index.convert("compact")
        check_vectors(index, model, "compact")
        check_files(index)


def test_what_is_removed_leaves_no_byte_in_either_profile(tmp_path: Path) -> None:
    vectors = some(9000)
    with VectorIndex(tmp_path, dim=DIM) as index:
        index.add(np.arange(9000), vectors)
        begin(index, "compact")
        assert not step(index, "compact")
        index.remove(np.arange(0, 9000, 2))
        index.wait()
        assert index.stats()["retired"] == 0
        half = _records(tmp_path / "refine.5")
        index.convert("compact")
        whole = _records(tmp_path / "refine.5")
        assert half[1::2].any() and not half[::2].any() and not whole[:9000:2].any()
        assert whole[1:9000:2].any(axis=1).all()


def _records(path: Path) -> np.ndarray:
    size = layout.record_bytes(DIM, layout.INT5)
    raw = np.fromfile(path, np.uint8, offset=4096)
    return raw[: len(raw) // size * size].reshape(-1, size)


CONVERTER = """
    import sys
    from memdb import VectorIndex

    index = VectorIndex(sys.argv[1])
    print("open", flush=True)
    index.convert(sys.argv[2], progress=lambda done, total: print(done, flush=True))
    print("done", flush=True)
"""
WRITER = """
    import sys
    import numpy as np
    from memdb import VectorIndex

    index = VectorIndex(sys.argv[1])
    rng = np.random.default_rng(int(sys.argv[2]))
    number = 10**9 * int(sys.argv[2])
    while True:
        count = int(rng.choice([1, 7, 600]))
        ids = np.arange(number, number + count)
        vectors = np.repeat((ids % 1000 + 1.0)[:, None], 32, axis=1)
        index.add(ids, vectors)
        found, distances = index.search(vectors[0], 1, allowed=ids, exact=True)
        assert found[0, 0] == number, (found, number)
        assert index.remove(ids[:1]) == 1
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
def test_a_killed_conversion_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    vectors = some(30_000)
    model = dict(enumerate(vectors))
    with VectorIndex(tmp_path, dim=DIM, profile="exact") as index:
        index.add(np.arange(30_000), vectors)
    at = "exact"
    rng = np.random.default_rng(3)
    for target in ("standard", "compact", "nano"):
        for _ in range(2):
            process = run(CONVERTER, tmp_path, target)
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, 5))):
                process.stdout.readline()
            time.sleep(float(rng.random()) * 0.03)
            process.send_signal(signal.SIGKILL)
            ended = "done" in process.communicate()[0]
            with VectorIndex(tmp_path) as index:
                assert index.stats()["profile"] in (at, target)
                assert not ended or index.stats()["profile"] == target
                check_vectors(index, model, target)
                check_files(index)
                late = int(rng.integers(0, 30_000))
                model[late] = some(1, late)[0]
                index.add([late], model[late][None])
        with VectorIndex(tmp_path) as index:
            index.convert(target)
            check_vectors(index, model, target)
            check_files(index)
        at = target
        assert [path.name for path in tmp_path.glob("refine.*")] == [FILES[target]]


def test_another_process_reads_and_writes_all_the_while(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=DIM, metric="l2", profile="exact") as index:
        index.add(np.arange(30_000), some(30_000))
        writers = [run(WRITER, tmp_path, which) for which in (1, 2)]
        outs = [writer.stdout for writer in writers if writer.stdout is not None]
        lines = [out.readline() for out in outs]
        for target in ("standard", "compact"):
            index.convert(target)
            lines += [out.readline() for out in outs]
        for writer in writers:
            writer.terminate()
        for out in outs:
            lines += out.read().splitlines()
        for writer in writers:
            writer.wait()
        for line in lines:
            first, count = map(int, line.split())
            assert first not in index
            ids = np.arange(first + 1, first + count)
            wanted = np.repeat((ids % 1000 + 1.0)[:, None], DIM, axis=1)
            np.testing.assert_allclose(index.get(ids), wanted.reshape(-1, DIM), rtol=0.15)
        index.wait()
        check_files(index)
        assert len(lines) >= 8 and index.stats()["profile"] == "compact"
        assert [path.name for path in tmp_path.glob("refine.*")] == ["refine.5"]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_threads_search_while_one_writes_and_one_converts(tmp_path: Path, kind: str) -> None:
    if kind == "hnsw":
        pytest.importorskip("hnswlib")
    vectors = some(20_000)
    stop = threading.Event()
    with (
        VectorIndex(tmp_path, dim=DIM, kind=kind, profile="exact") as index,
        ThreadPoolExecutor(4) as pool,
    ):
        index.add(np.arange(10_000), vectors[:10_000])
        if kind == "hnsw":
            index.wait()

        def search() -> int:
            searches = 0
            while not stop.is_set():
                ids, _ = index.search(vectors[[1234, 4321]], 3)
                assert ids[:, 0].tolist() == [1234, 4321]
                np.testing.assert_allclose(index.get([77])[0], vectors[77], atol=0.5)
                searches += 1
            return searches

        def write() -> int:
            writes = 0
            while not stop.is_set():
                first = 10_000 + writes * 300 % 9000
                index.add(np.arange(first, first + 300), vectors[first : first + 300])
                index.remove(np.arange(first, first + 100))
                writes += 1
            return writes

        counts = [pool.submit(search), pool.submit(search), pool.submit(write)]
        for target in ("standard", "compact"):
            index.convert(target)
        stop.set()
        assert all(count.result() > 0 for count in counts)
        index.wait()
        check_files(index)
        stats = index.stats()
        assert stats["profile"] == "compact"
        if kind == "hnsw":
            assert stats["linked"] == stats["encoded"] and stats["graph_problem"] is None
    with VectorIndex(tmp_path) as index:
        assert index.search(vectors[1234], 1)[0].tolist() == [[1234]]


def test_a_step_becomes_as_large_as_the_time_for_it_allows() -> None:
    pace = vector_convert.Pace()
    first = pace.slots
    pace.took(1.0)
    assert pace.slots == 2 * first
    for _ in range(20):
        pace.took(pace.slots * 0.1)  # 10 slots a millisecond
    assert pace.slots == 10 * vector_convert.STEP_MS
    pace.took(1e6)
    assert 0 < pace.slots < first
