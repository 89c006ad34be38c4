"""Following a folder: a thread that syncs it again and again.

Polling, by decision: a sync that finds nothing costs one ``stat`` a file (some 10 us), needs no
further package, sees changes on network drives, and cannot lose an event in a full queue. The
pause grows with what a sync takes, so that the watcher uses at most a twentieth of a core.

It knows a function to call and nothing of files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from memdb.errors import InvalidArgument, MemdbError
from memdb.types import SyncReport

log = logging.getLogger("memdb")

_LEAST_INTERVAL_S = 0.01
_SHARE_OF_TIME = 20


class Watcher:
    """Syncs until ``stop`` or the end of its ``with`` block.

    ``last_report`` is what the last sync changed. A sync that fails (a drive was unmounted) is
    logged, kept in ``last_error`` and tried again. Raises ``InvalidArgument`` for an interval
    below 10 ms.
    """

    def __init__(
        self,
        sync: Callable[[], SyncReport],
        interval_s: float,
        on_sync: Callable[[SyncReport], None] | None = None,
    ) -> None:
        if not interval_s >= _LEAST_INTERVAL_S:
            raise InvalidArgument("interval must be at least 0.01 seconds", field="interval")
        self._sync = sync
        self._interval_s = interval_s
        self._on_sync = on_sync
        self._stopping = threading.Event()
        self.last_report: SyncReport | None = None
        self.last_error: MemdbError | None = None
        self._thread = threading.Thread(target=self._run, name="memdb-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            started = time.monotonic()
            self._once()
            taken = time.monotonic() - started
            if self._stopping.wait(max(self._interval_s, taken * _SHARE_OF_TIME)):
                return

    def _once(self) -> None:
        try:
            report = self._sync()
        except MemdbError as error:
            if self.last_error is None:
                log.warning("watching a folder: %s", error)
            self.last_error = error
            return
        self.last_error = None
        self.last_report = report
        if self._on_sync is not None:
            self._on_sync(report)

    def stop(self) -> None:
        """Finish the sync at hand and end. Idempotent."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
