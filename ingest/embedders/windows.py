"""Embedding texts of any length: what a model cannot read at once is read in windows.

A text of more than ``max_tokens`` tokens is cut at the ends of sentences, else between words, else
between characters; the windows' unit vectors are averaged by their tokens and made unit length
again. Nothing is cut off: the windows of a text, joined, are the text.

It must not know which embedder it drives, only the protocol.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.ingest.embedders.protocol import Embedder, Role

# Where a window may end, best first: after a paragraph, a sentence, a word.
_BOUNDARIES = (
    re.compile(r"\n\s*\n\s*"),
    re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]+|\n+"),
    re.compile(r"\s+"),
)
_FIRST_GUESS = 4.0  # characters a token, for the first window of a text
_FULL_ENOUGH = 0.75  # a window of this share of max_tokens is not stretched further
_MOST_COUNTS = 24


def embed_documents(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors of n texts to be found; what has no meaning is all zeros.

    Raises ``InvalidArgument`` when a text is no valid Unicode or the embedder returns what its
    protocol forbids, and whatever the embedder raises (``EmbedderUnavailable``).
    """
    return _embed(embedder, texts, "document")


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors of n questions; otherwise like ``embed_documents``."""
    return _embed(embedder, texts, "query")


def embed_query(embedder: Embedder, text: str) -> NDArray[np.float32]:
    """(dim,) float32 unit vector of one question."""
    row: NDArray[np.float32] = embed_queries(embedder, [text])[0]
    return row


def cut(text: str, max_tokens: int, count: Callable[[str], int]) -> Iterator[tuple[str, int]]:
    """(window, tokens) of a text: the windows, joined, are the text.

    Each has at most ``max_tokens`` tokens by ``count``; a single character that has more is a
    window by itself, for it cannot be cut.
    """
    start, ratio = 0, _FIRST_GUESS
    while start < len(text):
        end, tokens = _reach(text, start, max_tokens, count, ratio)
        if end < len(text):
            for better in _ends(text, start, end):
                fewer = count(text[start:better])
                if fewer <= max_tokens:
                    end, tokens = better, fewer
                    break
        yield text[start:end], tokens
        ratio = (end - start) / max(tokens, 1)
        start = end


def check_vectors(embedder: Embedder, vectors: object, n: int) -> NDArray[np.float32]:
    """``vectors`` if they are (n, dim) finite float32. Raises ``InvalidArgument``."""
    problem = ""
    if not isinstance(vectors, np.ndarray):
        problem = f"a {type(vectors).__name__}, not a numpy array"
    elif vectors.shape != (n, embedder.dim):
        problem = f"shape {vectors.shape}, not {(n, embedder.dim)}"
    elif vectors.dtype != np.float32:
        problem = f"{vectors.dtype}, not float32"
    elif not np.isfinite(vectors).all():
        problem = "numbers that are not finite"
    if problem or not isinstance(vectors, np.ndarray):
        raise InvalidArgument(
            f"embed() of the embedder {embedder.name!r} returned {problem}", field="embedder"
        )
    return vectors


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, dim) rows divided by their length; rows of zeros stay zero."""
    # Scaled by its largest number first, so that no square overflows or vanishes.
    largest = np.abs(vectors).max(axis=1, initial=0.0)[:, None].astype(np.float64)
    scaled = np.divide(vectors, largest, out=np.zeros(vectors.shape), where=largest > 0)
    norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    np.divide(scaled, norms, out=scaled, where=norms > 0)
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


def _embed(embedder: Embedder, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
    _require_unicode(texts)
    pieces: list[str] = []
    weights: list[int] = []
    firsts = [0]
    overhead = embedder.count_tokens("")  # what the model puts around every text weighs nothing
    for text, tokens in zip(texts, _count_all(embedder, texts), strict=True):
        if tokens <= embedder.max_tokens:
            windows = [(text, tokens)]
        else:
            windows = list(cut(text, embedder.max_tokens, embedder.count_tokens))
            windows = windows or [(text, tokens)]  # nothing to cut in an empty text
        pieces += [piece for piece, _ in windows]
        weights += [max(tokens - overhead, 0) for _, tokens in windows]
        firsts.append(len(pieces))
    if not pieces:
        return np.zeros((0, embedder.dim), dtype=np.float32)
    vectors = unit(check_vectors(embedder, embedder.embed(pieces, role=role), len(pieces)))
    if len(pieces) == len(texts):
        return vectors
    pooled = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    for row, (first, stop) in enumerate(pairwise(firsts)):
        share = np.array(weights[first:stop] if any(weights[first:stop]) else [1] * (stop - first))
        pooled[row] = (vectors[first:stop] * (share / share.sum())[:, None]).sum(axis=0)
    multiple = np.diff(firsts) > 1
    result: NDArray[np.float32] = vectors[
        np.array(firsts[:-1])
    ]  # a text of one window keeps that vector to the bit
    result[multiple] = unit(pooled[multiple])
    return result


def _count_all(embedder: Embedder, texts: Sequence[str]) -> list[int]:
    many: Callable[[Sequence[str]], list[int]] | None
    many = getattr(embedder, "count_tokens_many", None)
    return many(texts) if many else [embedder.count_tokens(text) for text in texts]


def _require_unicode(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        try:
            if not text.isascii():
                text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"text {number} holds half a surrogate pair at {error.start}", field="text"
            ) from error


def _reach(
    text: str, start: int, max_tokens: int, count: Callable[[str], int], ratio: float
) -> tuple[int, int]:
    """(end, tokens) of a long, not necessarily the longest, window from ``start`` that fits."""
    rest = len(text) - start
    fits, fits_tokens, too_long = 0, 0, rest + 1
    size = min(rest, max(1, int(max_tokens * ratio)))
    for _ in range(_MOST_COUNTS):
        tokens = count(text[start : start + size])
        if tokens <= max_tokens:
            fits, fits_tokens = size, tokens
            if size == rest or tokens >= _FULL_ENOUGH * max_tokens:
                break
        else:
            too_long = size
        if too_long - fits <= 1:
            break
        guess = int(size * 0.95 * max_tokens / max(tokens, 1))
        if not fits < guess < too_long:
            guess = (fits + min(too_long, 2 * size + 1)) // 2
        size = min(max(guess, fits + 1), too_long - 1)
    if not fits:
        return start + 1, count(text[start : start + 1])
    return start + fits, fits_tokens


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Better ends than ``end``, best first, none that leaves less than half of the window."""
    least = start + (end - start + 1) // 2
    for boundary in _BOUNDARIES:
        ends = [match.end() for match in boundary.finditer(text, least, end)]
        if ends:
            yield ends[-1]
    while end > least and unicodedata.combining(text[end]):
        end -= 1
    yield end
