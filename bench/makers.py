"""Data for benchmarks: memories, events and vectors, the same ones for the same seed.

Texts are made-up words drawn with Zipf's frequencies, twelve to a text, so that postings have the
long and the short lists that real ones have. Vectors are clustered, as embeddings are; real ones
are taken from a folder where there is one. Nothing here touches a database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM = 384
VECTORS = Path("../shared/data/vectors")
START = datetime(2023, 1, 1, tzinfo=UTC)
EVENTS_A_DAY = 1000
_WORDS = 20_000
_WORDS_A_TEXT = 12
_CLUSTERS = 500
_BLOCK = 4096

Floats = NDArray[np.float32]


def words(count: int = _WORDS) -> list[str]:
    """Distinct made-up words of two to four syllables, the same in every run."""
    rng = np.random.default_rng(7)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "ai", "or")]
    found: dict[str, None] = {}
    while len(found) < count:
        parts = rng.integers(0, len(syllables), rng.integers(2, 5))
        found["".join(syllables[part] for part in parts)] = None
    return list(found)


def texts(count: int, seed: int = 1, per_text: int = _WORDS_A_TEXT) -> Iterator[str]:
    """``count`` texts of ``per_text`` words each; word r is drawn with weight 1 / (r + 3)."""
    rng = np.random.default_rng(seed)
    known = np.array(words())
    weights = np.cumsum(1 / (np.arange(len(known)) + 3))
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        drawn = np.searchsorted(weights, rng.random((size, per_text)) * weights[-1])
        yield from (" ".join(row) for row in known[drawn].tolist())


def vectors(count: int, seed: int = 1, dim: int = DIM) -> Floats:
    """(count, dim) float32 unit vectors around a few hundred centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(3).standard_normal((_CLUSTERS, dim)).astype(np.float32)
    made = rng.standard_normal((count, dim), dtype=np.float32)
    for start in range(0, count, _BLOCK):
        block = made[start : start + _BLOCK]
        block += centres[rng.integers(0, _CLUSTERS, len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return made


def real_vectors(folder: Path, count: int) -> tuple[Floats, Floats, NDArray[np.int32]] | None:
    """(base, queries, true neighbours) of the MiniLM files in ``folder``; None without them.

    The truth is of the whole base, so it is given only when ``count`` covers that.
    """
    names = ("base.f16", "queries.f16", "truth100.i32")
    paths = [folder / f"minilm384-100k-{name}.npy" for name in names]
    if not all(path.exists() for path in paths):
        return None
    base, queries, truth = (np.load(path) for path in paths)
    if count < len(base):
        truth = truth[:0]
    return base[:count].astype(np.float32), queries.astype(np.float32), truth.astype(np.int32)


def moment(number: int, count: int) -> datetime:
    """The time of memory ``number`` of ``count``: spread evenly over two years."""
    return START + timedelta(seconds=int(number * 63_072_000 / max(1, count)))


def memory(number: int, count: int, text: str, vector: Floats | None) -> dict[str, Any]:
    """The arguments of ``remember``: three tags, three metadata fields, a stream and a time.

    ``metadata.n`` and ``metadata.code`` have a value of their own in every memory.
    """
    fields: dict[str, Any] = {
        "text": text,
        "source": f"app:{('mail', 'chat', 'calendar')[number % 3]}",
        "tags": [f"tag{number % 7}", f"topic{number % 50}", f"person{number % 311}"],
        "metadata": {
            "n": number * 7919 % count,
            "code": f"id-{number * 104_729 % count:06d}",
            "chat": f"chat{number % 20}",
        },
        "stream": f"chat/{number % 50}",
        "event_time": moment(number, count),
    }
    if vector is not None:
        fields["vector"] = vector
    return fields


def memories(count: int, given: Floats | None, *, seed: int = 1) -> Iterator[dict[str, Any]]:
    """``count`` memories, with the vectors given (as many) or none."""
    for number, text in enumerate(texts(count, seed)):
        yield memory(number, count, text, None if given is None else given[number])


def events(count: int, *, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Events with text, in order of time, a thousand a day."""
    step = timedelta(days=1) / EVENTS_A_DAY
    for number, text in enumerate(texts(count, seed, per_text=6)):
        yield {
            "text": text,
            "kind": "message",
            "source": "app:chat",
            "stream": f"chat/{number % 20}",
            "event_time": START + number * step,
        }


def samples(count: int, *, seed: int = 1) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Samples of one sensor as (event_time, data), a thousand a day."""
    rng = np.random.default_rng(seed)
    step = timedelta(days=1) / EVENTS_A_DAY
    for start in range(0, count, _BLOCK):
        rates = (60 + 20 * rng.random(min(_BLOCK, count - start))).round(1).tolist()
        for place, rate in enumerate(rates):
            yield START + (start + place) * step, {"bpm": rate, "steps": (start + place) % 40}


def days(count: int) -> int:
    """How many days ``count`` events or samples fill."""
    return -(-count // EVENTS_A_DAY)
