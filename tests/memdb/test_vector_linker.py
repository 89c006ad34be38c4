"""The linker's thread: work until none is left, wait, errors, and the end."""

from __future__ import annotations

import threading

import pytest

from memdb.vector_linker import Linker


def test_wait_returns_when_the_last_step_has_found_nothing() -> None:
    left = [5]

    def step() -> bool:
        left[0] -= left[0] > 0
        return left[0] > 0

    linker = Linker(step)
    linker.wait()  # nothing was asked for
    assert left == [5]
    for more in (0, 3):
        left[0] += more
        linker.wake()
        linker.wait()
        assert left == [0]
    linker.stop()
    linker.stop()
    left[0] = 7
    linker.wake()
    linker.wait()  # stopped for good
    assert left == [7]


def test_an_error_is_raised_by_wait_once_and_work_goes_on() -> None:
    broken = threading.Event()
    broken.set()

    def step() -> bool:
        if broken.is_set():
            raise RuntimeError("no memory")
        return False

    linker = Linker(step)
    linker.wake()
    with pytest.raises(RuntimeError, match="no memory"):
        linker.wait()
    linker.wait()
    broken.clear()
    linker.wake()
    linker.wait()
    linker.stop()


def test_stop_ends_endless_work_between_two_steps() -> None:
    steps = threading.Semaphore(0)

    def step() -> bool:
        steps.release()
        return True

    linker = Linker(step)
    linker.wake()
    assert steps.acquire(timeout=30) and steps.acquire(timeout=30)
    linker.stop()
    assert not any(thread.name == "memdb-linker" for thread in threading.enumerate())
