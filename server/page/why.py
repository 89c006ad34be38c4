"""Why a memory was found, in plain words and as bars.

``recall`` explains a hit as parts whose plain sum is the log-odds of its score. Each part becomes a
line: what it is called, one sentence, and a bar to the right (it spoke for the memory) or to the
left (against). Knows ``Hit`` and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from memdb import Hit

# Half of a bar's picture, in the units of its drawing.
HALF: Final = 100.0
_LEAST_SCALE: Final = 4.0  # log-odds that fill half a picture at least: small parts look small
_LEAST_SHOWN: Final = 0.05
_ALWAYS: Final = ("base", "lexical", "vector")  # what did not count is said of these only

TITLES: Final[Mapping[str, str]] = {
    "base": "Before looking",
    "lexical": "Its words",
    "vector": "Its meaning",
    "profile": "A fact you asked for",
    "time": "Its time",
    "neighbours": "What was said beside it",
    "duplicates": "A repetition",
}
_SIMILARITY = re.compile(r"similarity (-?[\d.]+) to the question(?:, where (-?[\d.]+) is usual)?")


@dataclass(frozen=True, slots=True)
class Part:
    """One line: ``value`` in log-odds; ``left`` and ``width`` of the bar, 0 being the middle."""

    name: str
    title: str
    words: str
    value: float
    left: float
    width: float

    @property
    def sign(self) -> str:
        return "for" if self.value > 0 else "against" if self.value < 0 else "none"

    @property
    def shown(self) -> str:
        return f"{self.value:+.1f}".replace("-", "\N{MINUS SIGN}")


def parts(hit: Hit) -> list[Part]:
    """The lines of a hit: the base first, then what weighed most."""
    values = {
        name: value
        for name, value in hit.why.stages.items()
        if name in _ALWAYS or abs(value) >= _LEAST_SHOWN
    }
    scale = max([_LEAST_SCALE, *(abs(value) for value in values.values())])
    order = sorted(values, key=lambda name: (name != "base", -abs(values[name])))
    return [_part(hit, name, values[name], scale) for name in order]


def _part(hit: Hit, name: str, value: float, scale: float) -> Part:
    width = min(HALF, abs(value) / scale * HALF)
    return Part(
        name=name,
        title=TITLES.get(name, name),
        words=_words(hit, name, value),
        value=value,
        left=HALF if value >= 0 else HALF - width,
        width=width,
    )


def _words(hit: Hit, name: str, value: float) -> str:
    said = hit.why.words.get(name, "")
    if name == "base":
        return "what any memory of this many begins with: most of them are not the answer"
    if name == "lexical":
        if not hit.why.terms:
            return "it holds none of the question\N{RIGHT SINGLE QUOTATION MARK}s words"
        return "it holds " + _listed([f"\N{LEFT DOUBLE QUOTATION MARK}{term}"
                                      "\N{RIGHT DOUBLE QUOTATION MARK}"
                                      for term in hit.why.terms])  # fmt: skip
    if name == "vector":
        return _meaning(said, value)
    if name == "duplicates":
        return "says the same as another memory here" if said else "says nothing twice"
    if name == "neighbours" and not said:
        return "nothing near it in its conversation matches"
    if name == "time" and not said:
        return "it is not of the time the question names"
    return said or "it did not count here"


def _meaning(said: str, value: float) -> str:
    if said == "has no vector":
        return "its meaning is not stored, so only words count"
    match = _SIMILARITY.match(said)
    if match is None:
        return said or "how close it is to the question"
    found = f"similarity {float(match[1]):.2f}"
    usual = "" if match[2] is None else f", where {float(match[2]):.2f} is usual"
    near = "very close to" if value > 3 else "close to" if value > 0.5 else "not close to"
    return f"{near} what the question means ({found}{usual})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def strength(score: float) -> str:
    """A score as a word."""
    steps = ((0.8, "very likely"), (0.5, "likely"), (0.2, "possible"), (0.0, "unlikely"))
    return next(word for least, word in steps if score >= least)
