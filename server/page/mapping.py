"""Where memories lie on the map: a place in the plane for each vector, and regions of the plane.

A neighbour embedding (the gradient of t-SNE, van der Maaten and Hinton 2008, with equal weights for
the nearest few), begun at the principal components and computed whole, so that the same vectors
always give the same map. It sees vectors and words; no database and no page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WIDTH: Final = 100.0
HEIGHT: Final = 72.0
MARGIN: Final = 3.0

_NEIGHBOURS: Final = 10
_PROJECTED: Final = 256  # dimensions that are looked at; more are projected by chance first
_GATHERING: Final = 60  # steps in which neighbours pull more strongly, so that they find together
_POWERS: Final = 40
_STEPS: Final = 200
_PULL: Final = 12.0
_APART_STEPS: Final = 12
_REGIONS: Final = 8
_MOVES: Final = 20
_WORD: Final = re.compile(r"[^\W\d_]{4,18}")
_WORDS_SHOWN: Final = 2
_TYPICAL: Final = 1.8  # times as frequent as in the whole: words that are everywhere say nothing


class Region(NamedTuple):
    """A part of the plane: its name, where that stands, and the places of its points."""

    name: str
    x: float
    y: float
    members: tuple[int, ...]


def place(vectors: Array, gap: float) -> Array:
    """(n, 2) places within WIDTH x HEIGHT for (n, dim) vectors, at least about ``gap`` apart."""
    n = len(vectors)
    if n < 3:
        return np.array([[WIDTH * (i + 1) / (n + 1), HEIGHT / 2] for i in range(n)], np.float32)
    unit = _unit(_projected(vectors))
    start = _components(unit)
    drawn = _gathered(_neighbours(unit), start)
    return _apart(_fitted(drawn), gap)


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Array = vectors / np.maximum(lengths, np.float32(1e-12))
    return found


def _projected(vectors: Array) -> Array:
    if vectors.shape[1] <= 2 * _PROJECTED:
        return vectors
    chance = np.random.default_rng(1).standard_normal((vectors.shape[1], _PROJECTED))
    found: Array = vectors @ chance.astype(np.float32)
    return found


def _components(unit: Array) -> Array:
    """(n, 2): the two principal components, small; signs by the largest part of each."""
    centred = unit - unit.mean(axis=0)
    spread = centred.T @ centred
    # Powers of a matrix of two columns: a whole decomposition wakes a thread on every core.
    axes = np.random.default_rng(2).standard_normal((len(spread), 2)).astype(np.float32)
    for _ in range(_POWERS):
        axes, _ = np.linalg.qr(spread @ axes)
    if axes.shape[1] < 2:
        axes = np.hstack([axes, np.zeros_like(axes)])
    found = centred @ _signed(axes)
    turn = np.arange(len(unit)) * 2.399963  # equal vectors begin a little beside each other
    found += 1e-4 * np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    small: Array = (found / max(float(found[:, 0].std()), 1e-9) * 1e-2).astype(np.float32)
    return small


def _signed(axes: NDArray[Any]) -> NDArray[Any]:
    """Axes (n, 2) whose largest part is positive: which way they point is nobody's choice."""
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    found: NDArray[Any] = axes * np.where(largest < 0, -1, 1)
    return found


def _neighbours(unit: Array) -> Array:
    """(n, n) how much each pair belongs together; all of it adds up to 1."""
    n = len(unit)
    near = min(_NEIGHBOURS, n - 1)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argpartition(-alike, near - 1, axis=1)[:, :near]
    found = np.zeros((n, n), np.float32)
    np.put_along_axis(found, nearest, 1.0, axis=1)
    found += found.T
    found /= found.sum()
    return found


def _gathered(together: Array, start: Array) -> Array:
    """The gradient's way from ``start``: what belongs together is pulled, all push each other."""
    n = len(start)
    at, moved, gains = start.T.copy(), np.zeros((2, n), np.float32), np.ones((2, n), np.float32)
    rate = np.float32(max(n / _PULL / 4, 20.0))
    near, force = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    pulled = together * np.float32(_PULL)
    for step in range(_STEPS):
        gathering = step < _GATHERING
        np.subtract(at[0][:, None], at[0][None, :], out=near)
        np.square(near, out=near)
        np.subtract(at[1][:, None], at[1][None, :], out=force)
        np.square(force, out=force)
        near += force
        near += np.float32(1)
        np.reciprocal(near, out=near)
        np.multiply(near, np.float32(-1 / (near.sum() - n)), out=force)
        force += pulled if gathering else together
        force *= near
        gradient = at * np.einsum("ij->i", force) - np.einsum("ij,kj->ki", force, at)
        same = (gradient > 0) == (moved > 0)
        gains = np.maximum(np.where(same, gains * 0.8, gains + 0.2), 0.01).astype(np.float32)
        moved = np.float32(0.5 if gathering else 0.8) * moved - 4 * rate * gains * gradient
        at = at + moved
        at -= at.mean(axis=1, keepdims=True)
    drawn: Array = at.T
    return drawn


