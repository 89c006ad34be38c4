"""What a memory is worth keeping: pure functions of numbers and arrays, without input or output.

    V = w R         w: what it holds, from how rare its words are, how new it was, how linked it is
                    R: how likely it is to be wanted still, which time lowers and use renews

Sources. The forgetting curve: H. Ebbinghaus, *Ueber das Gedaechtnis*, 1885, sections 26-29. The
power law and its constants: the FSRS-4.5 algorithm (J. Ye and others, *A Stochastic Shortest Path
Algorithm for Optimizing Spaced Repetition Scheduling*, KDD 2022, and its published successors).
Activation: J. R. Anderson and L. J. Schooler, *Reflections of the environment in memory*,
Psychological Science 2, 1991; with the approximation for many uses of J. R. Anderson and
C. Lebiere, *The Atomic Components of Thought*, 1998, section 3.3. Inverse document frequency:
S. Robertson and H. Zaragoza, *The Probabilistic Relevance Framework*, 2009, section 3.1.

Times are days here, strengths too. This file knows no memory, row or policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Curve = Literal["exponential", "fsrs", "actr"]
CURVES: Final[tuple[Curve, ...]] = get_args(Curve)

FLOOR: Final = 0.3
STRENGTH_MAX_DAYS: Final = 3650.0
GAIN: Final = 1.5
REINFORCED_EVERY_S: Final = 900.0
LINKS_ENOUGH: Final = 5
DAY_US: Final = 86_400_000_000

_FSRS_DECAY: Final = -0.5
_FSRS_FACTOR: Final = 19 / 81  # makes R(S) = .9
_ACTR_DECAY: Final = 0.5
_ACTR_NOISE: Final = 0.4

CLASS_DAYS: Final[dict[str, float | None]] = {
    "profile": None,  # superseded, never decayed
    "note": 180.0,
    "event": 90.0,
    "stream": 30.0,  # an event of a conversation or sensor
    "chunk": None,  # while its file exists; a note after that
}
"""Strength at first, in days, by retention class; None does not decay."""


def information(
    term_ids: ArrayLike, offsets: ArrayLike, documents: int | None = None
) -> NDArray[np.float64]:
    """(n,) information mass of n texts: the idf of their distinct terms, summed.

    ``term_ids`` (m,) integers, those of text i at ``offsets[i]:offsets[i + 1]`` and each once;
    ``offsets`` (n + 1,). A term's document frequency is how often it occurs here; ``documents`` is
    N, n unless given. The idf is ln(1 + (N - df + .5) / (df + .5)), which is never negative.
    """
    terms = np.asarray(term_ids, dtype=np.int64)
    bounds = np.asarray(offsets, dtype=np.int64)
    count = len(bounds) - 1
    total = count if documents is None else documents
    if not len(terms):
        return np.zeros(max(0, count))
    frequency = np.bincount(terms)[terms]
    idf = np.log1p((total - frequency + 0.5) / (frequency + 0.5))
    sums = np.concatenate(([0.0], np.cumsum(idf)))
    mass: Floats = sums[bounds[1:]] - sums[bounds[:-1]]
    return mass


def quantiles(values: ArrayLike, groups: Sequence[str] | None = None) -> Floats:
    """(n,) each value's place among those of its group, in [0, 1]: the share that lies below it,
    equals counted half. A value alone in its group is at .5."""
    given = np.asarray(values, dtype=np.float64)
    found = np.empty(len(given))
    labels = np.zeros(len(given), np.int64)
    if groups is not None:
        labels = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ordered = np.sort(given[members])
        below = np.searchsorted(ordered, given[members], "left")
        not_above = np.searchsorted(ordered, given[members], "right")
        found[members] = (below + not_above) / (2 * len(members))
    return found


def novelty(vectors: ArrayLike) -> Floats:
    """(n,) 1 - the greatest cosine to an earlier row of ``vectors`` (n, dim), in [0, 1].

    The first is 1; so is a row of zeros. Exact, in blocks: n * n * dim products.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    found = np.ones(len(rows))
    block = 512
    for start in range(0, len(rows), block):
        here = unit[start : start + block]
        best = np.full(len(here), -1.0, np.float32)
        if start:
            best = (here @ unit[:start].T).max(axis=1)
        inside = here @ here.T
        inside[np.triu_indices(len(here))] = -1.0
        found[start : start + block] = 1.0 - np.maximum(best, inside.max(axis=1))
    if len(found):
        found[0] = 1.0
    return np.clip(found, 0.0, 1.0)


def weight(
    info: ArrayLike,
    novelty: ArrayLike,
    links: ArrayLike,
    importance: ArrayLike | None = None,
) -> Floats:
    """(n,) clip(.2 + .5 info + .2 novelty + .1 min(1, links / 5), 0, 1).

    ``info`` are quantiles within a kind. ``importance`` (n,), where it is not NaN, is what the
    owner said and replaces the sum.
    """
    linked = np.minimum(1.0, np.asarray(links, dtype=np.float64) / LINKS_ENOUGH)
    summed = 0.2 + 0.5 * np.asarray(info) + 0.2 * np.asarray(novelty) + 0.1 * linked
    if importance is not None:
        said = np.asarray(importance, dtype=np.float64)
        summed = np.where(np.isnan(said), summed, said)
    clipped: Floats = np.clip(summed, 0.0, 1.0)
    return clipped


