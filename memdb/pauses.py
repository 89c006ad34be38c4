"""Holding the cyclic garbage collector back while one batch is made.

A batch allocates tens of thousands of small objects that live on; the collector walks them again
and again and finds nothing (measured: a tenth of the time of an import). Reference counting goes
on as ever.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
