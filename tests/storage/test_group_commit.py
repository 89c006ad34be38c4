"""Group commit: who is synced with whom, who waits for whom, and that nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from memdb.storage.group_commit import GroupCommit, Job

_PATIENCE_S = 20.0  # nothing here takes long


class Disk:
    """What groups are run on; each run waits until it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.begun = threading.Semaphore(0)
        self._let_go = threading.Semaphore(0)
        self.writes = GroupCommit(self._run)

    def _run(self, group: list[Job[Any]]) -> None:
        self.groups.append([job.function.__name__ for job in group])
        self.begun.release()
        assert self._let_go.acquire(timeout=_PATIENCE_S)
        for job in group:
            job.result = job.function(None)  # type: ignore[arg-type]

    def finish_one(self) -> None:
        assert self.begun.acquire(timeout=_PATIENCE_S)
        self._let_go.release()

    def submit(self, name: str) -> threading.Thread:
        def write(_: object) -> str:
            return name

        write.__name__ = name
        return self.start(Job(write, None, None))

    def start(self, job: Job[Any]) -> threading.Thread:
        thread = threading.Thread(target=self.writes.submit, args=(job,))
        thread.start()
        return thread

    def wait_until_queued(self, count: int) -> None:
        waited = threading.Event()
        for _ in range(int(_PATIENCE_S * 1000)):
            if len(self.writes._queue) == count:
                return
            waited.wait(0.001)
        raise AssertionError("what was submitted is not in the queue")


@contextmanager
def returned(*threads: threading.Thread) -> Iterator[None]:
    yield
    for thread in threads:
        thread.join(_PATIENCE_S)
        assert not thread.is_alive()


def test_those_who_come_while_a_group_is_synced_are_synced_together() -> None:
    disk = Disk()
    first = disk.submit("first")
    assert disk.begun.acquire(timeout=_PATIENCE_S)
    others = []
    for place, name in enumerate(("second", "third", "fourth"), 1):
        others.append(disk.submit(name))
        disk.wait_until_queued(place)
    with returned(first, *others):
        disk._let_go.release()
        disk.finish_one()
    assert disk.groups == [["first"], ["second", "third", "fourth"]]


def test_nobody_waits_for_a_group_after_the_one_that_made_the_write_durable() -> None:
    disk = Disk()
    first = disk.submit("first")
    assert disk.begun.acquire(timeout=_PATIENCE_S)
    together = [disk.submit("second"), disk.submit("third")]
    disk.wait_until_queued(2)
    with returned(first):
        disk._let_go.release()
    assert disk.begun.acquire(timeout=_PATIENCE_S)
    later = disk.submit("later")
    disk.wait_until_queued(1)
    with returned(*together):
        disk._let_go.release()
        assert disk.begun.acquire(timeout=_PATIENCE_S)
        assert disk.groups[-1] == ["later"]  # and it is not let go before the others returned
    with returned(later):
        disk._let_go.release()


class _Interrupting:
    """A lock whose wait ends as Ctrl+C ends it, once it is let."""

    def __init__(self) -> None:
        self.entered, self.now = threading.Event(), threading.Event()

    def acquire(self) -> None:
        self.entered.set()
        assert self.now.wait(_PATIENCE_S)
        raise KeyboardInterrupt

    def release(self) -> None:
        pass


@pytest.mark.parametrize("leads", [False, True])
def test_who_is_interrupted_is_not_run_and_holds_up_nobody(leads: bool) -> None:
    disk = Disk()
    first = disk.submit("first")
    assert disk.begun.acquire(timeout=_PATIENCE_S)

    def interrupted(_: object) -> None:
        raise AssertionError("it was given up before it was run")

    job: Job[Any] = Job(interrupted, None, None)
    lock = _Interrupting()
    job.turn = lock  # type: ignore[assignment]
    ended: list[BaseException] = []

    def submit() -> None:
        try:
            disk.writes.submit(job)
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    assert lock.entered.wait(_PATIENCE_S)
    last = disk.submit("last")
    disk.wait_until_queued(2)
    if leads:  # the lead is handed to it before it wakes
        with returned(first):
            disk._let_go.release()
    with returned(thread):
        lock.now.set()
    if not leads:
        with returned(first):
            disk._let_go.release()
    with returned(last):
        disk.finish_one()
    assert len(ended) == 1
    assert disk.groups == [["first"], ["last"]]
    assert not disk.writes._led


def test_the_error_of_one_is_not_anothers() -> None:
    def run(group: list[Job[Any]]) -> None:
        for job in group:
            job.result = job.function(None)  # type: ignore[arg-type]

    writes = GroupCommit(run)
    held = writes.paused()
    errors: list[str] = []
    results: list[int] = []

    def fail(_: object) -> int:
        raise ValueError("its own")

    def ask(function: Any) -> None:
        try:
            results.append(writes.submit(Job(function, None, None)))
        except ValueError as error:
            errors.append(str(error))

    threads = [
        threading.Thread(target=ask, args=(one,)) for one in (lambda _: 1, fail, lambda _: 2)
    ]
    with returned(*threads), held:
        for thread in threads:
            thread.start()
    assert errors == ["its own"]
    assert sorted(results) == [1, 2]
