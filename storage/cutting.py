"""How many small entries go into a value, so that values fill LMDB's pages.

Three values of ``VALUE_BYTES``, with their keys, fill a page. What compresses an entry to how many
bytes is known only by doing it: so each value is tried with as many entries as the one before
suggests. This file knows numbers and a function that encodes; it knows no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

VALUE_BYTES: Final = 1_290
_FIRST_TRY: Final = 128
_SPARE: Final = 24


def cut(
    total: int, most: int, encode: Callable[[int, int], bytes]
) -> Iterator[tuple[int, int, bytes]]:
    """(start, stop, payload) of pieces of at most ``most`` entries, each as full as it gets.

    ``encode`` is given a start and a stop.
    """
    start, wanted = 0, _FIRST_TRY
    while start < total:
        count = min(wanted, most, total - start)
        payload = encode(start, start + count)
        while len(payload) > VALUE_BYTES and count > 1:
            count = max(1, min(count - 1, count * VALUE_BYTES // len(payload)))
            payload = encode(start, start + count)
        room = VALUE_BYTES - len(payload)
        if count < min(most, total - start) and room > VALUE_BYTES // 12:
            more = max(count + 1, count * (VALUE_BYTES - _SPARE) // len(payload))
            more = min(more, most, total - start)
            larger = encode(start, start + more)
            if len(larger) <= VALUE_BYTES:
                count, payload = more, larger
        yield start, start + count, payload
        start += count
        wanted = max(1, count * (VALUE_BYTES - _SPARE) // len(payload))
