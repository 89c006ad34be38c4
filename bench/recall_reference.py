"""The reference that a lexical leg is measured by: BM25 in plain Python, float lengths, no index.

It shares nothing with the product, so that a fault of ours cannot hide in both.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from typing import Any

import Stemmer

from bench.recall_data import text_of


def reference_text(item: dict[str, Any]) -> str:
    """The reference indexes the date as well: the design's settings."""
    return f"{text_of(item)} {item.get('time') or ''}"


_STEMMER = Stemmer.Stemmer("english")
_WORD = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]+")
_STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be been before but by can could d did do does
    for from had has have he her him his how i if in into is it its just ll m me my no not of on or
    our re s she so some t than that the their them then there these they this to too up us ve very
    was we were what when where which who whom whose why will with would you your""".split()
)


def reference_terms(text: str) -> list[str]:
    """Lower-case words without stop and question words, stemmed; Chinese in pairs of signs."""
    terms: list[str] = []
    for word in _WORD.findall(text.lower()):
        if word[0] > "z":
            terms.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in _STOP_WORDS:
            terms.append(_STEMMER.stemWord(word))
    return terms


class ReferenceBm25:
    """Okapi BM25 over a list of (id, text): k1 = 1.2, b = .75, nothing clever."""

    def __init__(self, texts: list[tuple[str, str]]) -> None:
        self._ids = [id for id, _ in texts]
        self._counts = [Counter(reference_terms(text)) for _, text in texts]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean = sum(self._lengths) / max(1, len(self._lengths))
        self._df = Counter(term for counts in self._counts for term in counts)

    def search(self, query: str, k: int) -> list[str]:
        scores: dict[int, float] = defaultdict(float)
        n = len(self._ids)
        for term, times in Counter(reference_terms(query)).items():
            df = self._df.get(term, 0)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            for place, counts in enumerate(self._counts):
                tf = counts.get(term, 0)
                if tf:
                    norm = 1.2 * (0.25 + 0.75 * self._lengths[place] / self._mean)
                    scores[place] += times * idf * tf * 2.2 / (tf + norm)
        best = sorted(scores, key=lambda place: (-scores[place], place))[:k]
        return [self._ids[place] for place in best]
