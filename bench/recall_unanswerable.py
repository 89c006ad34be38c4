"""Does an answer that is not in the store look different from one that is?

    python -m bench recall --only unanswerable [--file NAME] [--embedder SPEC]

Every question is asked twice: of the whole store, and of all but its evidence and what is nearly
the same as a piece of it. ``auc`` is how often a question whose evidence is all among the ten
gets more than one whose evidence is gone (one half is chance). For each loss of all@10 that a
threshold may cost, ``empty`` is the share of questions without evidence to which it leaves no
hit; for thresholds fixed beforehand, both are given. ``score`` is that of hits, which a threshold
leaves out one by one; ``confidence`` is of the question, which it leaves as it is or without any.

This file asks and judges; it decides nothing of what is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import memdb
from bench.recall_data import Asked

LOSSES: Final = (0.01, 0.05, 0.10)  # of all@10
FIXED: Final = (0.35, 0.40)  # thresholds of the confidence
NEAR: Final = 0.08  # a cosine of .92 or more: what ``remember(dedup="near")`` calls near
_ASKED: Final = 10
_DRAWS: Final = 400

Values = NDArray[np.float64]


class Pair(NamedTuple):
    """One question, with and without its evidence in the store.

    ``whole``: all evidence is among the ten. ``worst``: the least score of a piece of it.
    ``best``: the best score where it is gone. ``sure``, ``unsure``: the confidence with it and
    without.
    """

    whole: bool
    worst: float
    best: float
    sure: float
    unsure: float


def pair(db: memdb.Database, one: Asked) -> Pair:
    """Ask one question both ways."""
    hits = db.recall(one.query, k=_ASKED)
    held = [hit.score for hit in hits if hit.memory.external_id in one.evidence]
    gone = sorted(taken_out(db, one.evidence))
    without = db.recall(one.query, k=1, where={"external_id": {"$nin": gone}})
    return Pair(
        len(held) == len(one.evidence),
        min(held, default=0.0),
        without[0].score if without else 0.0,
        hits.confidence or 0.0,
        without.confidence or 0.0,
    )


def taken_out(db: memdb.Database, evidence: frozenset[str]) -> set[str]:
    """The ids of the evidence and of all that is nearly the same as a piece of it."""
    gone = set(evidence)
    for external_id in evidence:
        piece = db.get(external_id=external_id)
        if piece is not None and piece.text:
            near = db.recall_within(NEAR, query=piece.text)
            gone |= {hit.memory.external_id or "" for hit in near}
    return gone - {""}


def rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """What thresholds of the score, and of the confidence, leave of these questions."""
    whole, worst, best, sure, unsure = (np.array(one) for one in zip(*pairs, strict=True))
    found: list[dict[str, Any]] = []
    for measure, there, gone in (("score", worst, best), ("confidence", sure, unsure)):
        area = auc(there[whole], gone)
        for loss in LOSSES:
            low, high = _interval(whole, there, gone, loss)
            line = {"by": measure, "auc": area, "loss": loss}
            line["threshold"] = threshold(whole, there, loss)
            line["empty"] = empty(whole, there, gone, loss)
            found.append({**line, "empty 95 %": f"{low:.3f}-{high:.3f}"})
    for fixed in FIXED:
        lost, left = float((whole & (sure < fixed)).mean()), float((unsure < fixed).mean())
        found.append({"by": "confidence, fixed", "loss": lost, "threshold": fixed, "empty": left})
    return found


def auc(there: Values, gone: Values) -> float:
    """How often one of ``there`` is above one of ``gone``; ties count half."""
    if not len(there) or not len(gone):
        return 0.5
    ordered = np.sort(gone)
    below = np.searchsorted(ordered, there, "left") + np.searchsorted(ordered, there, "right")
    return float(below.mean() / 2 / len(gone))


def threshold(whole: NDArray[np.bool_], there: Values, loss: float) -> float:
    """The highest that costs at most ``loss`` of all questions their evidence."""
    held = np.sort(there[whole])
    return float(held[min(int(loss * len(whole)), len(held) - 1)]) if len(held) else 0.0


def empty(whole: NDArray[np.bool_], there: Values, gone: Values, loss: float) -> float:
    """The share of ``gone`` that this threshold leaves without a hit."""
    return float((gone < threshold(whole, there, loss)).mean())


def _interval(
    whole: NDArray[np.bool_], there: Values, gone: Values, loss: float
) -> tuple[float, float]:
    """The middle 95 % over resampled questions, each with a threshold of its own."""
    rng = np.random.default_rng(8)
    drawn = (rng.integers(0, len(whole), len(whole)) for _ in range(_DRAWS))
    shares = [empty(whole[at], there[at], gone[at], loss) for at in drawn]
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)
