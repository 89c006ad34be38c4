"""How a process that serves is set: nothing is collected while it imports and opens, and its
threads take short turns.

Everything made until it serves stays until the end, so that looking for garbage in it is work for
nothing, then and at every full collection afterwards, which holds up whoever is being answered. It
imports nothing that takes long.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_later() -> Iterator[None]:
    """No garbage is collected within; what is there at the end is left alone for good."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


_TURN_S = 0.0005


@contextmanager
def short_turns() -> Iterator[None]:
    """Within, a thread that waits for the interpreter gets it sooner than Python's 5 ms.

    The loop that reads requests and sends answers needs it for a tenth of a millisecond at a time,
    and would wait that long behind each thread that answers one. (``memdb.pauses`` has the same for
    an embedding process while room is made; a server knows the library's public names alone.)
    """
    was = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(was)