def retention(
    elapsed_days: ArrayLike,
    strength_days: ArrayLike,
    *,
    curve: Curve = "exponential",
    floor: float = FLOOR,
    uses: ArrayLike = 0,
) -> Floats:
    """(n,) R in [floor, 1] after ``elapsed_days`` since last use; negative ones count as none.

    ``strength_days`` is S; infinite does not decay.

    * ``exponential``: f + (1 - f) exp(-t / S). The floor is what keeps old memories with rare
      words from losing to anything recent.
    * ``fsrs``: f + (1 - f) (1 + 19/81 t / S) ^ -.5, the power law: .9 at t = S before the floor.
    * ``actr``: f + (1 - f) / (1 + exp(-(B - B_S) / .4)), with B = ln(n / (1 - d)) - d ln t the
      activation of n = uses + 1 equally spaced uses and B_S that of one use S days ago.
    """
    elapsed = np.maximum(0.0, np.asarray(elapsed_days, dtype=np.float64))
    strength = np.asarray(strength_days, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        relative = np.where(np.isinf(strength), 0.0, elapsed / strength)
    if curve == "exponential":
        kept = np.exp(-relative)
    elif curve == "fsrs":
        kept = (1.0 + _FSRS_FACTOR * relative) ** _FSRS_DECAY
    elif curve == "actr":
        count = np.asarray(uses, dtype=np.float64) + 1.0
        least = 1.0 / 1440  # a minute, in units of S: activation of the present is not infinite
        activation = np.log(count) - _ACTR_DECAY * np.log(np.maximum(relative, least))
        kept = np.where(relative > 0, 1.0 / (1.0 + np.exp(-activation / _ACTR_NOISE)), 1.0)
    else:
        raise ValueError(f"curve must be one of {', '.join(CURVES)}")
    found: Floats = floor + (1.0 - floor) * kept
    return found


def reinforced(
    strength_days: float, kept: float, *, strength_max_days: float = STRENGTH_MAX_DAYS
) -> float:
    """S after a confirmed use at retention R = ``kept``: min(S_max, S (1 + 1.5 (1 - R))).

    What was nearly forgotten gains most (the spacing effect). To be called at most once in
    ``REINFORCED_EVERY_S`` seconds for a memory: see ``may_reinforce``.
    """
    return min(strength_max_days, strength_days * (1.0 + GAIN * (1.0 - kept)))


def may_reinforce(last_used_us: int | None, now_us: int) -> bool:
    """Whether a confirmed use counts again: 15 minutes after the one before."""
    return last_used_us is None or now_us - last_used_us >= REINFORCED_EVERY_S * 1e6


def class_of(kind: str, stream: str | None, named: object = None) -> str:
    """The retention class of a memory: one of ``CLASS_DAYS``. ``named`` is the writer's choice."""
    if isinstance(named, str) and named in CLASS_DAYS:
        return named
    if kind == "event" and stream is not None:
        return "stream"
    return kind if kind in CLASS_DAYS else "note"


def first_strength(retention_class: str) -> float:
    """S before any use, in days; infinite for a class that does not decay."""
    days = CLASS_DAYS[retention_class]
    return math.inf if days is None else days


class ActiveDays:
    """A clock that stands still while nothing happens, so that a holiday forgets nothing."""

    __slots__ = ("_days",)

    def __init__(self, moments_us: Iterable[int]) -> None:
        """``moments_us``: when anything was written or used, microseconds since 1970 UTC."""
        given = np.fromiter(moments_us, dtype=np.int64)
        self._days = np.unique(given // DAY_US)

    def elapsed(self, start_us: ArrayLike, end_us: int) -> Floats:
        """(n,) days from ``start_us`` (n,) to ``end_us``, of which only active ones count.

        A part of an active day counts as that part. Never more than the calendar's days.
        """
        start = np.minimum(np.asarray(start_us, dtype=np.int64), end_us)
        counted: Floats = self._position(np.asarray(end_us)) - self._position(start)
        return counted

    def _position(self, moments: NDArray[np.int64]) -> Floats:
        """Active days before each moment, with the part of its own day where that is active."""
        day = moments // DAY_US
        before = np.searchsorted(self._days, day, "left")
        active = np.searchsorted(self._days, day, "right") - before
        found: Floats = before + active * ((moments - day * DAY_US) / DAY_US)
        return found


def elapsed_days(start_us: ArrayLike, end_us: int) -> Floats:
    """(n,) calendar days from ``start_us`` (n,) to ``end_us``."""
    days: Floats = (end_us - np.asarray(start_us, dtype=np.float64)) / DAY_US
    return days
