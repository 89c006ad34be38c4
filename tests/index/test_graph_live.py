"""Linking in place against brute force and its twin: changes, growth, damage, what is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memdb.index import graph_file, layout
from memdb.index.graph import GraphIndex
from memdb.index.graph_build import GraphParams
from memdb.index.graph_file import GraphFile
from memdb.index.graph_kernels import NOWHERE
from memdb.index.kernels import available
from memdb.index.protocol import Live, Metric, Profile, SpaceSpec
from memdb.index.reference import NumpyKernels
from memdb.index.slots import SlotSet
from tests.index.test_graph import DIM, clustered, enter, link_all, made, opened, recall

SMALL = GraphParams(R=12, L_build=32)


def live_of(index: GraphIndex) -> Live:
    live = index.live()
    assert live is not None
    return live


def shown(index: GraphIndex, live: Live, linked: SlotSet) -> None:
    index.changed(live.flush())
    index.mark_linked(linked)


def link(index: GraphIndex, live: Live, slots: np.ndarray) -> None:
    for first in range(0, len(slots), 64):
        live.link(slots[first : first + 64].astype(np.uint32))


def found_of(index: GraphIndex, queries: np.ndarray, allowed: SlotSet, effort: int = 60) -> float:
    before = index.stats()["walked"]
    found, _ = index.search(queries, 5, allowed=allowed, effort=effort)
    assert index.stats()["walked"] == before + len(queries)
    truth, _ = index.search(queries, 5, allowed=allowed, exact=True)
    return recall(found, truth)


@pytest.mark.parametrize(
    ("metric", "profile"),
    [("cosine", "exact"), ("cosine", "standard"), ("ip", "standard"), ("l2", "compact")],
)
def test_what_is_linked_in_place_is_found_as_by_a_build(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = clustered(2400, dim=64), clustered(40, seed=3, dim=64)
    index = made(tmp_path, vectors, metric, profile, params=SMALL)
    link_all(index, SlotSet.all(600))
    live = live_of(index)
    link(index, live, np.arange(600, 2400))
    everyone = SlotSet.all(2400)
    shown(index, live, everyone)
    assert index.waiting(everyone).count == 0
    lived = found_of(index, queries, everyone)
    live.close()
    index.verify(everyone.array)
    (tmp_path / "other").mkdir()
    other = made(tmp_path / "other", vectors, metric, profile, params=SMALL)
    link_all(other, everyone)
    assert lived >= found_of(other, queries, everyone) - 0.03
    index.close()
    other.close()


def test_what_is_taken_out_leads_nowhere_and_costs_no_recall(tmp_path: Path) -> None:
    vectors, queries = clustered(3000, dim=64), clustered(40, seed=3, dim=64)
    index = made(tmp_path, vectors, params=SMALL)
    everyone = SlotSet.all(3000)
    link_all(index, everyone)
    going = np.random.default_rng(1).permutation(3000)[:1500].astype(np.uint32)
    left = everyone - SlotSet.from_slots(going)
    live = live_of(index)
    live.unlink(going)
    shown(index, live, left)
    file = GraphFile(tmp_path, index.spec, writable=False)
    assert (file.places[going] == NOWHERE).all()
    lists = np.zeros((3000, 1 + file.degree), np.uint32)
    file.fill(lists)
    named = lists[:, 1:][np.arange(file.degree) < lists[:, :1]]
    assert (
        np.isin(named, going).mean() < 0.05
    )  # whom the walk did not find: hints that lead nowhere
    assert not np.isin(file.entries, going).any()
    file.close()
    index.clear(going)
    assert found_of(index, queries, left) >= 0.93
    link(index, live, going[:0])
    live.close()
    index.close()


def test_slots_that_were_taken_out_are_linked_again_with_other_vectors(tmp_path: Path) -> None:
    vectors = clustered(2000, dim=64)
    index = made(tmp_path, vectors, params=SMALL)
    everyone = SlotSet.all(2000)
    link_all(index, everyone)
    size = (tmp_path / graph_file.NAME).stat().st_size
    for turn in range(3):
        slots = np.arange(turn, 2000, 3, dtype=np.uint32)
        live = live_of(index)
        live.unlink(slots)
        shown(index, live, everyone - SlotSet.from_slots(slots))
        index.clear(slots)
        enter(index, slots, clustered(len(slots), seed=50 + turn, dim=64))
        link(index, live, slots)
        shown(index, live, everyone)
        live.close()
    assert found_of(index, clustered(40, seed=3, dim=64), everyone) >= 0.93
    assert (tmp_path / graph_file.NAME).stat().st_size == size
    index.verify(everyone.array)
    index.close()


def test_a_graph_begins_and_ends_with_nothing(tmp_path: Path) -> None:
    vectors = clustered(700, dim=64)
    index = made(tmp_path, vectors, params=SMALL)
    link_all(index, SlotSet.all(1))
    live = live_of(index)
    live.unlink(np.zeros(1, np.uint32))
    shown(index, live, SlotSet.empty())
    assert index.waiting(SlotSet.all(700)).count == 700
    link(index, live, np.arange(700))
    shown(index, live, SlotSet.all(700))
    assert found_of(index, clustered(20, seed=3, dim=64), SlotSet.all(700), 40) >= 0.9
    live.close()
    index.close()


def test_equal_vectors_are_all_reached(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(10, dim=64), 60, axis=0)
    index = made(tmp_path, vectors, params=SMALL)
    link_all(index, SlotSet.all(60))
    live = live_of(index)
    link(index, live, np.arange(60, 600))
    shown(index, live, SlotSet.all(600))
    live.close()
    found, distances = index.search(vectors[::60], 40, allowed=SlotSet.all(600), effort=200)
    assert np.isfinite(distances).all()
    assert (found // 60 == np.arange(10)[:, None]).mean() >= 0.95
    index.close()


@pytest.mark.parametrize("what", ["page", "places", "entries"])
def test_torn_pages_are_found_by_who_begins_and_their_slots_linked_again(
    tmp_path: Path, what: str
) -> None:
    vectors = clustered(2200, dim=64)
    index = made(tmp_path, vectors, params=SMALL)
    everyone = SlotSet.all(2200)
    link_all(index, everyone)
    file = GraphFile(tmp_path, index.spec, writable=False)
    number = {
        "page": int(file.places[300] >> 8),
        "places": graph_file.place_page(1, file.degree),
        "entries": 0,
    }[what]
    at = file.file.header_bytes + 4096 * number
    file.close()
    index.close()
    content = bytearray((tmp_path / graph_file.NAME).read_bytes())
    content[at + 20 : at + 4000] = os_bytes(3980)
    (tmp_path / graph_file.NAME).write_bytes(content)
    again = opened(tmp_path, index.spec, params=SMALL)
    again.mark_linked(everyone)
    live = live_of(again)
    shown(again, live, everyone)
    waiting = again.waiting(everyone)
    assert (waiting.count > 0) == (what != "entries")
    found, _ = again.search(vectors[waiting.array], 1, allowed=everyone, effort=60)
    assert found[:, 0].tolist() == waiting.array.tolist()
    link(again, live, waiting.array)
    shown(again, live, everyone)
    live.close()
    assert again.waiting(everyone).count == 0
    again.verify(everyone.array)
    assert again.stats()["torn_pages"] == 0
    assert found_of(again, clustered(40, seed=3, dim=64), everyone) >= 0.93
    again.close()


def os_bytes(count: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, count, np.uint8).tobytes()


def test_records_that_a_killed_process_left_are_zeroed(tmp_path: Path) -> None:
    vectors = clustered(1200, dim=64)
    index = made(tmp_path, vectors, params=SMALL)
    link_all(index, SlotSet.all(900))
    live = live_of(index)
    link(index, live, np.arange(900, 1200))  # and no flush: no place leads to them
    live.close()
    assert records_of(tmp_path, index) == set(range(1200))
    live_of(index).close()
    assert records_of(tmp_path, index) == set(range(900))
    index.close()


def records_of(directory: Path, index: GraphIndex) -> set[int]:
    """The slots of all records in the file, placed or not."""
    file = GraphFile(directory, index.spec, writable=False)
    size, records = layout.graph_record_bytes(file.degree), layout.graph_records(file.degree)
    used = np.ones(len(file.pages), bool)
    used[: graph_file.ENTRY_PAGES] = False
    stride = 1 + graph_file.pages_of_extent(file.degree)
    used[graph_file.place_page(0, file.degree) :: stride] = False
    body = file.pages[used][:, layout.GRAPH_HEAD_BYTES :][:, : records * size].reshape(-1, size)
    body = body[body.any(axis=1)]
    file.close()
    return set(graph_file.numbers_of(body[:, :3])[:, 0].tolist())


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1000))
def test_any_order_of_changes_leaves_a_sound_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = clustered(1300, dim=64, seed=seed)
    index = made(tmp_path_factory.mktemp("any"), vectors, params=SMALL)
    linked = link_all(index, SlotSet.all(500))
    live = live_of(index)
    for _ in range(6):
        if rng.random() < 0.3:  # as another process would
            live.close()
            live = live_of(index)
        chosen = SlotSet.from_slots(rng.choice(1300, int(rng.integers(1, 200)), replace=False))
        if rng.random() < 0.5:
            link(index, live, (chosen - linked).array)
            linked = linked | chosen
        else:
            live.unlink((chosen & linked).array)
            linked = linked - chosen
        shown(index, live, linked)
        assert index.waiting(linked).count == 0
        assert records_of(index.flat.directory, index) == set(linked.array.tolist())
    index.verify(np.arange(1300))
    query = clustered(1, seed=seed + 1, dim=64)
    found, _ = index.search(query, 5, allowed=SlotSet.all(1300), effort=40)
    assert len(set(found[0].tolist())) == 5
    live.close()
    index.close()


@pytest.mark.parametrize(
    ("metric", "profile"),
    [("cosine", "exact"), ("ip", "standard"), ("l2", "compact")],
)
@pytest.mark.parametrize("kernels", available()[1:], ids=lambda kernels: kernels.name)
def test_every_kernel_set_makes_the_changes_of_the_twin(
    tmp_path: Path, kernels: object, metric: Metric, profile: Profile
) -> None:
    vectors = clustered(150, dim=64)
    lists = []
    for one in (NumpyKernels(), kernels):
        folder = tmp_path / str(len(lists))
        folder.mkdir()
        how = GraphParams(R=6, L_build=12)
        index = made(folder, vectors, metric, profile, kernels=one, params=how)
        link_all(index, SlotSet.all(100))
        live = live_of(index)
        live.link(np.arange(100, 150, dtype=np.uint32))
        live.flush()
        live.unlink(np.arange(0, 40, dtype=np.uint32))
        live.flush()
        live.close()
        file = GraphFile(folder, index.spec, writable=False)
        lists.append(np.zeros((150, 7), np.uint32))
        file.fill(lists[-1])
        file.verify()
        file.close()
        index.close()
    assert (lists[0] == lists[1]).mean() >= 0.97


def test_a_graph_is_written_alike_however_many_extents_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are filled from the first on: the last extents may have places and no records."""
    spec = SpaceSpec(dim=DIM, metric="l2", profile="standard")
    slots, degree = 2 * graph_file.PLACES + 1, 32
    assert 2 * graph_file.pages_of_extent(degree) * layout.graph_records(degree) >= slots
    rng = np.random.default_rng(0)
    lists = np.full((slots, 1 + degree), degree, np.uint32)
    lists[:, 1:] = rng.integers(0, slots, (slots, degree))
    written = []
    for together in (32, 1, 2):
        monkeypatch.setattr(graph_file, "_EXTENTS_AT_ONCE", together)
        order = np.arange(slots, dtype=np.uint32)
        graph_file.write_draft(tmp_path, spec, degree, lists, order, order[:3])
        written.append((tmp_path / graph_file.DRAFT).read_bytes())
    assert written[0] == written[1] == written[2]
    graph_file.install(tmp_path)
    file = GraphFile(tmp_path, spec, writable=False)
    assert not (file.places[:slots] == NOWHERE).any()
    file.file.close()
