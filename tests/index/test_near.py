"""A shortlist by estimates: what is left out of it unscored is not among the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memdb.index import layout
from memdb.index.flat import FlatIndex
from memdb.index.kernels import Kernels, available
from memdb.index.protocol import Metric, SpaceSpec
from memdb.index.slots import SlotSet

COUNT, DIM, K, KEEP, ASKED = 2_000, 48, 10, 600, 10
KERNELS = available()


@pytest.fixture(scope="module", params=["cosine", "ip", "l2"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FlatIndex:
    metric: Metric = request.param
    rng = np.random.default_rng(7)
    centres = 3 * rng.standard_normal((30, DIM))
    vectors = (centres[rng.integers(0, 30, COUNT)] + rng.standard_normal((COUNT, DIM))).astype(
        np.float32
    )
    return _built(tmp_path_factory.mktemp("near"), metric, vectors)


def _built(directory: Path, metric: Metric, vectors: np.ndarray) -> FlatIndex:
    index = FlatIndex(directory, SpaceSpec(dim=DIM, metric=metric), writable=True)
    index.train(vectors[:1000])
    index.publish(index.prepare(np.arange(len(vectors)), index.encode(vectors)))
    return index


def _arguments(index: FlatIndex, queries: np.ndarray) -> dict[str, Any]:
    everyone = SlotSet.from_slots(np.arange(COUNT, dtype=np.uint32))
    records, codes = index._files_for(everyone)
    assert codes is not None
    return {
        "groups": codes.groups,
        "records": records.records,
        "metric": layout.METRICS[index.spec.metric],
        "precision": index._quantiser.precision,
        "queries": index._quantiser.queries(queries),
        "signs": index._quantiser.signs,
        "centre": codes.centre,
        "allowed": everyone.bitset,
        "k": K,
        "keep": KEEP,
        "threads": 1,
    }


def _whole(kernels: Kernels, given: dict[str, Any]) -> list[set[int]]:
    """The nearest of whole shortlists, every one of which was scored."""
    rotated = kernels.rotate(given["queries"], given["signs"])
    entries, bases, steps = kernels.query_tables(rotated - given["centre"])
    found = []
    for at, query in enumerate(rotated):
        tables = entries[at], float(bases[at]), float(steps[at])
        slots, _ = kernels.scan(given["groups"], DIM, *tables, given["allowed"], KEEP)
        slots = np.sort(slots)
        distances, bad = kernels.rescore(
            given["records"], DIM, given["metric"], given["precision"], query, slots
        )
        assert bad == -1
        found.append(set(slots[np.lexsort((slots, distances))[:K]].tolist()))
    return found


@pytest.mark.parametrize("kernels", KERNELS, ids=[one.name for one in KERNELS])
@pytest.mark.parametrize("far", [False, True])
def test_what_is_not_scored_of_a_shortlist_is_not_among_the_nearest(
    index: FlatIndex, kernels: Kernels, far: bool
) -> None:
    rng = np.random.default_rng(8)
    queries = index.fetch(rng.integers(0, COUNT, ASKED).astype(np.uint32))
    queries = queries + (4 if far else 0.5) * rng.standard_normal(queries.shape).astype(np.float32)
    given = _arguments(index, queries.astype(np.float32))
    slots, _, bad = kernels.search(**given)
    assert bad == -1
    wanted = _whole(kernels, given)
    held = [len(set(one.tolist()) & other) for one, other in zip(slots, wanted, strict=True)]
    assert sum(held) >= 0.99 * K * ASKED


@pytest.mark.parametrize("kernels", KERNELS, ids=[one.name for one in KERNELS])
def test_equal_vectors_are_found_in_the_order_of_their_slots(
    tmp_path: Path, kernels: Kernels
) -> None:
    vectors = np.tile(np.linspace(-1e3, 1e3, DIM, dtype=np.float32), (COUNT, 1))
    index = _built(tmp_path, "l2", vectors)
    found, _, _ = kernels.search(**_arguments(index, vectors[:2] + 1))
    np.testing.assert_array_equal(found, np.tile(np.arange(K), (2, 1)))
