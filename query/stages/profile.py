"""Profile first: a fact that the question names goes ahead of everything said about it.

It costs a look at the names of keys and subjects that the allowed facts have; where there are no
facts, nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from pyroaring import BitMap

from memdb.query.pipeline import NO_ROWS, Candidates, Parts, Rows, Stage
from memdb.query.profile_names import OWNER, Named, named
from memdb.query.stages.asked import Asked

FIRST: Final = 8.0  # log-odds: more than words, meaning and company of chatter come to together
_KEYS_AT_MOST: Final = 4096


class ProfileStage(Stage):
    """The values of facts that the question names."""

    name: ClassVar[str] = "profile"
    wide: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._found: dict[int, Named] = {}

    def find(self, limit: int) -> Rows:
        asked = self._asked
        if asked.text is None or asked.mode == "vector":
            return NO_ROWS
        txn, filters = asked.txn, asked.filters
        facts = filters.present(txn, "key") & asked.allowed
        if not facts:
            return NO_ROWS
        keys = [str(key) for key, _ in filters.values(txn, "key", facts)[:_KEYS_AT_MOST]]
        subjects = [str(one) for one, _ in filters.values(txn, "subject", facts)]
        for one in named(asked.text, keys, subjects):
            rows = facts & filters.equals(txn, "key", one.key)
            for row in rows & self._of(one.subject, facts):
                self._found.setdefault(row, one)
        return np.array(sorted(self._found), np.uint32)

    def _of(self, subject: str, facts: BitMap) -> BitMap:
        """A fact without a subject is the owner's."""
        asked = self._asked
        rows = asked.filters.equals(asked.txn, "subject", subject)
        return (
            rows | (facts - asked.filters.present(asked.txn, "subject"))
            if (subject == OWNER)
            else rows
        )

    def weigh(self, candidates: Candidates) -> Parts | None:
        if not self._found:
            return None
        return np.where(np.isin(candidates.rows, list(self._found)), FIRST, 0.0)

    def say(self, candidates: Candidates, place: int) -> str:
        one = self._found.get(int(candidates.rows[place]))
        return "" if one is None else f"is the fact {one.subject}.{one.key}, named by {one.words!r}"

    def report(self) -> dict[str, Any]:
        facts = sorted({f"{one.subject}.{one.key}" for one in self._found.values()})
        return {"facts": facts} if facts else {}
