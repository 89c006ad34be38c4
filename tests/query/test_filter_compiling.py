"""What compiles to what, and the typed, located refusal of everything else."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from memdb.errors import FilterError
from memdb.query.filters import EVERYTHING, OPERATORS, matches, parse
from memdb.types import Memory

ZONE = ZoneInfo("Europe/Vienna")


def compiled(where: Any) -> Any:
    return parse(where, zone=ZONE)


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"kind": "note"}
    for _ in range(levels - 1):
        where = {"$not": where}
    return where


@pytest.mark.parametrize(
    ("where", "path", "hint"),
    [
        ([], "where", ""),
        ("kind", "where", ""),
        ({"knd": "note"}, "knd", "'kind'"),
        ({"$not": {"tag": "x"}}, "$not.tag", "'tags'"),
        ({"use_count": 3}, "use_count", "metadata.*"),
        ({"metadata": {"chat": "x"}}, "metadata", "metadata.chat"),
        ({"metadata.": 1}, "metadata.", "metadata.chat"),
        ({"metadata.\ud800": 1}, "metadata.?", ""),
        ({"x" * 5_000: 1}, "x" * 100, ""),
        ({"": 1}, "", ""),
        ({5: 1}, "where", ""),
        ({"$nor": [{}]}, "$nor", "$or"),
        ({"$eq": 1}, "$eq", "$and, $or, $not"),
        ({"$and": []}, "$and", ""),
        ({"$or": {"kind": "x"}}, "$or", ""),
        ({"$or": [{"kind": "x"}, 5]}, "$or[1]", ""),
        ({"$and": [{"kind": "x"}, {"$or": [{"kin": 1}]}]}, "$and[1].$or[0].kin", "'kind'"),
        ({"$not": []}, "$not", ""),
        ({"kind": {}}, "kind", ""),
        ({"kind": {"$equals": 1}}, "kind.$equals", ""),
        ({"kind": {"$gtt": 1}}, "kind.$gtt", "$gt"),
        ({"kind": {"nested": 1}}, "kind.nested", ""),
        ({"kind": {"$and": [{}]}}, "kind.$and", "here one of"),
        ({"kind": {"$not": 5}}, "kind.$not", ""),
        ({"kind": 5}, "kind", ""),
        ({"kind": None}, "kind", "$exists"),
        ({"kind": ["a"]}, "kind", ""),
        ({"kind": {"$in": "note"}}, "kind.$in", ""),
        ({"kind": {"$in": ["note", 3]}}, "kind.$in[1]", ""),
        ({"kind": {"$contains": "no"}}, "kind.$contains", "$prefix"),
        ({"kind": {"$exists": 1}}, "kind.$exists", ""),
        ({"tags": {"$all": ["a", {}]}}, "tags.$all[1]", ""),
        ({"tags": True}, "tags", ""),
        ({"pinned": "yes"}, "pinned", ""),
        ({"pinned": {"$gt": False}}, "pinned.$gt", ""),
        ({"position": "3"}, "position", ""),
        ({"position": True}, "position", ""),
        ({"position": {"$prefix": "3"}}, "position.$prefix", ""),
        ({"metadata.x": {"$prefix": 3}}, "metadata.x.$prefix", ""),
        ({"metadata.x": {"$gt": None}}, "metadata.x.$gt", ""),
        ({"metadata.x": {"$gt": True}}, "metadata.x.$gt", ""),
        ({"metadata.x": float("nan")}, "metadata.x", ""),
        ({"metadata.x": float("inf")}, "metadata.x", ""),
        ({"metadata.x": 2**53}, "metadata.x", ""),
        ({"metadata.x": "\ud800"}, "metadata.x", ""),
        ({"metadata.x": date(2024, 1, 1)}, "metadata.x", ""),
        ({"metadata.x": b"bytes"}, "metadata.x", ""),
        ({"event_time": 1_714_000_000}, "event_time", "ambiguous"),
        ({"event_time": {"$gte": "yesterday"}}, "event_time.$gte", "2024"),
        ({"event_time": {"$in": ["2024", "x"]}}, "event_time.$in[1]", ""),
        ({"event_time": {"$prefix": "2024"}}, "event_time.$prefix", ""),
        ({"kind": {"$in": ["x"] * 4097}}, "kind.$in", ""),
    ],
)
def test_what_does_not_compile_is_refused_with_its_path(where: Any, path: str, hint: str) -> None:
    with pytest.raises(FilterError) as caught:
        compiled(where)
    assert caught.value.field == path
    assert path in caught.value.message
    assert hint in caught.value.hint


def test_depth_is_limited_before_the_stack_is() -> None:
    assert compiled(nested(32)) == compiled({"$not": {"kind": "note"}})
    for levels in (33, 100_000):
        with pytest.raises(FilterError, match="32 levels"):
            compiled(nested(levels))


def test_the_number_of_conditions_is_limited() -> None:
    assert compiled({"$or": [{"kind": str(i)} for i in range(500)]}).depth == 2
    with pytest.raises(FilterError, match="1024"):
        compiled({"$or": [{"kind": str(i)} for i in range(1_100)]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kind": "a"}, {"kind": {"$eq": "a"}}),
        ({"kind": "a", "tags": "b"}, {"$and": [{"tags": "b"}, {"kind": "a"}]}),
        ({"kind": {"$ne": "a"}}, {"$not": {"kind": "a"}}),
        ({"kind": {"$nin": ["a", "b"]}}, {"kind": {"$not": {"$in": ["b", "a", "b"]}}}),
        ({"tags": {"$all": ["a", "b"]}}, {"$and": [{"tags": "b"}, {"tags": {"$contains": "a"}}]}),
        ({"$not": {"$not": {"kind": "a"}}}, {"$or": [{"kind": "a"}]}),
        ({"kind": {"$exists": False}}, {"$not": {"kind": {"$exists": True}}}),
        ({"event_time": {"$gte": "2024", "$lte": "2024"}}, {"event_time": "2024"}),
        (
            {"event_time": {"$in": ["2024-01", "2024-02"]}},
            {"event_time": {"$gte": "2024-01", "$lt": "2024-03"}},
        ),
        ({"$and": [{}, {}]}, {}),
        ({"$or": [{"kind": "a"}, {}]}, {}),
        ({"metadata.n": np.int64(3)}, {"metadata.n": 3.0}),
    ],
)
def test_the_same_meaning_compiles_to_equal_filters(one: Any, other: Any) -> None:
    assert compiled(one) == compiled(other)
    assert hash(compiled(one)) == hash(compiled(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"metadata.x": 1}, {"metadata.x": True}),
        ({"metadata.x": 0}, {"metadata.x": False}),
        ({"metadata.x": None}, {"metadata.x": {"$exists": False}}),
        ({"kind": {"$gt": "a"}}, {"kind": {"$gte": "a"}}),
        ({"kind": {"$in": []}}, {}),
    ],
)
def test_different_meanings_compile_to_different_filters(one: Any, other: Any) -> None:
    assert compiled(one) != compiled(other)


def test_nothing_asked_is_everything() -> None:
    assert compiled({}) is EVERYTHING or compiled({}) == EVERYTHING
    assert matches(compiled({}), Memory(id="x"))


def test_a_date_is_the_whole_local_day_of_the_database() -> None:
    last_second = Memory(id="x", event_time=datetime(2024, 12, 31, 23, 59, 59, tzinfo=ZONE))
    new_year = Memory(id="y", event_time=datetime(2025, 1, 1, tzinfo=ZONE))
    until = compiled({"event_time": {"$lte": "2024-12-31"}})
    after = compiled({"event_time": {"$gt": date(2024, 12, 31)}})
    assert (matches(until, last_second), matches(until, new_year)) == (True, False)
    assert (matches(after, last_second), matches(after, new_year)) == (False, True)


def test_a_missing_field_meets_negations_only() -> None:
    bare = Memory(id="x")
    for where in ({"stream": {"$ne": "a"}}, {"stream": {"$nin": ["a"]}}, {"$not": {"stream": "a"}}):
        assert matches(compiled(where), bare)
    for condition in ({"$eq": "a"}, {"$gt": ""}, {"$lte": "z"}, {"$prefix": ""}, {"$exists": True}):
        assert not matches(compiled({"stream": condition}), bare)


def test_the_operators_are_those_of_the_interface() -> None:
    assert set(OPERATORS) == {
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$nin",
        "$contains",
        "$all",
        "$prefix",
        "$exists",
        "$and",
        "$or",
        "$not",
    }
