"""What background work does to the other threads of its process."""

from __future__ import annotations

import sys
import threading

import pytest

from memdb.pauses import SHORT_TURN_S, short_turns


def test_turns_are_short_until_the_last_block_of_any_thread_ends() -> None:
    before = sys.getswitchinterval()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with short_turns():
            entered.set()
            leave.wait(60)

    with short_turns():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(60)
        with short_turns():
            assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=5e-6)
    assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=5e-6), (
        "the other thread has not ended"
    )
    leave.set()
    thread.join()
    assert sys.getswitchinterval() == before


def test_an_interval_that_was_set_meanwhile_or_is_shorter_stays() -> None:
    before = sys.getswitchinterval()
    try:
        with short_turns():
            sys.setswitchinterval(0.02)
        assert sys.getswitchinterval() == pytest.approx(0.02, abs=5e-6)
        sys.setswitchinterval(0.0001)
        with short_turns():
            assert sys.getswitchinterval() == pytest.approx(0.0001, abs=5e-6)
        assert sys.getswitchinterval() == pytest.approx(0.0001, abs=5e-6)
    finally:
        sys.setswitchinterval(before)
