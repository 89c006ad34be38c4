"""What tests of ``db.files`` share: an embedder that counts, and files with times of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OLD_NS = 1_700_000_000 * 10**9


class Counting:
    """An embedder of hashed words that counts what it is asked."""

    name = "hashed-words"
    revision = "1"
    dim = 64
    max_tokens = 24

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: Sequence[str], role: str = "document") -> NDArray[np.float32]:
        if role == "document":
            self.embedded += texts
        out = np.full((len(texts), self.dim), 1e-3, np.float32)
        for place, text in enumerate(texts):
            for word in text.lower().split():
                seed = sum(ord(letter) * 31**n for n, letter in enumerate(word[:12]))
                out[place, seed % self.dim] += 1
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def write(path: Path, text: str | bytes, age_s: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, ns=(OLD_NS - age_s * 10**9,) * 2)


def touch_up(path: Path, text: str) -> None:
    """An edit a minute later than the one before."""
    later = path.stat().st_mtime_ns + 60 * 10**9
    path.write_text(text)
    os.utime(path, ns=(later, later))
