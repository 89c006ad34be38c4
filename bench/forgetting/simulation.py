"""One history lived through under a byte budget: items come, the worst go, questions are asked.

*end of history*: all questions are asked when everything was said. *uniform lag*: each is asked at
a moment drawn evenly between its last piece of evidence and the end. Recall is the share of a
question's evidence among the first ten that BM25 finds in what is kept. What was found of the
evidence is confirmed as used; what else was returned is not.
"""

from __future__ import annotations

import numpy as np

from bench.forgetting.contenders import STRENGTH_DAYS, Contender, Past, Regime
from bench.forgetting.history import Floats, History
from memdb.retention import value

SLACK = 0.1
"""Share of the budget that is made free at a time."""


def ask_times(history: History, regime: Regime, seed: int = 0) -> Floats:
    """(questions,) when each is asked, in days."""
    end = float(history.days[-1])
    if regime == "end of history":
        return np.full(len(history.questions), end)
    rng = np.random.default_rng(seed)
    said = np.array([history.days[list(q.evidence)].max() for q in history.questions])
    times: Floats = said + rng.random(len(said)) * (end - said)
    return times


def run(
    history: History, contender: Contender, share: float, regime: Regime, seed: int = 0
) -> Floats:
    """(questions,) recall@10 of each question, with ``share`` of the history's bytes to keep."""
    n = len(history)
    budget = share * float(history.sizes.sum())
    times = ask_times(history, regime)
    rng = np.random.default_rng(seed)
    asked_later = np.zeros(n, np.int64)
    for question in history.questions:
        asked_later[list(question.evidence)] += 1
    past = Past(
        history=history,
        now=0.0,
        present=np.zeros(n, np.bool_),
        returned=np.zeros(n, np.int64),
        returned_at=np.full(n, np.nan),
        used=np.zeros(n, np.int64),
        used_at=np.full(n, np.nan),
        strength=np.full(n, float(STRENGTH_DAYS or np.inf)),
        asked_later=asked_later,
        rng=rng,
        drawn=rng.random(n),
    )
    recall = np.zeros(len(times))
    events = [(float(day), 0, place) for place, day in enumerate(history.days)]
    events += [(float(when), 1, place) for place, when in enumerate(times)]
    for when, is_question, place in sorted(events):
        past.now = when
        if not is_question:
            past.present[place] = True
            if history.sizes[past.present].sum() > budget:
                _evict(past, contender, budget)
        else:
            recall[place] = _ask(past, place)
    return recall


def _evict(past: Past, contender: Contender, budget: float) -> None:
    sizes = past.history.sizes
    places = np.flatnonzero(past.present)
    worth = contender(past)[places]
    order = places[np.lexsort((places, worth))]
    excess = sizes[places].sum() - (1 - SLACK) * budget
    gone = np.searchsorted(np.cumsum(sizes[order]), excess) + 1
    past.present[order[:gone]] = False


def _ask(past: Past, number: int) -> float:
    question = past.history.questions[number]
    found = past.history.found(question, past.present)
    past.returned[found] += 1
    past.returned_at[found] = past.now
    evidence = set(question.evidence)
    past.asked_later[list(evidence)] -= 1
    confirmed = [int(place) for place in found if int(place) in evidence]
    for place in confirmed:
        since = past.now - np.fmax(past.used_at[place], past.history.days[place])
        r = float(value.retention(since, past.strength[place]))
        past.strength[place] = value.reinforced(float(past.strength[place]), r)
        past.used[place] += 1
        past.used_at[place] = past.now
    return len(confirmed) / len(evidence)
