"""What is checked in one go is checked as strictly, and comes out the same, as field by field."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb import settings as limits
from memdb import validate
from memdb.errors import MemdbError

NOW = datetime(2024, 5, 1, tzinfo=UTC)


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    ONE = 1


TEXTS: list[Any] = [
    "a",
    "",
    " ",
    "work",
    "straße",
    "日本語",
    "\ud800",
    "é" * 256,
    "é" * 257,
    "x" * 128,
    "x" * 129,
    "x" * 512,
    "x" * 513,
    Text("own"),
    b"bytes",
    None,
    5,
    True,
    ["list"],
]
NUMBERS: list[Any] = [
    *(0, 1, -1, 0.5, 1.0, True, None, "1", float("nan"), float("inf"), -0.0),
    *(2**53 - 1, 2**53, -(2**53), 2**63 - 1, 2**63, -(2**63), 2**70, 1.5),
    *(np.int64(3), np.float64(0.5), np.float32(0.5), Number.ONE, 1e308),
]
VALUES: list[Any] = [
    *TEXTS,
    *NUMBERS,
    *([], {}, [1, "a"], {"inner": 1}, {1: 2}, (1,), {1}, object(), "x" * 70_000),
]
LISTS: list[Any] = [
    *([], (), ["a", "b"], ("a", "a"), {"a"}, "abc", None, 5, ["a", 5], ["a", ""], ["\udfff"]),
    *(["é" * 200], [f"t{n}" for n in range(256)], [f"t{n}" for n in range(257)], ["x" * 512]),
    *({"a": 1}, frozenset(["b"]), [Text("own")], [None]),
]
METADATA: list[Any] = [
    *(None, {}, [], "x", 5, {"": 1}, {Text("k"): Text("v")}, {5: 1}, {"\ud800": 1}, {"é" * 300: 1}),
    *({f"k{n}": n for n in range(64)}, {f"k{n}": n for n in range(65)}, {"x" * 512: 1}),
    {f"k{n}": "y" * 1_100 for n in range(60)},
    {"日本": "語", "a": None, "b": True, "c": 1.5, "d": 7},
]
metadata = st.one_of(
    st.sampled_from(METADATA),
    st.dictionaries(
        st.sampled_from([*TEXTS[:-1], "n", "chat"]).filter(lambda key: isinstance(key, str)),
        st.sampled_from(VALUES),
        max_size=4,
    ),
)
TIMES: list[Any] = [None, "2024-05", NOW, datetime(2024, 5, 1), "soon", 5]
names = st.sampled_from(TEXTS)
one_field = st.one_of(
    st.tuples(st.just("text"), st.sampled_from([*TEXTS, "z" * (1 << 20), "z" * (1 << 20) + "!"])),
    st.tuples(
        st.sampled_from(
            ["source", "external_id", "kind", "stream", "subject", "key", "sensitivity", "space"]
        ),
        names,
    ),
    st.tuples(
        st.just("namespace"), st.sampled_from([*TEXTS, "home/a", "a//b", "/a", " a", "a/ b"])
    ),
    st.tuples(st.sampled_from(["tags", "about", "derived_from"]), st.sampled_from(LISTS)),
    st.tuples(st.sampled_from(["position", "importance", "pinned"]), st.sampled_from(NUMBERS)),
    st.tuples(st.just("metadata"), metadata),
    st.tuples(st.just("data"), st.sampled_from(VALUES)),
    st.tuples(
        st.sampled_from(["event_time", "event_end", "valid_from", "valid_to", "expires_at"]),
        st.sampled_from(TIMES),
    ),
    st.tuples(st.just("expires_in"), st.sampled_from([None, "3d", "x", 5])),
    st.tuples(
        st.just("vector"),
        st.sampled_from([None, [1.0, 2.0], [float("nan")], [], "x", [[1.0]]]),
    ),
    st.tuples(st.sampled_from(["bogus", "id"]), st.just(1)),
)


def outcome(check: Any, fields: dict[str, Any]) -> Any:
    try:
        draft = check(fields)
    except MemdbError as error:
        return type(error), error.message, error.field
    kinds = [type(value) for value in draft.memory.metadata.values()]
    vector = None if draft.vector is None else draft.vector.tolist()
    return repr(draft.memory), kinds, vector


def both(fields: dict[str, Any]) -> tuple[Any, Any]:
    given_now = {"zone": UTC, "now": NOW, "default_namespace": "mine", "default_source": "app:t"}
    return (
        outcome(lambda f: validate.draft(f, **given_now), fields),
        outcome(lambda f: validate._draft_by_field(f, UTC, NOW, "mine", "app:t"), fields),
    )


@settings(max_examples=1_500, deadline=None)
@given(st.lists(one_field, max_size=5))
def test_every_input_has_the_same_outcome_both_ways(pairs: list[tuple[str, Any]]) -> None:
    fields = {"text": "hello", **dict(pairs)}
    quick, thorough = both(fields)
    if isinstance(quick[0], type) and isinstance(thorough[0], type) and len(pairs) > 1:
        return  # of several faults, either may be named
    assert quick == thorough


def _name_of(value: Any) -> str:
    """The same in every process that collects the tests: no address."""
    return "object()" if type(value) is object else repr(value)[:30]


@pytest.mark.parametrize("name", ["tags", "metadata", "data", "kind", "position", "pinned"])
@pytest.mark.parametrize("value", [*VALUES, *LISTS, *METADATA], ids=_name_of)
def test_one_odd_value_has_the_same_outcome_both_ways(name: str, value: Any) -> None:
    quick, thorough = both({"text": "hello", name: value})
    assert quick == thorough


def test_what_most_memories_look_like_is_checked_in_one_go() -> None:
    fields = {
        "text": "Zug nach Köln",
        "source": "app:mail",
        "tags": ["reise", "bahn"],
        "metadata": {"n": 3, "chat": "familie", "done": False, "price": 1.5, "none": None},
        "stream": "mail/1",
        "event_time": NOW,
        "vector": [1.0, 0.0],
    }
    assert validate._plain(fields) is not None
    assert validate._plain({**fields, "tags": ["a", "a"]}) is None
    assert limits.MAX_METADATA_KEYS == 64, "METADATA above has one more"
