"""Slot sets against Python's own sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import InvalidArgument
from memdb.index.slots import SlotSet

numbers = st.sets(st.integers(0, 300))


@given(numbers, numbers)
def test_set_algebra_equals_that_of_python_sets(one: set[int], two: set[int]) -> None:
    a, b = SlotSet.from_slots(sorted(one)), SlotSet.from_slots(list(two))
    for found, wanted in [(a & b, one & two), (a | b, one | two), (a - b, one - two)]:
        assert found.array.tolist() == sorted(wanted)
        assert len(found) == found.count == len(wanted)
        assert found.limit == (max(wanted) + 1 if wanted else 0)
        assert found == SlotSet.from_slots(sorted(wanted))
        assert hash(found) == hash(SlotSet.from_slots(sorted(wanted)))


@given(numbers)
def test_every_constructor_makes_the_same_set(members: set[int]) -> None:
    from_slots = SlotSet.from_slots(np.array(sorted(members), np.uint32))
    bits = bytearray(64)
    for member in members:
        bits[member // 8] |= 1 << member % 8
    assert SlotSet.from_bitset(bits) == from_slots
    probes = np.arange(320, dtype=np.uint32)
    assert from_slots.contains(probes).tolist() == [probe in members for probe in range(320)]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 4096, 4097])
def test_all_is_the_range_from_zero(count: int) -> None:
    assert SlotSet.all(count).array.tolist() == list(range(count))


def test_a_set_does_not_change_with_the_bytes_it_was_made_of() -> None:
    bits = bytearray(b"\x05")
    made = SlotSet.from_bitset(bits)
    bits[0] = 0
    assert made.array.tolist() == [0, 2]
    with pytest.raises(ValueError):
        made.bitset[0] = 1


@pytest.mark.parametrize("wrong", [[-1], [2**32 - 1], [1.5], [[1, 2]], ["a"]])
def test_what_is_no_slot_number_is_refused(wrong: list[object]) -> None:
    with pytest.raises(InvalidArgument):
        SlotSet.from_slots(np.array(wrong))
