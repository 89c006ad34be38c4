"""How a process that serves starts: nothing is collected while it imports and opens.

Everything made until then stays until the end, so that looking for garbage in it is work for
nothing, then and at every full collection afterwards, which holds up whoever is being answered.
It imports nothing that takes long.
"""

from __future__ import annotations

import gc
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
