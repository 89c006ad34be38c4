"""A graph whose pages and records are read, not mapped: the same answers, within a budget."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memdb
from memdb.errors import InvalidArgument, StoreCorrupt
from memdb.index import graph_file
from memdb.index.graph import GraphIndex
from memdb.index.kernels import default_kernels
from memdb.index.protocol import Metric, Profile, SpaceSpec
from memdb.index.reads import LEAST_CACHE_BYTES, Access, native_of
from memdb.index.slots import SlotSet
from tests.index.test_graph import WALKS, clustered, link_all, made, recall

needs_reads = pytest.mark.skipif(
    native_of(default_kernels()) is None, reason="these kernels read no files"
)
pytestmark = needs_reads
READ = Access(1, io="read")
N = 3000
EVERYONE = SlotSet.all(N)


def reopened(directory: Path, spec: SpaceSpec, access: Access, **more: Any) -> GraphIndex:
    """The linked index of ``directory`` as another handle has it."""
    given: dict[str, Any] = {"writable": False, "calibration": WALKS, "access": access, **more}
    index = GraphIndex(directory, spec, **given)
    index.mark_linked(EVERYONE)
    return index


def direct_works(directory: Path) -> bool:
    if not hasattr(os, "O_DIRECT"):
        return False
    path = directory / "tried"
    path.write_bytes(bytes(4096))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SpaceSpec]]:
    directory = tmp_path_factory.mktemp("graph")
    index = made(directory, clustered(N))
    link_all(index, EVERYONE)
    spec = index.spec
    index.close()
    yield directory, spec


@pytest.mark.parametrize("profile", ["exact", "standard", "compact"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_one_page_at_a_time_gives_what_the_mapped_graph_gives(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    index = made(tmp_path, clustered(1500), metric, profile)
    everyone = SlotSet.all(1500)
    link_all(index, everyone)
    queries = clustered(30, seed=1)
    wanted, right = index.search(queries, 10, allowed=everyone, effort=60)
    for io in ("read", "direct"):
        if io == "direct" and not direct_works(tmp_path):
            continue
        read = reopened(tmp_path, index.spec, Access(1, io=io, depth=1))  # type: ignore[arg-type]
        read.mark_linked(everyone)
        assert read.io == io
        found, distances = read.search(queries, 10, allowed=everyone, effort=60)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(distances, right)
        stats = read.stats()
        assert stats["walked"] == 30
        assert stats["pages_read"] > 0 and stats["records_read"] > 30


@pytest.mark.parametrize("rings", [True, False])
@pytest.mark.parametrize("depth", [4, 32])
def test_pages_in_flight_cost_no_recall(
    linked: tuple[Path, SpaceSpec], monkeypatch: pytest.MonkeyPatch, depth: int, rings: bool
) -> None:
    directory, spec = linked
    if not direct_works(directory):
        pytest.skip("the file system has no way past the page cache")
    monkeypatch.setattr("memdb.index.reads.RINGS", rings)
    read = reopened(directory, spec, Access(1, io="direct", depth=depth), threads=3)
    queries = clustered(40, seed=2)
    truth, right = read.search(queries, 10, allowed=EVERYONE, exact=True)
    found, distances = read.search(queries, 10, allowed=EVERYONE, effort=80)
    assert recall(found, truth) >= 0.95
    same = found == truth
    np.testing.assert_allclose(distances[same], right[same], rtol=1e-5)
    assert read.stats()["reads_waited"] > 0
    state = read._state
    assert state is not None and state.reads is not None
    assert not (state.reads.records.pool.has_rings and not rings)


def test_the_cache_keeps_to_its_bytes_and_is_used(linked: tuple[Path, SpaceSpec]) -> None:
    directory, spec = linked
    read = reopened(directory, spec, READ)
    assert (directory / graph_file.NAME).stat().st_size > 1.2 * LEAST_CACHE_BYTES
    for seed in range(3):
        read.search(clustered(100, seed=seed), 10, allowed=EVERYONE, effort=100)
    stats = read.stats()
    assert 0.5 * LEAST_CACHE_BYTES < stats["cache_bytes"] <= LEAST_CACHE_BYTES
    assert stats["cache_hits"] > stats["pages_read"]
    before = stats["pages_read"]
    read.drop_cached()
    read.search(clustered(1), 10, allowed=EVERYONE, effort=100)
    assert read.stats()["pages_read"] > before


def test_files_are_mapped_when_they_fit_the_memory_and_not_otherwise(
    linked: tuple[Path, SpaceSpec],
) -> None:
    directory, spec = linked
    sizes = sum((directory / name).stat().st_size for name in (graph_file.NAME, "refine.8"))
    kept = 4096 * (12 + 4)  # a code of 24 bits in a word with its factors, and a place
    assert reopened(directory, spec, Access(sizes + kept)).io == "mapped"
    assert reopened(directory, spec, Access(sizes)).io == "read"
    assert reopened(directory, spec, Access(sizes + kept, beside_bytes=100)).io == "read"
    assert reopened(directory, spec, Access(1, io="mapped")).io == "mapped"
    with pytest.raises(InvalidArgument, match="io must be one of"):
        Access(1, io="somehow")  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_nothing_but_codes_is_mapped(linked: tuple[Path, SpaceSpec]) -> None:
    directory, spec = linked
    read = reopened(directory, spec, READ)
    queries = clustered(5, seed=3)
    few = SlotSet.from_slots(np.arange(0, 40))
    for allowed in (EVERYONE, few):
        read.search(queries, 10, allowed=allowed)
        read.search(queries, 10, allowed=allowed, exact=True)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines()
              if str(directory) in line]  # fmt: skip
    assert mapped and all(line.endswith("codes.bin") for line in mapped)


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0.002, 1),
    seed=st.integers(0, 1000),
    k=st.integers(1, 30),
    exact=st.booleans(),
)
def test_every_way_through_an_allowed_set_is_that_of_the_mapped_files(
    linked: tuple[Path, SpaceSpec], share: float, seed: int, k: int, exact: bool
) -> None:
    directory, spec = linked
    rng = np.random.default_rng(seed)
    allowed = SlotSet.from_slots(np.flatnonzero(rng.random(N) < share))
    read = reopened(directory, spec, replace(READ, depth=1))
    mapped = reopened(directory, spec, Access(1, io="mapped"))
    queries = clustered(2, seed=seed)
    found, distances = read.search(queries, k, allowed=allowed, exact=exact)
    due = min(k, allowed.count)
    assert np.isfinite(distances).sum(axis=1).tolist() == [due, due]
    assert allowed.contains(found[np.isfinite(distances)]).all()
    if exact or read.plan(allowed, k).name == mapped.plan(allowed, k).name:
        wanted, right = mapped.search(queries, k, allowed=allowed, exact=exact)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(distances, right)
    near, its_distances = read.within(queries[0], float(distances[0, 0]), allowed=allowed)
    if due:
        assert found[0, 0] in near
        np.testing.assert_array_equal(its_distances, distances[0, : len(near)])


def test_a_torn_page_is_read_again_and_then_scanned_around(tmp_path: Path) -> None:
    index = made(tmp_path, clustered(1500))
    everyone = SlotSet.all(1500)
    link_all(index, everyone)
    spec = index.spec
    index.close()
    path = tmp_path / graph_file.NAME
    raw = bytearray(path.read_bytes())
    raw[4096 * (1 + graph_file.place_page(0, 32) + 2) + 100] ^= 0x55
    path.write_bytes(raw)
    read = reopened(tmp_path, spec, READ)
    read.mark_linked(everyone)
    vectors = clustered(1500)
    found, _ = read.search(vectors, 1, allowed=everyone, effort=40)
    assert read.stats()["torn_pages"] == 1
    assert "torn" in str(read.graph_problem)
    assert read.waiting(everyone).count > 10
    found, _ = read.search(vectors, 1, allowed=everyone, effort=40)
    assert (found[:, 0] == np.arange(1500)).mean() >= 0.99


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    index = made(tmp_path, clustered(1000))
    everyone = SlotSet.all(1000)
    link_all(index, everyone)
    spec = index.spec
    index.close()
    path = tmp_path / "refine.8"
    raw = bytearray(path.read_bytes())
    size = 16 + 24
    raw[4096 + 7 * size + 20] ^= 1
    path.write_bytes(raw)
    read = reopened(tmp_path, spec, READ)
    read.mark_linked(everyone)
    vectors = clustered(1000)
    for exact in (False, True):
        with pytest.raises(StoreCorrupt, match=r"refine\.8 has a damaged record at slot 7"):
            read.search(vectors[7], 1, allowed=everyone, exact=exact)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails")
@pytest.mark.parametrize("rings", [True, False])
@pytest.mark.parametrize("part", ["pages", "records"])
def test_a_read_that_the_system_refuses_names_the_file(
    linked: tuple[Path, SpaceSpec], monkeypatch: pytest.MonkeyPatch, part: str, rings: bool
) -> None:
    monkeypatch.setattr("memdb.index.reads.RINGS", rings)
    directory, spec = linked
    read = reopened(directory, spec, READ)
    native = native_of(read.kernels)
    state = read._state
    assert native is not None and state is not None and state.reads is not None
    nothing = os.open("/proc/self/mem", os.O_RDONLY)  # no memory is mapped at its beginning: EIO
    try:
        refusing = native[0].FileReader(nothing, 0, str(directory / "graph.bin"), False)
    finally:
        os.close(nothing)
    if part == "pages":
        state.reads.pages = refusing
    else:
        state.reads.records.file = refusing
    with pytest.raises(StoreCorrupt, match=r"graph\.bin cannot be read") as caught:
        read.search(clustered(1), 10, allowed=EVERYONE, effort=100)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO


def test_removed_slots_leave_pages_and_cache(tmp_path: Path) -> None:
    index = made(tmp_path, clustered(1500), access=replace(READ, depth=1))
    everyone = SlotSet.all(1500)
    link_all(index, everyone)
    vectors = clustered(1500)
    index.search(vectors[:200], 1, allowed=everyone, effort=40)
    gone = SlotSet.from_slots(np.arange(0, 1500, 3))
    left = everyone - gone
    index.clear(gone.array)
    index.mark_linked(left)
    found, _ = index.search(vectors[left.array[:300]], 1, allowed=left, effort=60)
    assert (found[:, 0] == left.array[:300]).mean() >= 0.98
    assert index.io == "read"


def test_many_read_beside_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memdb.index.row_access.default_calibration", lambda: WALKS)
    vectors = clustered(7000, dim=48)
    ix = memdb.VectorIndex(tmp_path, dim=48, metric="l2", kind="ssd", params={"io": "read"})
    ix.add(np.arange(5000), vectors[:5000])
    ix.wait()
    assert ix.stats()["io"] == "read"
    ended = threading.Event()

    def ask(seed: int) -> int:
        rng, asked = np.random.default_rng(seed), 0
        while not ended.is_set():
            chosen = rng.integers(0, 5000, 16)
            found, distances = ix.search(vectors[chosen], 3, effort=100)
            assert np.isfinite(distances).all()
            assert (found[:, 0] == chosen).mean() > 0.8
            asked += 1
        return asked

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, seed) for seed in range(3)]
        try:
            for first in range(5000, 7000, 500):
                ix.add(np.arange(first, first + 500), vectors[first : first + 500])
                ix.remove(np.arange(first, first + 100))
                ix.wait()
        finally:
            ended.set()
        assert all(future.result() > 0 for future in asking)
    ix.search(vectors[6000:6016], 3, effort=100)
    stats = ix.stats()
    assert stats["walked"] > 0 and stats["pages_read"] > 0
    assert stats["waiting"] == 0 and stats["records_read"] > 0 and stats["cache_bytes"] > 0
    ix.close()


def test_a_reader_sees_the_pages_that_another_process_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memdb.index.row_access.default_calibration", lambda: WALKS)
    vectors = clustered(6000, dim=48)
    path = tmp_path / "index"
    with memdb.VectorIndex(path, dim=48, metric="l2", kind="ssd") as ix:
        ix.add(np.arange(5000), vectors[:5000])
        ix.wait()
    np.save(tmp_path / "more.npy", vectors[5000:])
    reader = memdb.VectorIndex(path, params={"io": "read"}, readonly=True)
    reader.search(vectors[:300], 5, effort=60)  # its cache has pages that will be changed
    before = reader.stats()
    writer = (
        "import sys, numpy as np, memdb\n"
        "with memdb.VectorIndex(sys.argv[1]) as ix:\n"
        "    ix.add(np.arange(5000, 6000), np.load(sys.argv[2]))\n"
        "    ix.remove(np.arange(1000))\n"
        "    ix.wait()\n"
    )
    arguments = [sys.executable, "-c", writer, str(path), str(tmp_path / "more.npy")]
    subprocess.run(arguments, check=True, timeout=100)
    chosen = np.arange(4500, 6000, 5)
    found, _ = reader.search(vectors[chosen], 5, effort=100)
    stats = reader.stats()
    assert (stats["io"], stats["waiting"]) == ("read", 0)
    assert stats["walked"] >= before["walked"] + len(chosen)
    assert (found[:, 0] == chosen).mean() >= 0.97
    assert found.min() >= 1000
    reader.close()


def test_io_is_of_the_handle_and_not_stored(tmp_path: Path) -> None:
    with memdb.VectorIndex(tmp_path, dim=8, kind="ssd", params={"io": "read", "R": 16}) as ix:
        ix.add(np.arange(4200), clustered(4200, dim=8))
        ix.wait()
        assert ix.stats()["io"] == "read"
        assert "io" not in ix.stats()["params"]
    with memdb.VectorIndex(tmp_path, params={"R": 16}) as ix:
        assert ix.stats()["io"] == "mapped"
    with memdb.VectorIndex(tmp_path, memory_budget="100KB") as ix:
        assert ix.stats()["io"] == "read"
    for kind in ("flat", "hnsw"):
        with pytest.raises(InvalidArgument, match="param"):
            memdb.VectorIndex(tmp_path / "other", dim=8, kind=kind, params={"io": "read"})
    with pytest.raises(InvalidArgument, match="io must be one of"):
        memdb.VectorIndex(tmp_path / "other", dim=8, kind="ssd", params={"io": 7})