def _fitted(at: Array) -> Array:
    """The places turned so that they are widest from left to right, and filling the frame."""
    _, axes = np.linalg.eigh(np.cov(at.T.astype(np.float64)))
    turned = at @ _signed(axes[:, ::-1])
    low, high = turned.min(axis=0), turned.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    fitted: Array = ((turned - low) / np.maximum(high - low, 1e-9) * room + MARGIN).astype(
        np.float32
    )
    return fitted


def _apart(at: Array, gap: float) -> Array:
    """Push points apart that lie on each other, so that each can be seen."""
    upper = np.array([WIDTH - MARGIN, HEIGHT - MARGIN], np.float32)
    for _ in range(_APART_STEPS):
        x, y = at[:, 0], at[:, 1]
        squares = np.square(x[:, None] - x[None, :])
        squares += np.square(y[:, None] - y[None, :])
        left, right = np.nonzero(squares < gap * gap)
        left, right = left[left != right], right[left != right]
        if not len(left):
            break
        between = at[left] - at[right]
        span = np.sqrt(squares[left, right])[:, None]
        angle = np.minimum(left, right) * 2.399963  # which way equal ones go
        aside = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sign(left - right)[:, None]
        way = np.where(span > 1e-4, between / (span + 1e-9), aside)
        push = np.zeros_like(at)
        np.add.at(push, left, (way * (gap - span) * 0.3).astype(np.float32))
        at = np.clip(at + push, np.float32(MARGIN), upper)
    return at


# --- regions --------------------------------------------------------------------------------------


def regions(at: Array, texts: Sequence[str]) -> list[Region]:
    """Parts of the plane with what is typical of their texts as names, from the top down."""
    n = len(at)
    if not n:
        return []
    label = _labels(at, max(1, min(_REGIONS, round(n**0.5 / 3))))
    words = [{} if not text else _words(text) for text in texts]
    overall = Counter(word for one in words for word in one)
    shown = _spellings(words)
    found = []
    for number in range(int(label.max()) + 1):
        members = np.flatnonzero(label == number)
        if not len(members):
            continue
        inside = Counter(word for place in members.tolist() for word in words[place])
        name = ", ".join(shown[word] for word in _typical(inside, overall, len(members), n))
        middle = np.median(at[members], axis=0)
        found.append(Region(name, float(middle[0]), float(middle[1]), tuple(members.tolist())))
    return sorted(found, key=lambda one: (one.y, one.x))


def _labels(at: Array, count: int) -> NDArray[np.int64]:
    """(n,) the region of each place: k-means, begun at places far from each other."""
    centres = [at.mean(axis=0)]
    for _ in range(count - 1):
        away = np.min([((at - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        centres.append(at[int(away.argmax())])
    middle = np.array(centres)
    label = np.zeros(len(at), np.int64)
    for _ in range(_MOVES):
        label = ((at[:, None, :] - middle[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
        for number in range(count):
            members = at[label == number]
            if len(members):
                middle[number] = members.mean(axis=0)
    return label


def _words(text: str) -> dict[str, str]:
    """The words of a text, folded, with how they are written there."""
    return {word.casefold(): word for word in _WORD.findall(text[:2_000])}


def _spellings(words: Sequence[dict[str, str]]) -> dict[str, str]:
    """How each word is mostly written."""
    ways: dict[str, Counter[str]] = {}
    for one in words:
        for folded, written in one.items():
            ways.setdefault(folded, Counter())[written] += 1
    return {folded: counter.most_common(1)[0][0] for folded, counter in ways.items()}


def _typical(inside: Counter[str], overall: Counter[str], size: int, n: int) -> list[str]:
    """The words that a region has more of than the whole, the most telling first."""
    scored = [
        (count * log((count / size) / (overall[word] / n)), word)
        for word, count in inside.items()
        if count >= min(3, size) and count / size >= _TYPICAL * overall[word] / n
    ]
    chosen: list[str] = []
    for _, word in sorted(scored, key=lambda one: (-one[0], one[1])):
        if not any(word[:4] == other[:4] for other in chosen):
            chosen.append(word)
        if len(chosen) == _WORDS_SHOWN:
            break
    return chosen
