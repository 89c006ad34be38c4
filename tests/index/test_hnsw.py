"""``HnswIndex`` against brute force: walks, lags, filters, growth, rewriting and what it saves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from memdb.errors import InvalidArgument, MissingDependency, StoreCorrupt
from memdb.index import engines, hnsw_file
from memdb.index.flat import FlatIndex
from memdb.index.hnsw import HnswIndex
from memdb.index.hnsw_graph import GraphParams
from memdb.index.protocol import Engine, Linking, Metric, Profile, SpaceSpec
from memdb.index.slots import SlotSet

pytest.importorskip("hnswlib")

ROOT = Path(__file__).parents[2]
VECTORS = ROOT.parent / "shared" / "data" / "vectors"
DIM = 24


def clustered(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Points about 40 centres, as the meanings of sentences lie."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dim))
    return (centres[rng.integers(0, 40, n)] + 0.5 * rng.standard_normal((n, dim))).astype("f4")


def make(
    directory: Path, metric: Metric = "l2", profile: Profile = "exact", threads: int = 1
) -> HnswIndex:
    spec = SpaceSpec(dim=DIM, metric=metric, profile=profile)
    index = HnswIndex(directory, spec, writable=True, threads=threads)
    index.train(clustered(1000, seed=5))
    return index


def enter(index: HnswIndex, slots: np.ndarray, vectors: np.ndarray) -> None:
    index.publish(index.prepare(slots, index.encode(vectors)))


def link_all(index: HnswIndex, allowed: SlotSet, most: int = 500) -> None:
    while index.link(allowed, most):
        pass
    assert index.waiting(allowed).count == 0


def reopened(index: HnswIndex) -> HnswIndex:
    spec = index.spec
    index.close()
    return HnswIndex(index._flat.directory, spec, writable=True)


def keys(queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> np.ndarray:
    if metric == "l2":
        return ((queries[:, None, :] - vectors[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return 1 - queries @ vectors.T
    return -(queries @ vectors.T)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / truth.size


@pytest.mark.parametrize("profile", ["exact", "standard"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_walk_finds_the_nearest_on_the_scale_of_the_records(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = clustered(3000), clustered(50, seed=1)
    index = make(tmp_path, metric, profile, threads=2)
    enter(index, np.arange(3000), vectors)
    everything = SlotSet.all(3000)
    link_all(index, everything)
    found, distances = index.search(queries, 10, allowed=everything)
    assert index.stats()["walked"] == 50
    truth, right = index.search(queries, 10, allowed=everything, exact=True)
    assert index.stats()["walked"] == 50
    assert recall(found, truth) >= 0.98
    same = found == truth
    np.testing.assert_allclose(distances[same], right[same], rtol=1e-4, atol=1e-5)
    model = np.sort(keys(queries, index.fetch(everything.array), metric), axis=1)[:, :10]
    np.testing.assert_allclose(right, model, rtol=1e-3, atol=1e-3)
    one, _ = index.search(queries[7], 10, allowed=everything)
    assert one.tolist() == [found[7].tolist()]


def test_slots_that_wait_are_found_at_once_and_dead_ones_never(tmp_path: Path) -> None:
    vectors = clustered(4000)
    index = make(tmp_path)
    enter(index, np.arange(3000), vectors[:3000])
    link_all(index, SlotSet.all(3000))
    enter(index, np.arange(3000, 4000), vectors[3000:])
    found, _ = index.search(vectors[2990:3010], 1, allowed=SlotSet.all(4000))
    assert found[:, 0].tolist() == list(range(2990, 3010))
    assert (index.stats()["linked"], index.stats()["walked"]) == (3000, 20)
    left = SlotSet.from_slots(np.arange(100, 4000))  # 100 retired: their records are there still
    found, _ = index.search(vectors[:100], 10, allowed=left)
    assert found.min() >= 100 and index.stats()["walked"] == 120
    index.clear(np.arange(100))
    assert index.stats()["linked"] == 2900
    found, _ = index.search(vectors[:100], 10, allowed=left)
    assert found.min() >= 100


@pytest.mark.parametrize("count", [0, 1, 5, 9, 60, 600, 2500, 2990])
def test_a_filtered_search_has_exactly_as_many_results_as_there_are(
    tmp_path: Path, count: int
) -> None:
    vectors, queries = clustered(3000), clustered(20, seed=2)
    index = make(tmp_path)
    enter(index, np.arange(3000), vectors)
    link_all(index, SlotSet.all(3000))
    near = np.argsort(keys(queries[:1], vectors, "l2")[0])
    for chosen in (near[:count], near[3000 - count :]):  # with the query, and against it
        allowed = SlotSet.from_slots(chosen)
        found, distances = index.search(queries, 10, allowed=allowed)
        sound = np.isfinite(distances)
        assert (sound.sum(axis=1) == min(10, count)).all()
        assert allowed.contains(found[sound]).all()
        if count < 2700:
            scanned = index._flat.search(queries, 10, allowed=allowed)
            np.testing.assert_array_equal(found, scanned[0])
        else:
            truth, _ = index.search(queries, 10, allowed=allowed, exact=True)
            assert recall(found, truth) >= 0.98
    assert (index.stats()["walked"] > 0) == (count >= 2700)


def test_the_graph_grows_past_any_first_size(tmp_path: Path) -> None:
    vectors = clustered(6000)
    index = make(tmp_path)
    done = 0
    for count in (1, 1, 30, 968, 24, 1, 975, 4000):
        enter(index, np.arange(done, done + count), vectors[done : done + count])
        done += count
        link_all(index, SlotSet.all(done), most=250)
        assert index.stats()["linked"] == done
    found, _ = index.search(vectors, 1, allowed=SlotSet.all(6000))
    assert (found[:, 0] == np.arange(6000)).mean() >= 0.99


def test_slots_that_are_written_again_hold_what_was_written_last(tmp_path: Path) -> None:
    index = make(tmp_path)
    everything = SlotSet.all(3000)
    vectors = clustered(3000)
    enter(index, np.arange(3000), vectors)
    link_all(index, everything)
    rng = np.random.default_rng(3)
    for turn in range(6):
        chosen = np.sort(rng.permutation(3000)[:1500])
        index.clear(chosen)
        if turn % 2:
            link_all(index, everything - SlotSet.from_slots(chosen))  # buried, not only dead
        vectors[chosen] = clustered(1500, seed=10 + turn)
        enter(index, chosen, vectors[chosen])
        found, _ = index.search(vectors[chosen[:50]], 1, allowed=everything)
        assert found[:, 0].tolist() == chosen[:50].tolist()
        link_all(index, everything)
    queries = clustered(200, seed=50)
    walked = index.stats()["walked"]
    found, _ = index.search(queries, 10, allowed=everything)
    assert index.stats()["walked"] == walked + 200
    truth = np.argsort(keys(queries, vectors, "l2"), axis=1)[:, :10]
    assert recall(found, truth) >= 0.97


def test_another_process_rewrites_slots_and_recheck_lets_go_of_them(tmp_path: Path) -> None:
    writer = make(tmp_path)
    everything = SlotSet.all(3000)
    enter(writer, np.arange(3000), clustered(3000))
    reader = HnswIndex(tmp_path, writer.spec, writable=False)
    link_all(reader, everything)
    chosen = np.arange(500, 700)
    writer.clear(chosen)
    others = clustered(200, seed=7) + 3
    enter(writer, chosen, others)
    reader.refresh()
    reader.recheck(np.arange(400, 1000, dtype=np.uint32))
    assert reader.waiting(everything).array.tolist() == chosen.tolist()
    found, _ = reader.search(others, 1, allowed=everything)
    assert found[:, 0].tolist() == chosen.tolist() and reader.stats()["walked"] == 200
    writer.clear([3])
    reader.recheck(None)
    assert 3 in reader.waiting(everything).array


def test_equal_vectors_and_broken_graphs_give_k_results(tmp_path: Path) -> None:
    """hnswlib raises where it reaches fewer than k: islands of equal vectors are the known case."""
    index = make(tmp_path)
    vectors = np.repeat(clustered(3, seed=4), 1000, axis=0)
    enter(index, np.arange(3000), vectors)
    everything = SlotSet.all(3000)
    link_all(index, everything)
    for k in (1, 10, 900, 1400, 3000, 5000):
        found, distances = index.search(clustered(4, seed=8), k, allowed=everything)
        assert (np.isfinite(distances).sum(axis=1) == min(k, 3000)).all()
        for row, keys_ in zip(found, distances, strict=True):
            sound = row[np.isfinite(keys_)]
            assert len(set(sound.tolist())) == len(sound) and (np.diff(keys_[:3000]) >= 0).all()


def test_short_and_empty_vectors_have_directions_or_none(tmp_path: Path) -> None:
    index = make(tmp_path, metric="cosine")
    vectors = clustered(2000)
    vectors[:1000] *= np.float32(1e-25)
    vectors[7] = 0
    enter(index, np.arange(2000), vectors)
    link_all(index, SlotSet.all(2000))
    found, distances = index.search(vectors[1000:1050], 1, allowed=SlotSet.all(2000))
    assert found[:, 0].tolist() == list(range(1000, 1050))
    np.testing.assert_allclose(distances, 0, atol=1e-4)
    short, _ = index.search(vectors[20:60], 1, allowed=SlotSet.all(2000))
    assert short[:, 0].tolist() == list(range(20, 60)) and index.stats()["walked"] == 90


@pytest.mark.skipif(
    not VECTORS.is_dir(), reason="../shared/data/vectors is not there: recall is not measured"
)
@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_embeddings_of_sentences_are_found(tmp_path: Path, metric: Metric) -> None:
    """With inner products the vectors get lengths that are log-normal."""
    rng = np.random.default_rng(0)
    base = np.load(VECTORS / "minilm384-100k-base.f16.npy")[:4000].astype(np.float32)
    queries = np.load(VECTORS / "minilm384-100k-queries.f16.npy")[:200].astype(np.float32)
    if metric == "ip":
        base *= rng.lognormal(0, 1, (len(base), 1)).astype(np.float32)
    spec = SpaceSpec(dim=384, metric=metric)
    index = HnswIndex(tmp_path, spec, writable=True, threads=2)
    index.train(base)
    enter(index, np.arange(4000), base)
    link_all(index, SlotSet.all(4000))
    found, _ = index.search(queries, 10, allowed=SlotSet.all(4000))
    assert index.stats()["walked"] == 200
    truth = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    assert recall(found, truth) >= 0.95
    chosen = np.sort(rng.permutation(4000)[:400])  # a tenth are replaced by each other
    index.clear(chosen)
    base[chosen] = base[rng.permutation(chosen)]
    enter(index, chosen, base[chosen])
    link_all(index, SlotSet.all(4000))
    found, _ = index.search(queries, 10, allowed=SlotSet.all(4000))
    assert index.stats()["walked"] == 400
    truth = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    assert recall(found, truth) >= 0.95


def test_searches_go_on_while_the_graph_changes(tmp_path: Path) -> None:
    vectors = clustered(6000)
    index = make(tmp_path)
    everything = SlotSet.all(6000)
    enter(index, np.arange(6000), vectors)
    done = threading.Event()

    def search() -> int:
        searches = 0
        while not done.is_set():
            found, distances = index.search(vectors[17], 5, allowed=everything)
            assert found[0, 0] == 17 and np.isfinite(distances).all()
            searches += 1
        return searches

    with ThreadPoolExecutor(2) as pool:
        counts = [pool.submit(search) for _ in range(2)]
        while index.link(everything, 64):
            pass
        before = index.stats()["walked"]
        while index.stats()["walked"] == before and not any(count.done() for count in counts):
            pass
        done.set()
        assert all(count.result() > 0 for count in counts)
    assert index.stats()["walked"] > 0


def test_a_change_that_fails_leaves_an_empty_graph_that_is_built_again(tmp_path: Path) -> None:
    index = make(tmp_path)
    everything = SlotSet.all(2000)
    enter(index, np.arange(2000), clustered(2000))
    link_all(index, everything)
    with pytest.raises(RuntimeError):  # as when memory ends half-way
        index._graph.link(np.array([3], np.uint32), np.zeros((1, DIM + 1), "f4"), np.zeros(1, "u4"))
    assert index.waiting(everything).count == 2000
    found, _ = index.search(clustered(2000)[5], 1, allowed=everything)
    assert found.tolist() == [[5]] and index.stats()["walked"] == 0
    link_all(index, everything)
    assert index.search(clustered(2000)[5], 1, allowed=everything)[0].tolist() == [[5]]
    assert index.stats()["walked"] == 1


# --- saving ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[HnswIndex]:
    """600 linked slots, some of them buried, saved and open again."""
    index = make(tmp_path)
    enter(index, np.arange(600), clustered(600))
    link_all(index, SlotSet.all(600))
    index.clear(np.arange(40))
    link_all(index, SlotSet.from_slots(np.arange(40, 600)))
    index.save()
    index = reopened(index)
    yield index
    index.close()


def test_a_saved_graph_is_used_as_it_was(saved: HnswIndex) -> None:
    allowed = SlotSet.from_slots(np.arange(40, 600))
    assert saved.graph_problem is None and saved.waiting(allowed).count == 0
    assert saved.unsaved == 0
    queries = clustered(30, seed=1)
    found, _ = saved.search(queries, 5, allowed=allowed, effort=100)
    assert saved.stats()["walked"] == 30
    assert recall(found, saved.search(queries, 5, allowed=allowed, exact=True)[0]) >= 0.98
    enter(saved, np.arange(40), clustered(40))  # buried slots come back to life
    enter(saved, np.arange(600, 3000), clustered(2400, seed=2))  # and the room grows
    link_all(saved, SlotSet.all(3000))
    assert saved.search(clustered(40), 1, allowed=SlotSet.all(3000))[0][:, 0].tolist() == [
        *range(40)
    ]


def test_what_was_cleared_is_in_no_file(saved: HnswIndex) -> None:
    directory = saved._flat.directory
    marks = [vector.astype("<f2").astype("<f4").tobytes() for vector in clustered(600)]

    def found() -> list[int]:
        raw = b"".join(path.read_bytes() for path in directory.glob("hnsw*"))
        return [number for number, mark in enumerate(marks) if mark in raw]

    assert found() == list(range(40, 600))
    saved.clear(np.arange(300, 400))
    assert found() == []  # not even until the next save
    saved.save()
    assert found() == [*range(40, 300), *range(400, 600)]


def test_a_few_changes_are_not_worth_a_file(saved: HnswIndex) -> None:
    before = {path.name for path in saved._flat.directory.glob("hnsw*")}
    everything = SlotSet.from_slots(np.arange(40, 601))
    enter(saved, np.array([600]), clustered(1))
    link_all(saved, everything)
    saved.save()
    assert {path.name for path in saved._flat.directory.glob("hnsw*")} == before
    enter(saved, np.arange(601, 700), clustered(99))
    link_all(saved, SlotSet.from_slots(np.arange(40, 700)))
    saved.save()
    after = {path.name for path in saved._flat.directory.glob("hnsw*")}
    assert len(after) == len(before) == 2 and after != before


def assert_refused_and_rebuilt(index: HnswIndex, expected: type[Exception] = StoreCorrupt) -> None:
    again = HnswIndex(index._flat.directory, index.spec, writable=True)
    allowed = SlotSet.from_slots(np.arange(40, 600))
    assert isinstance(again.graph_problem, expected)
    assert again.waiting(allowed).count == 560
    queries = clustered(3, seed=1)
    right = again.search(queries, 5, allowed=allowed, exact=True)[0]
    assert again.search(queries, 5, allowed=allowed)[0].tolist() == right.tolist()
    again.close()


def test_every_damaged_byte_of_the_head_is_noticed(saved: HnswIndex) -> None:
    path = saved._flat.directory / hnsw_file.NAME
    whole = path.read_bytes()
    sealed = 20 + hnsw_file._FIELDS.size + 4  # behind it zeros fill the page
    places = [*range(sealed), *range(4096, len(whole), 97), len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        index = HnswIndex(path.parent, saved.spec, writable=False)
        assert index.graph_problem is not None and index.stats()["linked"] == 0, place
        index.close()
    for size in (0, 10, 50, 4095, 4096, 4100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused_and_rebuilt(saved)
    path.write_bytes(whole + b"\0\0\0\0")
    assert_refused_and_rebuilt(saved)


def test_every_damaged_part_of_the_payload_is_noticed(saved: HnswIndex) -> None:
    (path,) = saved._flat.directory.glob("hnsw.*.graph")
    whole = path.read_bytes()
    places = [*range(0, 96, 4), *range(96, len(whole), 1511), len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        index = HnswIndex(path.parent, saved.spec, writable=False)
        assert isinstance(index.graph_problem, StoreCorrupt) and path.name in str(
            index.graph_problem
        ), place
        index.close()
    for size in (0, 95, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused_and_rebuilt(saved)
    path.unlink()
    assert_refused_and_rebuilt(saved)


def test_a_graph_with_other_parameters_is_built_again(saved: HnswIndex) -> None:
    other = HnswIndex(saved._flat.directory, saved.spec, writable=True, params=GraphParams(M=8))
    assert isinstance(other.graph_problem, StoreCorrupt) and "parameters" in str(
        other.graph_problem
    )
    allowed = SlotSet.from_slots(np.arange(40, 600))
    link_all(other, allowed)
    other.save()
    assert other.graph_problem is None
    other.close()
    assert_refused_and_rebuilt(saved)


@pytest.mark.skipif(os.name == "nt", reason="limits on the size of a file")
def test_a_full_disk_keeps_the_graph_that_was_saved(saved: HnswIndex) -> None:
    """hnswlib reports no failed write: what it wrote must be measured."""
    code = """
        import resource, sys
        from pathlib import Path
        from memdb.index.hnsw import HnswIndex
        from memdb.index.protocol import SpaceSpec

        index = HnswIndex(Path(sys.argv[1]), SpaceSpec(dim=24, metric="l2", profile="exact",
                          epoch=1), writable=True)
        assert index.graph_problem is None
        index._changed = 10**6
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        index.save()
        print(type(index.graph_problem).__name__)
    """
    before = {path: path.read_bytes() for path in saved._flat.directory.glob("hnsw*")}
    for limit in (0, 5000, 50_000):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), saved._flat.directory, str(limit)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "StoreFull", done.stderr
        after = saved._flat.directory.glob("hnsw*")
        assert {path: path.read_bytes() for path in after if path.suffix != ".new"} == before


# --- the choice ------------------------------------------------------------------------------


def test_the_kind_decides_the_engine_and_its_params(tmp_path: Path) -> None:
    spec = SpaceSpec(dim=4)
    defaults = {"M": 16, "ef_construction": 200}
    assert engines.complete_params("hnsw", None) == defaults
    assert engines.complete_params("hnsw", {"M": 8}) == {**defaults, "M": 8}
    assert engines.complete_params("flat", None) == {}
    for kind, params in (
        ("flat", {"M": 8}),
        ("hnsw", {"M": 1}),
        ("hnsw", {"M": 8.0}),
        ("hnsw", {"M": True}),
        ("hnsw", {"ef_construction": 0}),
        ("hnsw", {"ef": 10}),
    ):
        with pytest.raises(InvalidArgument):
            engines.complete_params(kind, params)
    flat = engines.open_engine("flat", tmp_path, spec, {}, writable=True, threads=1)
    graph = engines.open_engine("hnsw", tmp_path, spec, defaults, writable=True, threads=1)
    assert isinstance(flat, FlatIndex) and not isinstance(flat, Linking)
    assert isinstance(graph, HnswIndex) and isinstance(graph, Linking)
    contract: list[Engine] = [flat, graph]
    for engine in contract:
        engine.close()
    with pytest.raises(StoreCorrupt):
        engines.open_engine("tree", tmp_path, spec, {}, writable=True, threads=1)


def test_without_hnswlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(MissingDependency) as caught:
        HnswIndex(tmp_path, SpaceSpec(dim=4), writable=True)
    assert caught.value.extra == "hnsw"
