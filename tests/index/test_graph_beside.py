"""What waits for the graph is searched with it: estimated beside a walk, scored in one list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memdb.index.graph import GraphIndex
from memdb.index.graph_build import GraphParams
from memdb.index.graph_kernels import NOWHERE
from memdb.index.kernels import available
from memdb.index.protocol import Metric, Profile
from memdb.index.reads import Access
from memdb.index.reference import NumpyKernels
from memdb.index.slots import SlotSet
from tests.index.test_graph import clustered, link_all, made, opened, recall

WAITING = slice(5, None, 10)  # every tenth slot waits


def partly_linked(directory: Path, vectors: np.ndarray, *given: Any, **more: Any) -> GraphIndex:
    index = made(directory, vectors, *given, **more)
    everyone = SlotSet.all(len(vectors))
    link_all(index, everyone - SlotSet.from_slots(np.arange(len(vectors))[WAITING]))
    return index


@pytest.mark.parametrize("profile", ["exact", "compact"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_what_waits_is_ranked_with_what_is_linked(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = clustered(2000), clustered(30, seed=1)
    index = partly_linked(tmp_path, vectors, metric, profile)
    everyone = SlotSet.all(2000)
    found, distances = index.search(queries, 10, allowed=everyone, effort=80)
    assert (index.stats()["walked"], index.stats()["given_up"]) == (30, 0)
    truth, right = index.search(queries, 10, allowed=everyone, exact=True)
    assert recall(found, truth) >= 0.95
    assert (np.diff(distances, axis=1) >= 0).all()
    waits = index.waiting(everyone).contains(found.reshape(-1))
    assert 0 < waits.sum() < waits.size
    same = found == truth
    np.testing.assert_allclose(distances[same], right[same], rtol=1e-4, atol=1e-5)
    read = opened(tmp_path, index.spec, access=Access(1, io="read", depth=1))
    read.mark_linked(everyone - index.waiting(everyone))
    again, alike = read.search(queries, 10, allowed=everyone, effort=80)
    assert read.io == "read" and read.stats()["walked"] == 30
    assert (again == found).mean() >= 0.99
    np.testing.assert_array_equal(alike[again == found], distances[again == found])


def test_none_that_is_not_allowed_is_found_and_far_ones_are_not_scored(tmp_path: Path) -> None:
    vectors, queries = clustered(2400, dim=64), clustered(20, seed=1, dim=64)
    index = partly_linked(tmp_path, vectors, "cosine")
    allowed = SlotSet.from_slots(np.flatnonzero(np.arange(2400) % 25 != 1))
    found, _ = index.search(queries, 10, allowed=allowed, effort=100)
    stats = index.stats()
    assert stats["walked"] == 20 and allowed.contains(found.reshape(-1)).all()
    truth, _ = index.search(queries, 10, allowed=allowed, exact=True)
    assert recall(found, truth) >= 0.95
    assert stats["scored"] < 20 * (100 + index.waiting(allowed).count) // 2


def test_more_results_than_the_graph_has_come_from_a_scan(tmp_path: Path) -> None:
    """Entries lead nowhere: the walk finds few, and all that is allowed is looked at."""
    vectors = clustered(2400)
    index = made(tmp_path, vectors)
    everyone = SlotSet.all(2400)
    linked = link_all(index, SlotSet.all(2000))
    index.mark_linked(linked)
    state = index._state
    assert state is not None
    state.arrays.places[:] = NOWHERE
    found, _ = index.search(vectors[:5], 10, allowed=everyone, effort=60)
    truth, _ = index.search(vectors[:5], 10, allowed=everyone, exact=True)
    assert index.stats()["given_up"] == 5
    assert recall(found, truth) >= 0.95


@pytest.mark.parametrize("kernels", available()[1:], ids=lambda kernels: kernels.name)
def test_every_kernel_set_ranks_what_waits_alike(tmp_path: Path, kernels: object) -> None:
    vectors, queries = clustered(130, dim=64), clustered(8, seed=1, dim=64)
    answers: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for one in (NumpyKernels(), kernels):
        folder = tmp_path / str(len(answers))
        folder.mkdir()
        how = {"kernels": one, "params": GraphParams(R=6, L_build=12)}
        index = partly_linked(folder, vectors, "cosine", **how)
        some = SlotSet.from_slots(np.flatnonzero(np.arange(130) % 7))
        answers.append(
            [
                index.search(queries, 3, allowed=allowed, effort=effort)
                for allowed in (SlotSet.all(130), some)
                for effort in (6, 16)
            ]
        )
        assert index.stats()["walked"] > 0
    for (slots, distances), (others, right) in zip(*answers, strict=True):
        assert (slots == others).mean() >= 0.98
        np.testing.assert_allclose(distances, right, rtol=1e-3, atol=1e-4)


def test_slots_beside_that_are_outside_the_rows_are_refused(tmp_path: Path) -> None:
    index = partly_linked(tmp_path, clustered(400))
    space, state = index.flat.space_arrays(), index._state
    assert space is not None and state is not None
    for beside, keep in ((np.array([2**31], np.uint32), 1), (np.array([3], np.uint32), 0)):
        with pytest.raises(ValueError, match="beside"):
            index.kernels.graph_search(
                state.arrays,
                space,
                clustered(1),
                allowed=state.linked.bitset,
                inside=False,
                k=1,
                breadth=8,
                most_hops=100,
                threads=1,
                beside=beside,
                beside_keep=keep,
            )
