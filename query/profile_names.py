"""Which facts of the profile a question names: by the key's own words, or by how people ask.

A key is named when all words of its name are in the question ("favourite_color" by "what is my
favorite colour?"), or when the question is one of those that ask for what the key is called
("where do I live?" for ``address``, ``city`` or ``residence``). The table of synonyms is small on
purpose: each line is a thing that most people have one of. Whose fact it is must be said too: a
subject's name in the question, or the first person for the owner's own.

This file knows words; no store, and not what a fact says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from memdb.query.tokenizer import Tokenizer

OWNER: Final = "user"
_OWN: Final = frozenset(
    "i my me mine myself i'm i've i'd we our us user owner ich mein meine meinen meinem meiner mir"
    " mich je mon ma mes moi j'ai yo mi mis tengo vivo nací io mio mia miei meu minha eu ik mijn"
    " wohne heiße arbeite".split()
)
_WORD: Final = re.compile(r"[\w']+")
_PARTS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")
_SPELLINGS: Final = {"favourite": "favorite", "colour": "color", "mum": "mother", "mom": "mother"}


class Named(NamedTuple):
    """A fact that a question names, and the words of the table or the key that do."""

    key: str
    subject: str
    words: str


class _Thing(NamedTuple):
    """What most people have one of: the keys it goes by, and questions that ask for it."""

    keys: frozenset[str]
    asked: re.Pattern[str]


def _thing(keys: str, *asked: str) -> _Thing:
    joined = "|".join(f"(?:{one})" for one in asked)
    return _Thing(frozenset(keys.split()), re.compile(rf"\b(?:{joined})", re.IGNORECASE))


_WHOSE: Final = r"(?:\S+\s+){0,3}?"  # "do I", "does Ana", "did my mother"
THINGS: Final = (
    _thing(
        "address home_address home residence street location place_of_residence lives_at city town"
        " lives_in home_city",
        rf"where {_WHOSE}(?:live|living|reside|residing)\b",
        r"(?:live|reside)s? at\b", r"what (?:city|town|street)\b", r"home address", r"at home\b",
        r"wo (?:wohn|leb)\w*", r"où (?:est-ce que )?\S*\s?(?:habit|vi[st])\w*",
        r"dónde viv\w+", r"dove (?:abit|viv)\w+", r"waar woon",
    ),
    _thing(
        "birthdate birthday date_of_birth dob born birth_date birth",
        r"birth ?(?:day|date)\b", r"date of birth", rf"(?:when|what year) {_WHOSE}born\b",
        r"how old (?:am|is|are)\b", r"geburts(?:tag|datum)", r"wann \S+ .{0,20}geboren",
        r"anniversaire", r"cumpleaños", r"compleanno",
    ),
    _thing(
        "birthplace place_of_birth hometown born_in",
        rf"where {_WHOSE}(?:born|grow up|grew up|from)\b", r"home ?town", r"wo \S+ .{0,20}geboren",
    ),
    _thing(
        "name full_name",
        r"(?:what|which) (?:is|was|are) (?:\S+ )?(?:full )?name\b", r"who am i\b",
        r"what (?:am|is|are) \S+ called", r"what should you call me", r"wie heiß\w+",
        r"comment \S* ?m'appell\w+", r"cómo me llamo",
    ),
    _thing(
        "phone phone_number mobile mobile_number telephone cell cell_phone",
        r"(?:phone|mobile|cell|telephone) number\b", r"(?:my|'s|your) (?:phone|mobile)\b(?! call)",
        r"telefonnummer", r"handynummer",
    ),
    _thing("email e_mail mail email_address", r"e-?mail(?: address)?\b"),
    _thing(
        "job occupation profession position job_title role",
        rf"what {_WHOSE}do for (?:a living|work)\b", r"(?:job|profession|occupation)\b",
        r"(?:beruf|beruflich)\b",
    ),
    _thing(
        "employer company workplace works_at works_for place_of_work",
        rf"where {_WHOSE}work\b", rf"(?:who|which company|what company) {_WHOSE}work (?:for|at)\b",
        r"employer\b", r"wo arbeit\w+",
    ),
    _thing(
        "spouse wife husband partner",
        rf"who {_WHOSE}married to\b", r"(?:spouse|wife|husband|partner)\b",
    ),
    _thing("children kids", r"(?:children|kids)\b", r"kinder\b"),
    _thing(
        "diet dietary_restrictions allergies allergy food_allergies",
        rf"what (?:can't|cannot|can not|mustn't) {_WHOSE}eat\b", r"allerg\w+",
        r"(?:am|is|are) \S+ (?:vegan|vegetarian)\b", r"diet\b",
    ),
    _thing("height", r"how tall\b"),
    _thing("weight", rf"how (?:heavy|much {_WHOSE}weigh)\b"),
    _thing("blood_type blood_group", r"blood (?:type|group)\b", r"blutgruppe"),
    _thing(
        "language languages native_language mother_tongue",
        rf"(?:what|which) languages? {_WHOSE}speak\b", r"(?:native language|mother tongue)\b",
    ),
    _thing("nationality citizenship", r"(?:nationality|citizen(?:ship)?)\b"),
    _thing(
        "doctor physician gp family_doctor",
        r"(?:who is|what is|name of) \S+ (?:doctor|physician|gp)\b", r"hausarzt",
    ),
    _thing("car vehicle", rf"(?:what|which) (?:car|vehicle) {_WHOSE}(?:drive|have|own)\b"),
    _thing(
        "license_plate number_plate plate registration",
        r"(?:license|licence|number) plate\b", r"kennzeichen",
    ),
    _thing("salary income", rf"how much {_WHOSE}earn\b", r"(?:salary|income)\b"),
    _thing("time_zone timezone", r"time ?zone\b"),
    _thing(
        "school university college",
        r"(?:what|which) (?:school|university|college)\b", rf"where {_WHOSE}stud(?:y|ied)\b",
    ),
)  # fmt: skip


def named(question: str, keys: Sequence[str], subjects: Iterable[str]) -> list[Named]:
    """The facts among ``keys`` of ``subjects`` that the question names; the keys' own words first.

    A subject counts when the question says it. The owner's facts count where it speaks in the
    first person or says nothing but the name of a fact, and names nobody else.
    """
    words = _words(question)
    spoken = frozenset(words)
    whose = [
        one for one in subjects if one != OWNER and (parts := _words(one)) and spoken >= {*parts}
    ]
    direct: list[tuple[str, str]] = []
    asked: list[tuple[str, str]] = []
    stems = _stems(" ".join(words))
    things = [thing for thing in THINGS if thing.asked.search(question)]
    for key in keys:
        own = key_stems(key)
        if own and own <= stems:
            direct.append((key, " ".join(sorted(own))))
            continue
        plain = "_".join(key_words(key))
        for thing in things:
            if plain in thing.keys:
                asked.append((key, thing.asked.search(question)[0]))  # type: ignore[index]
                break
    if not whose:
        alone = any(stems == key_stems(key) for key, _ in direct)
        if not (alone or spoken & _OWN):
            return []
        whose = [OWNER]
    return [Named(key, subject, said) for key, said in (*direct, *asked) for subject in whose]


def key_words(key: str) -> list[str]:
    """``favouriteColour``, ``favourite_colour`` and ``favourite.colour`` in one spelling."""
    return [_SPELLINGS.get(part, part) for part in map(str.casefold, _PARTS.findall(key))]


@lru_cache(maxsize=4096)
def key_stems(key: str) -> frozenset[str]:
    return _stems(" ".join(key_words(key)))


def _words(text: str) -> list[str]:
    found = _WORD.findall(text.replace("’", "'").casefold())  # noqa: RUF001
    plain = [word.removesuffix("'s").removesuffix("'") for word in found]
    return [_SPELLINGS.get(word, word) for word in plain]


_TOKENIZER: Final = Tokenizer()


def _stems(text: str) -> frozenset[str]:
    return frozenset(_TOKENIZER.terms(text))
