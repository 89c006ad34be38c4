"""Conversations as histories: what was said when, what it costs, and what is asked about it.

Reads the files of ``bench recall``. A question's type decides whether it counts: adversarial ones
have no answer in the text. Knows data and words; it does not know policies.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb
from bench import report
from bench.recall_data import conversations, memory_of, said_at, text_of
from bench.recall_reference import reference_terms

NOT_ASKED = frozenset({"adversarial", "5"})
TOP = 10
_K1, _B = 1.2, 0.75
_NEIGHBOURS = 30

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    terms: tuple[int, ...]
    evidence: tuple[int, ...]
    """Places of the items that answer it."""


@dataclass(frozen=True, slots=True)
class History:
    """One conversation: n items in order of time.

    ``days`` (n,) when each was said, in days since the first; ``frequencies`` (n, terms) how often
    each has each term; ``sizes`` (n,) its bytes in a compressed store; ``novelty`` (n,).
    """

    name: str
    days: Floats
    frequencies: NDArray[np.uint8]
    sizes: Floats
    novelty: Floats
    questions: tuple[Question, ...]

    def __len__(self) -> int:
        return len(self.days)

    def found(self, question: Question, kept: Bools) -> NDArray[np.int64]:
        """The places of the ``TOP`` best of ``kept`` (n,) by BM25; as a store of those would
        rank.
        """
        if not question.terms or not kept.any():
            return np.zeros(0, np.int64)
        places = np.flatnonzero(kept)
        held = self.frequencies[places]
        lengths = held.sum(axis=1, dtype=np.float64)
        norm = _K1 * (1 - _B + _B * lengths / max(1.0, lengths.mean()))
        scores = np.zeros(len(places))
        for term in question.terms:
            tf = held[:, term].astype(np.float64)
            df = np.count_nonzero(tf)
            idf = np.log1p((len(places) - df + 0.5) / (df + 0.5))
            scores += idf * tf * (_K1 + 1) / (tf + norm)
        order = np.lexsort((places, -scores))[:TOP]
        return places[order[scores[order] > 0]]


def load(path: Path, overhead: float, per_byte: float) -> list[History]:
    """The histories of a file. An item takes ``overhead + per_byte * (bytes of its text)``."""
    return [_history(one, overhead, per_byte) for one in conversations(path)]


def _history(conversation: dict[str, Any], overhead: float, per_byte: float) -> History:
    items = conversation["items"]
    texts = [text_of(item) for item in items]
    counted = [Counter(reference_terms(f"{t} {i.get('time') or ''}"))
               for t, i in zip(texts, items, strict=True)]  # fmt: skip
    vocabulary: dict[str, int] = {}
    for counts in counted:
        for term in counts:
            vocabulary.setdefault(term, len(vocabulary))
    frequencies = np.zeros((len(items), len(vocabulary)), np.uint8)
    for place, counts in enumerate(counted):
        for term, times in counts.items():
            frequencies[place, vocabulary[term]] = min(255, times)
    known = {str(item["id"]): place for place, item in enumerate(items)}
    questions = []
    for query in conversation["queries"]:
        evidence = tuple(sorted({known[str(e)] for e in query["evidence"] if str(e) in known}))
        if evidence and str(query.get("type")) not in NOT_ASKED:
            terms = tuple({vocabulary[t] for t in reference_terms(query["q"]) if t in vocabulary})
            questions.append(Question(query["q"], terms, evidence))
    sizes = np.array([overhead + per_byte * len(text.encode()) for text in texts])
    return History(
        str(conversation["id"]),
        _days(items),
        frequencies,
        sizes,
        _novelty(conversation),
        tuple(questions),
    )


def _days(items: list[dict[str, Any]]) -> Floats:
    """Within a session a minute passes between two turns."""
    moments = [said_at(item) or datetime(2024, 1, 1, tzinfo=UTC) for item in items]
    first = moments[0]
    days = np.array([(moment - first).total_seconds() / 86400 for moment in moments])
    for place in range(1, len(days)):
        days[place] = max(days[place], days[place - 1] + 1 / 1440)
    return days


def _novelty(conversation: dict[str, Any]) -> Floats:
    """1 - the cosine of the closest earlier item, by memdb's own embedder and search."""
    items = conversation["items"]
    found = np.ones(len(items))
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder) as db:
        db.remember_many([memory_of(conversation, item, n) for n, item in enumerate(items)])
        places = {str(item["id"]): n for n, item in enumerate(items)}
        for place, item in enumerate(items):
            if place % 100 == 0:
                report.progress(f"{conversation['id']}: novelty of {place} of {len(items)}")
            hits = db.recall(text_of(item), k=_NEIGHBOURS, mode="vector")
            earlier = [
                hit.why.cosine
                for hit in hits
                if hit.why.cosine is not None and places[str(hit.memory.external_id)] < place
            ]
            least = min((hit.why.cosine or 0.0 for hit in hits), default=0.0)
            found[place] = 1 - max(earlier, default=least if place else 0.0)
    return np.clip(found, 0.0, 1.0)
