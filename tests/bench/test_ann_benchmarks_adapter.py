"""The adapter for ann-benchmarks, driven as its runner drives it: by config.yml and by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "bench" / "ann_benchmarks" / "memdb"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapter_of_memdb", FOLDER / "module.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def definitions(metric: str) -> Iterator[tuple[str, list[Any], list[list[Any]]]]:
    """Constructor, its arguments and the sets of query arguments, as its definitions.py makes them.

    A mapping in ``arg_groups`` is expanded over those of its values that are lists; lists of
    groups and of query arguments are multiplied out; names with @ are replaced.
    """
    content = yaml.safe_load((FOLDER / "config.yml").read_text())
    for algorithm in content["float"]["any"]:
        base = [{"@metric": metric}.get(given, given) for given in algorithm["base_args"]]
        for group in algorithm["run_groups"].values():
            expanded = []
            for given in group["arg_groups"]:
                pairs = [
                    [(name, one) for one in (value if isinstance(value, list) else [value])]
                    for name, value in given.items()
                ]
                expanded.append([dict(chosen) for chosen in product(*pairs)])
            asked = [list(chosen) for chosen in product(*group["query_args"])]
            for arguments in product(*expanded):
                yield algorithm["constructor"], [*base, *arguments], asked


def distances(base: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    if metric == "euclidean":
        return ((base - query) ** 2).sum(axis=1)
    products = base @ query
    return -products / (np.linalg.norm(base, axis=1) if metric == "angular" else 1)


@pytest.mark.parametrize("metric", ["angular", "euclidean", "dot"])
def test_every_configured_algorithm_answers_its_runner(module: ModuleType, metric: str) -> None:
    rng = np.random.default_rng(2)
    base = rng.standard_normal((6000, 24)).astype(np.float32)
    queries = rng.standard_normal((8, 24)).astype(np.float32)
    made = list(definitions(metric))
    assert len(made) == 2
    for constructor, arguments, asked in made:
        algorithm = getattr(module, constructor)(*arguments)
        algorithm.fit(base)
        recalls = []
        for query_arguments in asked:
            algorithm.set_query_arguments(*query_arguments)
            assert str(query_arguments[0]) in str(algorithm)
            hits = 0
            for query in queries:
                found = algorithm.query(query, 10)
                assert len(found) == 10 == len({int(one) for one in found})
                true = np.argsort(distances(base, query, metric))[:10]
                hits += len(set(found.tolist()) & set(true.tolist()))
            recalls.append(hits / 80)
        assert recalls[-1] >= 0.95
        assert recalls[-1] >= recalls[0]
        algorithm.batch_query(queries, 10)
        assert [row.tolist() for row in algorithm.get_batch_results()] == [
            algorithm.query(query, 10).tolist() for query in queries
        ]
        assert algorithm.get_additional()["count"] == 6000
        algorithm.done()
        algorithm.done()


def test_done_leaves_no_file_behind(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    algorithm = module.MemdbIndex("euclidean", {"kind": "flat", "profile": "standard"})
    algorithm.fit(np.eye(4, dtype=np.float32))
    assert list(tmp_path.iterdir())
    assert algorithm.query(np.ones(4, np.float32), 10).tolist() == [0, 1, 2, 3]
    algorithm.done()
    assert not list(tmp_path.iterdir())


def test_a_metric_memdb_has_not_is_refused_by_name(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="jaccard"):
        module.MemdbIndex("jaccard", {"kind": "flat", "profile": "standard"})
