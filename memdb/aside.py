"""Work that goes on in a thread of its own while its caller does something else.

A batch waits for disks (its vectors' files, its commit) while there is more to compute. Who begins
something aside always waits for it, whatever else fails, so that nothing outlives its call. This
file does not know what the work is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from memdb.storage.store import Writer

T = TypeVar("T")


class Aside(Generic[T]):
    """A function's call, begun at once in another thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="memdb-aside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error

    def wait(self) -> None:
        """Return once it has ended, well or not; an interrupt is raised after that."""
        try:
            self._thread.join()
        except BaseException:
            self._thread.join()
            raise

    def result(self) -> T:
        """What it returned, or raise what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]


class Encoding:
    """Vectors on their way to the files of a space, for one transaction."""

    def __init__(self, publish: Callable[[Writer], None], write: Callable[[], None]) -> None:
        self._publish = publish
        self._written = Aside(write)

    def wait(self) -> None:
        """Return once nothing is written any more; also before a transaction is given up."""
        self._written.wait()

    def publish(self, txn: Writer) -> None:
        """The files are durable; from the commit of ``txn`` on they hold these rows' vectors."""
        self._written.result()
        self._publish(txn)
