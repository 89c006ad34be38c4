"""From texts to hashed terms, fast: the batch side of the tokenizer.

A raw token's terms, and a term's keyed hash, never change while a store's key and the tokenizer
stay the same, so both are cached by raw token: after warming up, a short text costs one regular
expression, one dictionary look-up a word, and its share of one sort a batch.

Caches hold words of the user in memory, bounded, never on disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from memdb.query.tokenizer import Tokenizer
from memdb.storage.kernels import KERNELS
from memdb.storage.postings import HASH_BYTES, Analysed

Digest = Callable[[bytes, int], bytes]

_MAX_CACHED: Final = 65_536  # raw tokens; some 15 MB when full
_MAX_TF: Final = 255
_PROBE: Final = b"\x00memdb/terms"  # no term: tells one store's hash key from another's


class _Cache(dict[str, int]):
    """Raw token -> its number; fills itself."""

    __slots__ = ("add",)

    def __init__(self, add: Callable[[str], int]) -> None:
        super().__init__()
        self.add = add

    def __missing__(self, raw: str) -> int:
        number = self[raw] = self.add(raw)
        return number


class Analyser:
    """Hashed terms of texts and questions for one store; thread-safe.

    ``digest`` is a transaction's: ``digest(data, size)``. Another store's key empties the cache.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer or Tokenizer()
        self._lock = threading.Lock()
        self._key = b""
        self._reset()

    def _reset(self) -> None:
        self._cache = _Cache(self._enter)
        self._hashes: list[bytes] = []  # by term number
        self._number_of: dict[str, int] = {}  # term -> number
        self._expansion: list[tuple[int, ...]] = []  # raw number -> term numbers
        self._table = np.empty((0, HASH_BYTES), np.uint8)
        self._starts = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._flat = np.empty(0, np.int64)

    def _enter(self, raw: str) -> int:
        terms = self.tokenizer.terms_of(raw)
        self._expansion.append(tuple(self._term(term) for term in terms))
        return len(self._expansion) - 1

    def _term(self, term: str) -> int:
        number = self._number_of.get(term)
        if number is None:
            number = self._number_of[term] = len(self._hashes)
            self._hashes.append(self._digest(term.encode(), HASH_BYTES))
        return number

    def _begin(self, digest: Digest) -> None:
        key = digest(_PROBE, HASH_BYTES)
        if key != self._key or len(self._cache) > _MAX_CACHED:
            self._reset()
            self._key = key
        self._digest = digest

    def query(self, text: str, digest: Digest) -> list[tuple[str, bytes, int]]:
        """(term, hash, how often) of each distinct term of a question."""
        counts = Counter(self.terms(text))
        return [(term, digest(term.encode(), HASH_BYTES), n) for term, n in counts.items()]

    def terms(self, text: str) -> list[str]:
        with self._lock:
            return self.tokenizer.terms(text)

    def analyse(self, text: str, digest: Digest) -> Analysed:
        """The hashed terms of one text."""
        with self._lock:
            self._begin(digest)
            cache, expansion, hashes = self._cache, self._expansion, self._hashes
            numbers = [n for raw in self.tokenizer.raw(text) for n in expansion[cache[raw]]]
            counts = sorted((hashes[n], times) for n, times in Counter(numbers).items())
        return Analysed(
            b"".join([one for one, _ in counts]),
            bytes([min(times, _MAX_TF) for _, times in counts]),
            len(numbers),
        )

    def analyse_many(self, texts: Sequence[str], digest: Digest) -> list[Analysed]:
        """The hashed terms of each of many texts, at a fraction of the price of one."""
        with self._lock:
            self._begin(digest)
            raw_of, number_of = self.tokenizer.raw, self._cache.__getitem__
            raws: list[int] = []
            counts: list[int] = []
            for text in texts:
                tokens = raw_of(text)
                raws.extend(map(number_of, tokens))
                counts.append(len(tokens))
            self._refresh_tables()
            tables = self._starts, self._counts, self._flat, self._table
            return list(map(Analysed._make, KERNELS.count_terms(raws, counts, *tables)))

    def _refresh_tables(self) -> None:
        """Arrays over what the cache learned since the last batch."""
        known = len(self._starts)
        if known < len(self._expansion):
            news = self._expansion[known:]
            sizes = np.fromiter(map(len, news), np.int64, len(news))
            starts = len(self._flat) + np.cumsum(sizes) - sizes
            self._starts = np.concatenate((self._starts, starts))
            self._counts = np.concatenate((self._counts, sizes))
            flat = np.array([n for expansion in news for n in expansion], np.int64)
            self._flat = np.concatenate((self._flat, flat))
        if len(self._table) < len(self._hashes):
            more = np.frombuffer(b"".join(self._hashes[len(self._table) :]), np.uint8)
            self._table = np.concatenate((self._table, more.reshape(-1, HASH_BYTES)))
