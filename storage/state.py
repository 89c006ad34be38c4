"""The one small value every transaction reads first: sequence numbers and the successor.

``content_seq`` counts every logical change (what a reader could notice) and every move of strings
between their blocks (``changes.py`` names those); ``layout_seq`` counts other maintenance (what
only moves bytes). Both are ours, not LMDB's transaction number, because a compacting copy starts
that one again. Caches, cursors and retention plans are bound to them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_STATE = struct.Struct("<QQQII")
STATE_KEY = b"state"


class State(NamedTuple):
    content_seq: int = 0
    layout_seq: int = 0
    superseded_by: int = 0  # a generation's number; 0: this one is current
    next_run: int = 0  # the next unallocated run of row ids
    tokenizer: int = 0  # version of the analysis the postings were made with; 0: none yet

    def pack(self) -> bytes:
        return _STATE.pack(*self)

    @classmethod
    def unpack(cls, payload: bytes | None) -> State:
        return cls() if payload is None else tuple.__new__(cls, _STATE.unpack(payload))
