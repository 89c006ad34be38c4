"""Counting what was found: any@k, all@k, mean fraction, nDCG@10, and how sure that is.

Intervals and comparisons are bootstraps over questions, paired where two methods answered the
same ones, from a fixed seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEPTHS = (5, 10, 20)
_TIMES = 2_000


@dataclass
class Tally:
    """The answers of one method to the questions of one file and type, in their order."""

    found: dict[str, list[float]] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    cpu_milliseconds: list[float] = field(default_factory=list)
    stored_bytes: int = 0
    memories: int = 0

    def add(self, found: Sequence[str], evidence: Iterable[str], ms: float, cpu_ms: float) -> None:
        wanted = set(evidence)
        hits = [one in wanted for one in found]
        for k in DEPTHS:
            reached = sum(hits[:k])
            self._put(f"any@{k}", float(reached > 0))
            self._put(f"all@{k}", float(reached == len(wanted)))
            self._put(f"mean@{k}", reached / len(wanted))
        gained = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits[:10]))
        best = sum(1 / math.log2(place + 2) for place in range(min(10, len(wanted))))
        self._put("ndcg@10", gained / best)
        self.milliseconds.append(ms)
        self.cpu_milliseconds.append(cpu_ms)

    def stored(self, stored_bytes: int, memories: int) -> None:
        """What a store took that these questions were asked of."""
        self.stored_bytes += stored_bytes
        self.memories += memories

    def _put(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)

    def values(self, name: str) -> NDArray[np.float64]:
        return np.array(self.found.get(name, []))

    def row(self, reference: Tally | None = None) -> dict[str, Any]:
        """The means; the 95 % interval of all@10; and against the reference, gain and p."""
        figures: dict[str, Any] = {"questions": len(self.milliseconds)}
        figures |= {name: float(np.mean(values)) for name, values in self.found.items()}
        low, high = interval(self.values("all@10"))
        figures["all@10 95 %"] = f"{low:.3f}-{high:.3f}"
        if reference is not None and reference is not self:
            gain = self.values("all@10") - reference.values("all@10")
            figures["gain"] = float(gain.mean())
            figures["p"] = not_better(gain)
        figures["p50_ms"] = statistics.median(self.milliseconds)
        figures["cpu_ms"] = statistics.fmean(self.cpu_milliseconds)
        if self.memories:
            figures["bytes_a_memory"] = round(self.stored_bytes / self.memories)
        return figures


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the means of resampled questions."""
    low, high = np.quantile(_means(values), (0.025, 0.975))
    return float(low), float(high)


def spread(values: NDArray[np.float64]) -> str:
    """That interval, of values which may lie below zero."""
    low, high = interval(values)
    return f"{low:.3f} ... {high:.3f}"


def not_better(gains: NDArray[np.float64]) -> float:
    """One-sided p: how often a resampling of the paired gains is no gain."""
    return float((_means(gains) <= 0).mean())


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rng = np.random.default_rng(8)
    drawn: NDArray[np.float64] = np.array(
        [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_TIMES)]
    )
    return drawn
