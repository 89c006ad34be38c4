"""When a graph is built anew: numbers in, yes or no out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memdb.index import planner


@given(placed=st.integers(1, 10**7), breadth=st.integers(1, 400))
def test_a_build_waits_for_a_share_of_what_it_writes_again(placed: int, breadth: int) -> None:
    assert planner.wants_build(0, 1, breadth)
    worth = [share for share in range(1, 400) if
             planner.wants_build(placed, placed * share // 100, breadth)]  # fmt: skip
    assert worth == list(range(400 - len(worth), 400))  # more that waits never undoes it
    assert not planner.wants_build(placed, placed // 50, breadth)
    assert planner.wants_build(100_000, 20_000, 96) and not planner.wants_build(100_000, 15_000, 96)
