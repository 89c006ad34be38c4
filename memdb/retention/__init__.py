"""Forgetting that is asked for: what a memory is worth, policies, plans, a byte budget that holds.

    value        the formulas: information, novelty, weight, decay, reinforcement
    policies     rules, each of which may decide about some memories; users write their own
    ladder       levels of fidelity, and the choice of what goes down them for a budget
    config       policies and options from ``retention.toml`` and ``db.settings.policies``
    valuing      what each memory of a snapshot is worth
    planning     plans: what would become of each memory, and why
    applying     doing what a plan says, each memory at once or not at all
    leaving      rows that are invisible for good, on their way out
    pointers     chunks that keep their words and where their text is
    cleaning     holes in the files of vectors, given back
    usage, room  where the bytes are; making room for more
    keeper       the budget and the schedule of a database
    face         ``db.retention``

Data flows down this list's first half and is acted on in its second. A policy of the user's is any
object with ``precedence`` and ``decide``: see ``policies.Policy``.
"""

from __future__ import annotations

from memdb.retention.policies import (
    Budget,
    Candidate,
    Consolidate,
    Decay,
    Decision,
    Duplicates,
    Expired,
    Pinned,
    Policy,
    Situation,
    Superseded,
)

__all__ = [
    "Budget",
    "Candidate",
    "Consolidate",
    "Decay",
    "Decision",
    "Duplicates",
    "Expired",
    "Pinned",
    "Policy",
    "Situation",
    "Superseded",
]
