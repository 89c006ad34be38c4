"""The thread that links vectors into a graph while the index is used; ``wait`` for it.

It calls one step, again and again, until that says there is no more to do, and sleeps until it is
woken. An error ends the work at hand and is raised by ``wait``; searches are right without it. What
a step does is the caller's.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable


class Linker:
    """One thread, started when first woken, stopped by ``stop`` or at the interpreter's end."""

    def __init__(self, step: Callable[[], bool]) -> None:
        """``step`` does a little work and says whether there may be more."""
        self._step = step
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._woken = False
        self._busy = False
        self._stopping = False
        self._problem: Exception | None = None
        _all.add(self)

    def wake(self) -> None:
        """There may be work."""
        with self._condition:
            if self._stopping:
                return
            self._woken = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memdb-linker", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def wait(self) -> None:
        """Return when there is no work left; raise what has stopped it since the last call."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or not (self._woken or self._busy))
            problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def stop(self) -> None:
        """Finish the step at hand and end the thread. Idempotent."""
        with self._condition:
            self._stopping = True
            thread = self._thread
            self._condition.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            while self._next():
                self._work()
        finally:  # whatever ends the thread, nobody waits for it in vain
            with self._condition:
                self._thread, self._busy, self._woken = None, False, False
                self._condition.notify_all()

    def _next(self) -> bool:
        """Sleep until there is work; False to end."""
        with self._condition:
            self._busy = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._woken or self._stopping)
            self._woken, self._busy = False, not self._stopping
            return self._busy

    def _work(self) -> None:
        try:
            while not self._stopping and self._step():
                pass
        except Exception as problem:  # noqa: BLE001 - raised by ``wait``
            with self._condition:  # a later wake tries again
                self._problem = problem


_all: weakref.WeakSet[Linker] = weakref.WeakSet()


def forget_all() -> None:
    """In a forked child: the threads are the parent's, and so may be what they hold."""
    _all.clear()


@atexit.register
def _stop_all() -> None:
    """No thread may be inside the graph while the interpreter is taken down around it."""
    for linker in list(_all):
        linker.stop()
