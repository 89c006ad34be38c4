"""One engine and one maintenance thread a database directory and process, however many handles.

Two engines on one directory would each believe they hold the maintenance lease, which is the
process's. Handles therefore share; the last one to close ends both.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb import adoption
from memdb.engine import Engine
from memdb.maintenance import Maintenance
from memdb.times import Clock

if TYPE_CHECKING:
    from memdb.access.control import Access


class Shared:
    """An engine with its maintenance, and how many handles use them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.maintenance = Maintenance(engine)
        engine.admission = self.maintenance.keeper
        self.handles = 1
        self._access: Access | None = None
        self._guard = threading.Lock()

    @property
    def access(self) -> Access:
        """Tokens, audit and acting handles; made when they are first asked for."""
        if self._access is None:
            from memdb.access.control import Access  # which makes databases of what is shared

            with self._guard:
                if self._access is None:
                    self._access = Access(self)
        return self._access

    def close(self) -> None:
        """Stop what works in the background and let go of the files."""
        self.maintenance.stop()
        if self._access is not None:
            self._access.close()
        self.engine.close()


_open: dict[Path, Shared] = {}
_guard = threading.RLock()  # maintenance opens snapshots


def acquire(
    path: Path,
    *,
    embedder: Any,
    readonly: bool,
    create: bool,
    memory_budget: int,
    clock: Clock | None,
) -> Shared:
    """The shared engine of a directory; each call needs its ``release``."""
    real = path.resolve()
    with _guard:
        shared = _open.get(real)
        if shared is not None:
            shared.engine.require_compatible(embedder, readonly=readonly, clock=clock)
            shared.handles += 1
            return shared
        engine = Engine(
            real,
            embedder=embedder,
            readonly=readonly,
            create=create,
            memory_budget=memory_budget,
            clock=clock,
        )
        try:
            adoption.catch_up(engine)
        except BaseException:
            engine.close()
            raise
        shared = _open[real] = Shared(engine)
        return shared


def release(shared: Shared) -> None:
    """Drop one handle; the last one stops the maintenance and closes the engine."""
    with _guard:
        shared.handles -= 1
        if shared.handles:
            return
        _open.pop(shared.engine.store.path, None)
    shared.close()


def _forget_after_fork() -> None:
    """A child starts with no open databases; its parent's handles are poisoned by the store."""
    global _guard
    _guard = threading.RLock()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
