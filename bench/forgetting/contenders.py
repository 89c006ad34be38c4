"""What decides who stays: memdb's value of a memory, and the rules it is compared with.

A contender gives each item of a history a number at a moment; the lowest go first. It may look at
what was returned and what was confirmed until then, and the oracle at what will be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.forgetting.history import Bools, Floats, History
from memdb.retention import value

STRENGTH_DAYS = value.CLASS_DAYS["stream"]


@dataclass(slots=True)
class Past:
    """What has happened in a history until ``now`` (days). Arrays are (n,), by item."""

    history: History
    now: float
    present: Bools
    returned: NDArray[np.int64]
    returned_at: Floats
    used: NDArray[np.int64]
    used_at: Floats
    strength: Floats
    asked_later: NDArray[np.int64]
    rng: np.random.Generator
    drawn: Floats = field(default_factory=lambda: np.zeros(0))


Contender = Callable[[Past], Floats]


def info(past: Past) -> Floats:
    """Information mass, as a quantile among what is present."""
    history, present = past.history, past.present
    held = np.flatnonzero(present)
    owner, terms = np.nonzero(history.frequencies[held])
    offsets = np.searchsorted(owner, np.arange(len(held) + 1))
    mass = np.zeros(len(history))
    mass[held] = value.quantiles(value.information(terms, offsets))
    return mass


def weight(past: Past) -> Floats:
    links = np.zeros(len(past.history))
    return value.weight(info(past), past.history.novelty, links)


def kept(past: Past, curve: value.Curve = "exponential") -> Floats:
    """R, from the last confirmed use or else from when it was said."""
    since = past.now - np.fmax(past.used_at, past.history.days)
    return value.retention(since, past.strength, curve=curve, uses=past.used)


def memdb_value(past: Past) -> Floats:
    return weight(past) * kept(past)


def without_use(past: Past) -> Floats:
    since = past.now - past.history.days
    strength = np.full(len(since), STRENGTH_DAYS)
    return weight(past) * value.retention(since, strength)


CONTENDERS: dict[str, Contender] = {
    "random": lambda past: past.drawn,
    "first in, first out": lambda past: past.history.days,
    "least recently used": lambda past: np.fmax(past.returned_at, past.history.days),
    "least frequently used": lambda past: past.returned + past.history.days / 1e6,
    "info only": info,
    "decay only": kept,
    "memdb": memdb_value,
    "memdb, no use confirmed": without_use,
    "memdb, fsrs": lambda past: weight(past) * kept(past, "fsrs"),
    "memdb, act-r": lambda past: weight(past) * kept(past, "actr"),
    "compress only": lambda past: -past.history.days,
    "oracle": lambda past: past.asked_later + past.history.days / 1e6,
}
RIVALS = ("random", "first in, first out", "least recently used", "least frequently used")
SEEDS = {"random": 5}
Regime = Literal["uniform lag", "end of history"]
REGIMES: tuple[Regime, ...] = ("uniform lag", "end of history")
