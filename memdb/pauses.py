"""What one thread's long work does to the others of its process, and how to make that less.

**Collections.** A batch allocates tens of thousands of small objects that live on; the cyclic
garbage collector walks them again and again and finds nothing (measured: a tenth of the time of an
import). It is held back meanwhile; reference counting goes on as ever.

**Turns.** A thread that wants Python's lock waits for a *switch interval* (5 ms) before whoever has
it must let go, and a read takes it up anew after each call into LMDB: twenty times in a recall,
which so takes a tenth of a second beside a thread that computes. While background work that may
take seconds is done, the interval is a tenth of that.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SHORT_TURN_S: Final = 0.0005
_ROUNDED_S: Final = 5e-6  # Python keeps whole microseconds

_turns_guard = threading.Lock()
_turns: list[float] = []  # the interval found by each block that is entered, the outermost first


@contextmanager
def collection_paused() -> Iterator[None]:
    """No cyclic collection in this block; left as it was found. Keep the block short."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def short_turns() -> Iterator[None]:
    """In this block no thread keeps Python's lock for long from those who ask for it. Blocks of
    several threads may overlap: the last to end leaves the interval as the first found it, unless
    somebody set another meanwhile."""
    with _turns_guard:
        _turns.append(_turns[0] if _turns else sys.getswitchinterval())
        sys.setswitchinterval(min(_turns[0], SHORT_TURN_S))
    try:
        yield
    finally:
        with _turns_guard:
            found = _turns.pop()
            ours = abs(sys.getswitchinterval() - min(found, SHORT_TURN_S)) < _ROUNDED_S
            if not _turns and ours:
                sys.setswitchinterval(found)
