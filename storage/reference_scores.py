"""The twins of the native code that scores postings: see ``reference``, which has the others.

storage/postings/layout.py has the grammar of postings. This file knows arrays and bytes alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scores", "add_scores", "clear_scores", "postings_end"]

Scores = NDArray[np.float32]
_POSTINGS: Final = np.dtype([("row", "<u4"), ("tf", "u1"), ("length", "u1")])


def postings_end(postings: bytes) -> int:
    """One more than the greatest row of postings; 0 where there are none."""
    entries = np.frombuffer(postings, _POSTINGS)
    return int(entries["row"].max()) + 1 if len(entries) else 0


def add_scores(postings: bytes, norm: Scores, weight: float, scores: Scores) -> None:
    """scores[row] += weight tf / (tf + norm[length]) of one term's postings, in float32.

    norm (256,); scores (n,) with n > every row, else ``IndexError`` and nothing is added. Rows are
    distinct.
    """
    entries = np.frombuffer(postings, _POSTINGS)
    tf = entries["tf"].astype(np.float32)
    parts = tf / (tf + norm[entries["length"]])
    parts *= np.float32(weight)
    scores[entries["row"]] += parts


def clear_scores(postings: bytes, scores: Scores) -> None:
    """scores[row] = 0 of one term's postings."""
    scores[np.frombuffer(postings, _POSTINGS)["row"]] = 0
