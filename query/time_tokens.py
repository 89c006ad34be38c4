"""A question's words as the grammar of times reads them, and which of them it need look at.

Most words of most questions begin no time, no order and no event: the grammar
(``time_expressions``) is tried only where one may. Words and sets of words; what they mean together
is the grammar's.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from memdb.query.date_terms import MONTHS
from memdb.query.time_words import FIRST, LATEST, NOW, ROLES, SHORT_WEEKDAYS, WORDS

_TOKEN: Final = re.compile(r"[\w]+(?:['’\-./:][\w]+)*", re.UNICODE)  # noqa: RUF001
_ELIDED: Final = re.compile(r"(?:l|d|dell|nell|all|dall)'(?=\w)")
_BEGINNINGS: Final = frozenset[str]().union(*ROLES.values(), WORDS, SHORT_WEEKDAYS, MONTHS)
ORDERING: Final = FIRST | LATEST | NOW | {"last", "next", "upcoming", "recent"}
"""Words that may ask for the first, the last or the coming one."""
ANCHORING: Final = ROLES["BEFORE"] | ROLES["AFTER"] | ROLES["SINCE"] | ROLES["DURING"]
"""Words that an event may follow."""


class Token(NamedTuple):
    """A word, folded, and where it stands in the question."""

    word: str
    start: int
    end: int


def tokens_of(question: str) -> list[Token]:
    """The words of a question, in order."""
    folded = question.replace("’", "'")  # noqa: RUF001
    return [
        Token(_plain(found[0]), found.start(), found.end()) for found in _TOKEN.finditer(folded)
    ]


def _plain(word: str) -> str:
    folded = word.casefold()
    return _ELIDED.sub("", folded.removesuffix("'s"), count=1) if "'" in folded else folded


def may_begin(word: str) -> bool:
    """Whether a time may begin with this word: it has a part in the grammar, or is a number."""
    return word in _BEGINNINGS or word[:1].isdecimal()
