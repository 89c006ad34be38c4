"""The planner against the oracle: 10,000 random filters, and each operator broken in turn."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from bench import filter_oracle as oracle
from memdb import settings
from memdb.query.filters import Filter, compiler, evaluate, explain, matches, parse, planner
from memdb.query.filters.ast import (
    NOTHING,
    And,
    Between,
    Equals,
    Exists,
    Not,
    Or,
    Prefix,
    Scalar,
    Within,
    all_of,
    any_of,
)
from memdb.storage.environment import Environment, ReadTxn
from memdb.storage.filters import FilterIndex
from memdb.types import Memory


class Store:
    """Random memories under scattered rows: filed in batches and singly, fresh, removed."""

    def __init__(self, path: Path, rng: random.Random, size: int) -> None:
        path.mkdir()
        self.environment = Environment(path, map_size=1 << 28)
        self.index = FilterIndex()
        spread = rng.choice([size + 1, 1 << 16, 1 << 20])
        rows = sorted(rng.sample(range(spread), size))
        added = [(row, oracle.random_memory(rng, row)) for row in rows]
        cut = size - size // 10
        gone = rng.sample(added, size // 5)
        with self.environment.write() as txn:
            self.index.add(txn, added[:cut])
            for number, pair in enumerate(added[cut:]):
                if number % 4:
                    self.index.add_fresh(txn, [pair])
                else:
                    self.index.add(txn, [pair])
            self.index.fold(txn, size // 60)
            self.index.remove(txn, gone[: size // 10])
        self.memories = {row: m for row, m in added if (row, m) not in gone}
        self.flat = {row: oracle.flatten(m) for row, m in self.memories.items()}
        self.universe = BitMap(self.memories)  # without rows the index still has

    def fetch(self, rows: BitMap) -> Iterable[tuple[int, Memory]]:
        return ((row, self.memories[row]) for row in rows)

    def expected(self, where: dict[str, Any]) -> list[int]:
        return [row for row, flat in self.flat.items() if oracle.means(where, flat)]

    @contextmanager
    def read(self) -> Iterator[ReadTxn]:
        with self.environment.read() as txn:
            yield txn

    def evaluated(self, txn: ReadTxn, where: dict[str, Any]) -> list[int]:
        compiled = parse(where, zone=oracle.ZONE)
        return list(evaluate(compiled, txn, self.index, self.universe, self.fetch))


# --- one operator broken at a time: the comparison above has to notice ------------------------


def _drop_missing(found: Filter, name: str) -> Filter:
    return all_of([found, Exists(name)])


BROKEN_OPERATORS: dict[str, Callable[[Filter, str, Any], Filter]] = {
    "$eq": lambda found, name, operand: NOTHING if operand in (True, 1.0) else found,
    "$ne": lambda found, name, operand: _drop_missing(found, name),
    "$gt": lambda found, name, operand: _inclusive(found, low=True),
    "$gte": lambda found, name, operand: _inclusive(found, low=False),
    "$lt": lambda found, name, operand: _inclusive(found, high=True),
    "$lte": lambda found, name, operand: _inclusive(found, high=False),
    "$in": lambda found, name, operand: _first_value_only(found),
    "$nin": lambda found, name, operand: _drop_missing(found, name),
    "$contains": lambda found, name, operand: _first_value_only(found, keep=0),
    "$all": lambda found, name, operand: any_of(found.children) if found.children else found,
    "$prefix": lambda found, name, operand: Equals(name, (Scalar("string", operand),)),
    "$exists": lambda found, name, operand: Exists(name),
    "$not": lambda found, name, operand: _drop_missing(found, name),
}


def _inclusive(found: Filter, **sides: bool) -> Filter:
    if not isinstance(found, Between):
        return found
    return dataclasses.replace(found, **{f"include_{side}": x for side, x in sides.items()})


def _first_value_only(found: Filter, keep: int = 1) -> Filter:
    return Equals(found.field, found.values[:keep]) if isinstance(found, Equals) else found


def _disagree(tmp_path: Path, filters: int = 600) -> bool:
    """Whether planner and oracle answer differently on some filter."""
    rng = random.Random(100)
    store = Store(tmp_path / "kv", rng, 120)
    with store.read() as txn:
        for _ in range(filters):
            where = oracle.random_filter(rng, 1)
            if store.evaluated(txn, where) != store.expected(where):
                return True
    return False


@pytest.mark.parametrize("broken", [*BROKEN_OPERATORS, "$and", "$or"])
def test_a_compiler_with_one_operator_broken_is_caught(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken in BROKEN_OPERATORS:
        sound = compiler._Parser._condition

        def condition(
            self: Any, field: Any, name: str, operator: str, operand: Any, path: str, depth: int
        ) -> Filter:
            found = sound(self, field, name, operator, operand, path, depth)
            wrong = operator == broken
            return BROKEN_OPERATORS[broken](found, name, operand) if wrong else found

        monkeypatch.setattr(compiler._Parser, "_condition", condition)
    else:
        other = "$or" if broken == "$and" else "$and"
        whole = compiler._Parser._entry

        def entry(self: Any, key: str, value: Any, path: str, depth: int) -> Filter:
            return whole(self, other if key == broken else key, value, path, depth)

        monkeypatch.setattr(compiler._Parser, "_entry", entry)
    assert _disagree(tmp_path)


def _forget_a_row(found: BitMap) -> BitMap:
    return BitMap(list(found)[1:])


@pytest.mark.parametrize("broken", ["any_of", "present", "range", "prefix", "undecided", "several"])
def test_an_index_that_forgets_one_row_is_caught(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = getattr(FilterIndex, broken)
    monkeypatch.setattr(planner, "CHECK_AT_MOST", 0)
    if broken == "undecided":
        monkeypatch.setattr(settings, "MAX_INDEXED_METADATA_KEYS", 2)

    def forgetful(self: FilterIndex, *args: Any, **options: Any) -> BitMap:
        found = sound(self, *args, **options)
        return BitMap() if broken in ("undecided", "several") else _forget_a_row(found)

    monkeypatch.setattr(FilterIndex, broken, forgetful)
    assert _disagree(tmp_path)


@pytest.mark.parametrize("node", [Equals, Between, Within, Prefix, Exists, And, Or, Not])
def test_a_planner_that_gets_one_node_wrong_is_caught(
    node: type[Filter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = planner._Planner.solve

    def solve(self: Any, condition: Filter, scope: BitMap) -> Any:
        sure, maybe, plan = sound(self, condition, scope)
        if isinstance(condition, node):
            return scope - maybe, scope - sure, plan
        return sure, maybe, plan

    monkeypatch.setattr(planner._Planner, "solve", solve)
    assert _disagree(tmp_path)


def test_the_sound_planner_disagrees_nowhere_on_those_same_filters(tmp_path: Path) -> None:
    assert not _disagree(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_the_planner_agrees_with_the_oracle(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    if seed % 4 == 1:
        monkeypatch.setattr(settings, "MAX_INDEXED_METADATA_KEYS", 3)
    if seed % 2:
        monkeypatch.setattr("memdb.query.filters.planner.CHECK_AT_MOST", 0)
    store = Store(tmp_path / "kv", rng, rng.choice([0, 1, 40, 200, 300]) if seed else 300)
    with store.read() as txn:
        for _ in range(500):
            where = oracle.random_filter(rng)
            assert store.evaluated(txn, where) == store.expected(where), where
    store.environment.close()


@pytest.mark.parametrize("seed", range(3))
def test_one_memory_is_judged_as_the_oracle_judges_it(seed: int) -> None:
    rng = random.Random(1000 + seed)
    memories = [oracle.random_memory(rng, number) for number in range(60)]
    for _ in range(300):
        where = oracle.random_filter(rng)
        compiled = parse(where, zone=oracle.ZONE)
        for memory in memories:
            assert matches(compiled, memory) is oracle.means(where, oracle.flatten(memory)), where


def test_the_plan_names_estimates_counts_and_what_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_INDEXED_METADATA_KEYS", 1)
    store = Store(tmp_path / "kv", random.Random(5), 100)
    monkeypatch.setattr(planner, "CHECK_AT_MOST", 0)
    where = {"kind": {"$in": ["note"]}, "metadata.s": {"$prefix": "a"}}
    compiled = parse(where, zone=oracle.ZONE)
    with store.read() as txn:
        found = explain(compiled, txn, store.index, store.universe, store.fetch)
        notes = store.index.equals(txn, "kind", "note")
    assert list(found.rows) == store.expected(where)
    assert found.checked > 0
    plan = found.plan.to_dict()
    assert plan["open"] == found.checked
    by_condition = {part.condition: part for part in found.plan.parts}
    assert by_condition["kind in ['note']"].estimated == len(notes)
    assert 0 < by_condition["kind in ['note']"].sure <= len(notes)
    assert "row checks" in by_condition["metadata.s starts with 'a'"].how


def test_a_handful_of_candidates_is_looked_at_instead_of_reading_a_range(tmp_path: Path) -> None:
    environment = Environment(tmp_path, map_size=1 << 28)
    index = FilterIndex()
    memories = {
        row: Memory(id=str(row), tags=("rare",) if row < 3 else (), metadata={"n": row})
        for row in range(2000)
    }
    fetched: list[int] = []

    def fetch(rows: BitMap) -> Iterable[tuple[int, Memory]]:
        fetched.extend(rows)
        return ((row, memories[row]) for row in rows)

    where = {"tags": "rare", "metadata.n": {"$gte": 1, "$lt": 1500}}
    with environment.write() as txn:
        index.add(txn, list(memories.items()))
        rows = evaluate(parse(where, zone=oracle.ZONE), txn, index, BitMap(memories), fetch)
    assert (list(rows), fetched) == ([1, 2], [0, 1, 2])


def test_the_universe_given_is_never_handed_back_or_changed(tmp_path: Path) -> None:
    environment = Environment(tmp_path, map_size=1 << 28)
    universe = BitMap([1, 5])
    with environment.read() as txn:
        rows = evaluate(parse({}, zone=oracle.ZONE), txn, FilterIndex(), universe, lambda _: ())
    rows.add(9)
    assert list(universe) == [1, 5]
