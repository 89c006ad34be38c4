"""``GraphIndex`` against brute force: walks, lags, filters, damage, and what a build leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.index import graph_file, layout, planner
from memdb.index.calibration import BUILTIN, Calibration
from memdb.index.graph import GraphIndex
from memdb.index.graph_build import GraphParams
from memdb.index.graph_file import GraphFile
from memdb.index.graph_kernels import NOWHERE
from memdb.index.kernels import available
from memdb.index.protocol import Drafting, Engine, Metric, Profile, SpaceSpec
from memdb.index.reference import NumpyKernels
from memdb.index.slots import SlotSet

DIM = 24
WALKS = Calibration(code_block_ns=60, record_ns=5, rough_ns=8, row_ns=1)
"""Costs by which small spaces are walked too."""


def clustered(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Points about 40 centres, as the meanings of sentences lie."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dim))
    return (centres[rng.integers(0, 40, n)] + 0.5 * rng.standard_normal((n, dim))).astype("f4")


def opened(directory: Path, spec: SpaceSpec, *, threads: int = 1, **more: object) -> GraphIndex:
    given: dict[str, Any] = {"threads": threads, "calibration": WALKS, **more}
    return GraphIndex(directory, spec, writable=True, **given)


def made(
    directory: Path,
    vectors: np.ndarray,
    metric: Metric = "l2",
    profile: Profile = "standard",
    threads: int = 1,
    **more: object,
) -> GraphIndex:
    spec = SpaceSpec(dim=vectors.shape[1], metric=metric, profile=profile)
    index = opened(directory, spec, threads=threads, **more)
    index.train(vectors[:1000])
    enter(index, np.arange(len(vectors)), vectors)
    return index


def enter(index: GraphIndex, slots: np.ndarray, vectors: np.ndarray) -> None:
    index.publish(index.prepare(slots, index.encode(vectors)))


def link_all(index: GraphIndex, encoded: SlotSet, linked: SlotSet | None = None) -> SlotSet:
    """Build, install and say so; returns what is linked."""
    build = index.begin(encoded, memory_bytes=1 << 30)
    assert build is not None
    while build.link(300):
        pass
    slots, seals = build.write()
    assert (index.flat.seals(slots) == seals).all()
    index.install()
    index.refresh()
    linked = SlotSet.from_slots(slots) | (linked or SlotSet.empty())
    index.mark_linked(linked)
    return linked


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / truth.size


@pytest.mark.parametrize("profile", ["exact", "standard", "compact"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_walk_finds_the_nearest_on_the_scale_of_the_records(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = clustered(2000), clustered(40, seed=1)
    index = made(tmp_path, vectors, metric, profile, threads=2)
    everyone = SlotSet.all(2000)
    assert index.linkable(everyone) == 2000
    link_all(index, everyone)
    assert index.waiting(everyone).count == 0
    found, distances = index.search(queries, 10, allowed=everyone, effort=100)
    assert index.plan(everyone, 10, effort=100).name == "graph"
    assert index.stats()["walked"] == 40
    truth, right = index.search(queries, 10, allowed=everyone, exact=True)
    assert recall(found, truth) >= 0.95
    same = found == truth
    np.testing.assert_allclose(distances[same], right[same], rtol=1e-4, atol=1e-5)
    one, _ = index.search(queries[7], 10, allowed=everyone, effort=100)
    assert one.tolist() == [found[7].tolist()]
    assert isinstance(index, Drafting)
    engine: Engine = index
    assert engine.trained


def test_recall_grows_with_effort(tmp_path: Path) -> None:
    vectors, queries = clustered(3000, dim=64), clustered(60, seed=1, dim=64)
    index = made(tmp_path, vectors, "cosine")
    everyone = SlotSet.all(3000)
    link_all(index, everyone)
    truth, _ = index.search(queries, 10, allowed=everyone, exact=True)
    found = [
        recall(index.search(queries, 10, allowed=everyone, effort=effort)[0], truth)
        for effort in (10, 30, 100)
    ]
    assert found[0] < found[1] < found[2]
    assert found[2] >= 0.95


def test_one_thread_builds_the_same_graph_of_the_same_vectors(tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        index = made(tmp_path / name, clustered(1200))
        link_all(index, SlotSet.all(1200))
        index.close()
        files.append((tmp_path / name / graph_file.NAME).read_bytes())
    assert files[0] == files[1]


def test_what_waits_is_found_at_once_and_linked_later_into_the_same_graph(tmp_path: Path) -> None:
    vectors = clustered(2400)
    index = made(tmp_path, vectors)
    half, everyone = SlotSet.all(2000), SlotSet.all(2400)
    linked = link_all(index, half)
    found, _ = index.search(vectors[1990:2010], 1, allowed=everyone, effort=60)
    assert found[:, 0].tolist() == list(range(1990, 2010))
    assert index.stats()["walked"] == 20
    assert index.waiting(everyone).array.tolist() == list(range(2000, 2400))
    before = GraphFile(tmp_path, index.spec, writable=False)
    assert link_all(index, everyone, linked) == everyone
    assert index.waiting(everyone).count == 0
    found, _ = index.search(vectors[1990:2010], 1, allowed=everyone, effort=60)
    assert found[:, 0].tolist() == list(range(1990, 2010))
    assert index.stats()["walked"] == 40
    after = GraphFile(tmp_path, index.spec, writable=False)
    assert after.entries.tolist() == before.entries.tolist()
    before.close()
    after.close()


def test_forgotten_slots_are_in_no_record_and_in_no_answer(tmp_path: Path) -> None:
    vectors = clustered(2000)
    index = made(tmp_path, vectors)
    link_all(index, SlotSet.all(2000))
    gone, rest = np.arange(0, 2000, 3), SlotSet.from_slots(np.flatnonzero(np.arange(2000) % 3))
    index.clear(gone)
    index.mark_linked(rest)
    stored = GraphFile(tmp_path, index.spec, writable=False)
    assert (stored.places[gone] == NOWHERE).all()
    lists = np.zeros((2000, 33), np.uint32)
    stored.fill(lists)
    assert not lists[gone].any()
    stored.verify()
    stored.close()
    found, _ = index.search(vectors[:60], 5, allowed=rest, effort=60)
    assert index.stats()["walked"] == 60
    assert (found % 3 != 0).all()
    truth, _ = index.search(vectors[:60], 5, allowed=rest, exact=True)
    assert recall(found, truth) >= 0.9
    # Slots that hold others now are linked like new ones.
    enter(index, gone, clustered(len(gone), seed=8))
    everyone = SlotSet.all(2000)
    assert index.waiting(everyone) == SlotSet.from_slots(gone)
    link_all(index, everyone, rest)
    found, _ = index.search(clustered(len(gone), seed=8)[:50], 1, allowed=everyone, effort=60)
    assert recall(found, gone[:50, None]) >= 0.95


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    share=st.sampled_from([0.0, 0.002, 0.02, 0.3, 0.6, 0.95, 1.0]),
    k=st.sampled_from([1, 7, 40]),
    effort=st.sampled_from([None, 1, 25, 90]),
    seed=st.integers(0, 3),
    near=st.booleans(),
)
def test_a_search_has_as_many_results_as_there_are_matches(
    space: tuple[GraphIndex, np.ndarray],
    share: float,
    k: int,
    effort: int | None,
    seed: int,
    near: bool,
) -> None:
    index, vectors = space
    rng = np.random.default_rng(seed)
    query = clustered(1, seed=seed + 20, dim=64)
    chosen = rng.random(len(vectors)) < share
    if not near:  # what the query is farthest from
        order = np.argsort(-((vectors - query) ** 2).sum(axis=1))
        chosen = np.zeros(len(vectors), bool)
        chosen[order[: int(share * len(vectors))]] = True
    allowed = SlotSet.from_slots(np.flatnonzero(chosen))
    found, distances = index.search(query, k, allowed=allowed, effort=effort)
    count = min(k, allowed.count)
    inside = found[0, :count]
    assert len(set(inside.tolist())) == count
    assert allowed.contains(inside).all()
    assert (found[0, count:] == 2**32 - 1).all()
    assert np.isinf(distances[0, count:]).all()
    assert (np.diff(distances[0, :count]) >= 0).all()
    exact = ((index.fetch(inside) - query) ** 2).sum(axis=1)
    np.testing.assert_allclose(distances[0, :count], exact, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphIndex, np.ndarray]:
    """6,300 vectors, 6,000 of them linked."""
    vectors = clustered(6300, dim=64)
    index = made(tmp_path_factory.mktemp("space"), vectors)
    link_all(index, SlotSet.all(6000))
    return index, vectors


@pytest.mark.parametrize(("share", "effort"), [(0.9, 120), (0.5, 70)])
def test_filters_are_walked_through_and_keep_their_recall(
    space: tuple[GraphIndex, np.ndarray], share: float, effort: int
) -> None:
    index, _ = space
    chosen = np.flatnonzero(np.random.default_rng(2).random(6000) < share)
    allowed, queries = SlotSet.from_slots(chosen), clustered(50, seed=4, dim=64)
    before = index.stats()["walked"]
    found, _ = index.search(queries, 5, allowed=allowed, effort=effort)
    assert index.stats()["walked"] == before + 50
    truth, _ = index.search(queries, 5, allowed=allowed, exact=True)
    assert recall(found, truth) >= 0.93


def test_a_walk_that_leads_away_from_the_filter_gives_up_and_scans(
    space: tuple[GraphIndex, np.ndarray],
) -> None:
    index, vectors = space
    query = vectors[:1]
    order = np.argsort(((vectors[:6000] - query) ** 2).sum(axis=1))
    allowed = SlotSet.from_slots(order[-2000:])
    before = index.stats()["given_up"]
    found, _ = index.search(query, 5, allowed=allowed, effort=25)
    assert index.stats()["given_up"] == before + 1
    assert allowed.contains(found[0]).all()


def test_the_planner_walks_where_that_costs_less() -> None:
    spec = SpaceSpec(dim=384)

    def named(n: int, share: float, waiting: int = 0) -> str:
        allowed = SlotSet.all(int(n * share))
        more: dict[str, Any] = {"codes": True, "rows": True, "capacity": n, "effort": None}
        flat = planner.plan_search(spec, allowed, 10, exact=False, calibration=BUILTIN, **more)
        return planner.plan_graph(
            spec,
            flat,
            10,
            effort=None,
            inside=allowed.count - waiting,
            waiting=waiting,
            linked=n - waiting,
            degree=32,
            calibration=BUILTIN,
        ).name

    assert named(200_000, 1) == "graph"
    assert named(200_000, 0.5) == "graph"
    assert named(1_000_000, 0.05) in ("scan", "gather")
    assert named(1_000_000, 0.0001) == "refine"
    assert not planner.wants_graph(spec, 50_000, BUILTIN)
    assert planner.wants_graph(spec, 200_000, BUILTIN)


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [0, -1])
def test_a_torn_page_costs_no_answer(tmp_path: Path, page: int) -> None:
    vectors = clustered(2000)
    index = made(tmp_path, vectors)
    everyone = SlotSet.all(2000)
    link_all(index, everyone)
    file = GraphFile(tmp_path, index.spec, writable=False)
    head = file.file.header_bytes
    number = int(np.unique(file.places[:2000] >> 8)[page])
    slots = np.flatnonzero(file.places >> 8 == number)
    file.close()
    index.close()
    path = tmp_path / graph_file.NAME
    content = bytearray(path.read_bytes())
    content[head + number * 4096 + 100] ^= 0xFF
    path.write_bytes(content)
    again = opened(tmp_path, index.spec)
    again.mark_linked(everyone)
    found, _ = again.search(vectors[slots], 1, allowed=everyone, effort=50)
    found, _ = again.search(vectors[slots], 1, allowed=everyone, effort=50)
    assert found[:, 0].tolist() == slots.tolist()
    assert again.stats()["torn_pages"] == 1
    assert again.waiting(everyone) == SlotSet.from_slots(slots)
    assert "torn" in str(again.graph_problem)
    with pytest.raises(StoreCorrupt, match=r"graph\.bin has a torn page"):
        again.verify(everyone.array[:1])
    link_all(again, everyone, everyone - again.waiting(everyone))
    assert again.stats()["torn_pages"] == 0
    again.verify(everyone.array[:1])


@pytest.mark.parametrize("where", ["header", "place", "length", "missing", "other"])
def test_a_graph_that_cannot_be_used_is_told_and_built_again(tmp_path: Path, where: str) -> None:
    vectors = clustered(1500)
    index = made(tmp_path, vectors)
    everyone = SlotSet.all(1500)
    link_all(index, everyone)
    index.close()
    path = tmp_path / graph_file.NAME
    content = bytearray(path.read_bytes())
    if where == "header":
        content[20] ^= 1
    elif where == "place":
        content[4096 * (1 + graph_file.place_page(0, 32)) + 100] ^= 1
    elif where == "length":
        del content[-4096:]
    path.write_bytes(b"nothing of the kind" if where == "other" else content)
    if where == "missing":
        path.unlink()
    again = opened(tmp_path, index.spec)
    again.mark_linked(everyone)
    found, _ = again.search(vectors[:40], 1, allowed=everyone, effort=50)
    assert found[:, 0].tolist() == list(range(40))
    assert again.waiting(everyone).count > 0
    assert (again.graph_problem is None) == (where == "missing")
    link_all(again, everyone, everyone - again.waiting(everyone))
    assert again.waiting(everyone).count == 0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000))
def test_no_damage_leads_outside(small: tuple[GraphIndex, np.ndarray, bytes], seed: int) -> None:
    """Pages whose checksums hold, filled with anything: as hostile as bytes can be."""
    index, vectors, sound = small
    rng = np.random.default_rng(seed)
    path = index.flat.directory / graph_file.NAME
    content = np.frombuffer(sound, np.uint8).copy()
    file = GraphFile(index.flat.directory, index.spec, writable=False)
    pages, head = len(file.pages), file.file.header_bytes
    first = graph_file.place_page(0, 32) if seed % 2 else 0  # sound entries lead to the rest
    file.close()
    for _ in range(rng.integers(1, 40)):
        at = head + int(rng.integers(first, pages)) * 4096 + 16
        start = int(rng.integers(0, 4000))
        size = int(rng.integers(1, 80))
        content[at + start : at + start + size] = rng.integers(0, 256, size)[: 4080 - start]
    body = content[head:].reshape(-1, 4096)
    body[:] = graph_file.seal(body.copy(), np.arange(len(body)))
    draft = path.with_name("draft")
    draft.write_bytes(content.tobytes())
    os.replace(draft, path)
    index.refresh()
    everyone = SlotSet.all(len(vectors))
    index.mark_linked(SlotSet.all(len(vectors)))
    for allowed in (everyone, everyone - SlotSet.from_slots(np.arange(0, len(vectors), 4))):
        found, distances = index.search(vectors[:5], 10, allowed=allowed, effort=40)
        assert allowed.contains(found.reshape(-1)).all()
        assert np.isfinite(distances).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphIndex, np.ndarray, bytes]:
    vectors = clustered(900)
    index = made(tmp_path_factory.mktemp("small"), vectors)
    link_all(index, SlotSet.all(900))
    return index, vectors, (index.flat.directory / graph_file.NAME).read_bytes()


def test_a_damaged_record_that_a_walk_meets_is_named(tmp_path: Path) -> None:
    vectors = clustered(2000)
    index = made(tmp_path, vectors)
    everyone = SlotSet.all(2000)
    link_all(index, everyone)
    path = tmp_path / "refine.8"
    content = bytearray(path.read_bytes())
    content[4096 + 7 * layout.record_bytes(DIM, layout.INT8) + 20] ^= 1
    path.write_bytes(content)
    again = opened(tmp_path, index.spec)
    again.mark_linked(everyone)
    with pytest.raises(StoreCorrupt, match=r"refine\.8 has a damaged record at slot 7"):
        again.search(vectors[7], 1, allowed=everyone, effort=50)
    index.close()


# --- files, arguments --------------------------------------------------------------------------


def test_codes_in_blocks_are_written_anew_in_rows_and_answer_alike(tmp_path: Path) -> None:
    from memdb.index.flat import FlatIndex

    vectors = clustered(5000)
    spec = SpaceSpec(dim=DIM, metric="l2")
    flat = FlatIndex(tmp_path, spec, writable=True, calibration=WALKS)
    spec = flat.train(vectors[:1000])
    flat.publish(flat.prepare(np.arange(5000), flat.encode(vectors)))
    everyone = SlotSet.all(5000)
    before, _ = flat.search(vectors[:30], 5, allowed=everyone, effort=200)
    flat.rows = True
    flat.rearrange()
    assert flat.spec == spec
    index = opened(tmp_path, spec)
    assert index.codes_problem is None
    index.verify(everyone.array)
    for engine in (flat, index):
        found, _ = engine.search(vectors[:30], 5, allowed=everyone, effort=200)
        assert recall(found, before) >= 0.98
    enter(index, np.arange(4990, 5010), clustered(20, seed=3))
    index.clear(np.arange(10))
    index.verify(np.arange(10, 5010))
    index.rebuild_codes(SlotSet.from_slots(np.arange(10, 5010)))
    index.verify(np.arange(10, 5010))
    found, _ = index.search(clustered(20, seed=3), 1, allowed=SlotSet.all(5010) - SlotSet.all(10))
    assert found[:, 0].tolist() == list(range(4990, 5010))


def test_lists_that_exceed_the_memory_given_lie_in_a_file(tmp_path: Path) -> None:
    vectors = clustered(1200)
    index = made(tmp_path, vectors, profile="exact")
    everyone = SlotSet.all(1200)
    build = index.begin(everyone, memory_bytes=1000)
    assert build is not None
    while build.link(500):
        pass
    build.write()
    index.install()
    index.refresh()
    index.mark_linked(everyone)
    found, _ = index.search(vectors[:50], 1, allowed=everyone, effort=50)
    assert found[:, 0].tolist() == list(range(50))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "codes.bin",
        "graph.bin",
        "refine.f16",
    ]


@pytest.mark.parametrize("n", [1, 2, 33, 300])
def test_few_and_equal_vectors_are_linked_and_found(tmp_path: Path, n: int) -> None:
    vectors = np.repeat(clustered(-(-n // 30)), 30, axis=0)[:n]
    index = made(tmp_path, vectors)
    everyone = SlotSet.all(n)
    link_all(index, everyone)
    assert index.waiting(everyone).count == 0
    found, _ = index.search(vectors[:3], n, allowed=everyone, effort=3)
    assert np.sort(found, axis=1).tolist() == [list(range(n))] * len(found)


@pytest.mark.parametrize(
    "params", [{"R": 3}, {"R": 49}, {"R": True}, {"L_build": 0}, {"alpha": 0.9}, {"alpha": "x"}]
)
def test_parameters_out_of_range_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        GraphParams(**params)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", available()[1:], ids=lambda kernels: kernels.name)
def test_every_kernel_set_builds_and_walks_the_same_graph(tmp_path: Path, kernels: object) -> None:
    """Against the twin's: of 64 dimensions, whose estimates seldom tie."""
    vectors, queries = clustered(130, dim=64), clustered(8, seed=1, dim=64)
    everyone = SlotSet.all(130)
    pages, answers = [], []
    for one in (NumpyKernels(), kernels):
        folder = tmp_path / str(len(pages))
        folder.mkdir()
        index = made(folder, vectors, "cosine", kernels=one, params=GraphParams(R=6, L_build=12))
        link_all(index, everyone)
        inside = everyone - SlotSet.from_slots(np.arange(0, 130, 5))
        answers.append(
            [
                index.search(queries, 3, allowed=allowed, effort=effort)
                for allowed in (everyone, inside)
                for effort in (6, 16)
            ]
        )
        assert index.stats()["walked"] > 0
        lists = np.zeros((130, 7), np.uint32)
        stored = GraphFile(folder, index.spec, writable=False)
        stored.fill(lists)
        stored.close()
        pages.append(lists)
    assert (pages[0] == pages[1]).mean() >= 0.99
    for (slots, distances), (others, right) in zip(*answers, strict=True):
        assert (slots == others).mean() >= 0.98
        np.testing.assert_allclose(distances, right, rtol=1e-3, atol=1e-4)
