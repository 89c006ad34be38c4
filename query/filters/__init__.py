"""Filters: a ``where`` mapping compiled once, evaluated over the index, or tried on one memory.

``parse`` gives a frozen ``Filter``; ``evaluate`` the set of rows that meet it; ``explain`` the
same with its plan; ``matches`` the answer for one memory. Nothing here writes.
"""

from __future__ import annotations

from memdb.query.filters.ast import EVERYTHING, Filter
from memdb.query.filters.compiler import OPERATORS, parse
from memdb.query.filters.match import matches
from memdb.query.filters.planner import Evaluation, Plan, evaluate, explain

__all__ = [
    "EVERYTHING",
    "OPERATORS",
    "Evaluation",
    "Filter",
    "Plan",
    "evaluate",
    "explain",
    "matches",
    "parse",
]
