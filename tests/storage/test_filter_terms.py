"""A batch is filed under what each of its memories would be filed under alone."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.storage.filters.terms import Gathered, gather, terms_of
from memdb.types import Memory

NAMES = st.sampled_from(["a", "a/b", "c:d", "é"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | NAMES
    | st.lists(NAMES | st.integers(0, 2), max_size=2)
    | st.dictionaries(NAMES, st.integers(0, 2), max_size=2)
)
MEMORIES = st.builds(
    Memory,
    id=st.just("id"),
    kind=NAMES,
    source=NAMES,
    namespace=st.sampled_from(["x", "x/y"]),
    stream=st.none() | NAMES,
    tags=st.lists(NAMES, max_size=2).map(tuple),
    event_time=st.none() | st.just(datetime(2024, 5, 1, tzinfo=UTC)),
    importance=st.none() | st.sampled_from([0.0, 0.5]),
    pinned=st.booleans(),
    metadata=st.dictionaries(st.sampled_from(["m", "n", "off"]), VALUES, max_size=3),
)


def number(namespace: str, path: str) -> int | None:
    """One path of one namespace is not indexed."""
    return None if (namespace, path) == ("x", "off") else 1000 + sum(path.encode())


def bucket(path: str) -> bytes:
    return path.encode().ljust(8, b"\0")[:8]


def plain(found: Gathered) -> tuple[object, ...]:
    """What is filed, whatever the order of it, and without what is empty."""
    return (
        {key: set(rows) for key, rows in found.sets.items() if rows},
        {key: set(rows) for key, rows in found.parts.items() if rows},
        {
            (field, text): set(rows)
            for field, by_text in found.texts.items()
            for text, rows in by_text.items()
        },
        {field: set(entries) for field, entries in found.ordered.items() if entries},
    )


@settings(deadline=None, max_examples=150)
@given(st.lists(MEMORIES, min_size=1, max_size=8))
def test_many_memories_have_the_terms_of_each(memories: list[Memory]) -> None:
    pairs = list(enumerate(memories, 7))
    alone = Gathered()
    for row, memory in pairs:
        for term in terms_of(memory, number, bucket):
            alone.add(term, row)
    assert plain(gather(pairs, number, bucket)) == plain(alone)
