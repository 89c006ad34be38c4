"""Threads that do what is handed to them: few at once, and of those that rest the last to work.

Threads that compute in Python only take turns, and each turn finds the processor's caches full of
the other's. So no more are at work than the machine has use for, and what comes meanwhile waits in
order. Where the work at the head has waited for long all the same, those before it are slow or wait
for something else: one more thread begins it, up to ``most``. It knows nothing of what is done.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

PATIENCE_S: Final = 0.02  # of the work at the head, before one more thread is at it
Work = Callable[[], None]


def useful_at_once() -> int:
    """How many threads may compute at once before more of them only get in each other's way: one
    for each core, and one that takes its turn in Python while the others are in kernels."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) + 1
    return (os.cpu_count() or 1) + 1


class _Worker:
    """One thread; ``work`` is what it was woken for, and None to end."""

    __slots__ = ("wake", "work")

    def __init__(self, work: Work) -> None:
        self.work: Work | None = work
        self.wake = threading.Lock()
        self.wake.acquire()


class Workers:
    """``submit`` is called by one event loop, from which it is told when patience has ended."""

    def __init__(self, name: str, *, at_once: int, most: int) -> None:
        self._name = name
        self._at_once = min(at_once, most)
        self._most = most
        self._guard = threading.Lock()
        self._waiting: deque[tuple[float, Work]] = deque()
        self._resting: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._looking = False  # whether somebody will look at how long the head has waited
        self._closed = False

    def submit(self, work: Work) -> None:
        """Have ``work`` done; it must not raise."""
        with self._guard:
            if self._busy < self._at_once:
                self._begin(work)
                return
            self._waiting.append((monotonic(), work))
            look, self._looking = not self._looking, True
        if look:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._look)

    def close(self) -> None:
        """End the threads once what they are at is done; what waits is never begun."""
        with self._guard:
            self._closed = True
            self._waiting.clear()
            for worker in self._resting:
                worker.wake.release()
            self._resting.clear()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Work) -> None:
        """Under the guard: by the thread that rests for the shortest time, or by a new one."""
        self._busy += 1
        if self._resting:
            worker = self._resting.pop()
            worker.work = work
            worker.wake.release()
            return
        worker = _Worker(work)
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._run, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, worker: _Worker) -> None:
        while (work := worker.work) is not None:
            work()
            del work  # what it holds is not kept while the thread rests
            worker.work = None
            with self._guard:
                if self._waiting:
                    worker.work = self._waiting.popleft()[1]
                    continue
                self._busy -= 1
                if self._closed:
                    return
                self._resting.append(worker)
            worker.wake.acquire()

    def _look(self) -> None:
        """Begin what has waited for too long; look again while anything waits."""
        with self._guard:
            self._looking = False
            now = monotonic()
            while (
                self._waiting
                and self._busy < self._most
                and now - self._waiting[0][0] >= PATIENCE_S
            ):
                self._begin(self._waiting.popleft()[1])
            if not self._waiting:
                return
            self._looking = True
            left = PATIENCE_S - (now - self._waiting[0][0])
        asyncio.get_running_loop().call_later(max(left, PATIENCE_S / 4), self._look)
