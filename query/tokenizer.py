"""From text to terms: what the lexical index holds, and what a question asks of it.

The strategy. Text is normalised (NFKC, casefolded) and cut into Unicode words, numbers and emoji;
each *raw token* then becomes its terms: stemmed, folded, or nothing if it is a stop word. The
second step is a pure function of the raw token, so it is cached. Scripts without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) and Korean give overlapping pairs of characters, and Han
characters by themselves too. Dates become terms of their own kind (``date_terms``).

Text and question go through the same code with the same language, which is what makes them
meet; there is no guessing by text, because a question is too short to guess from. The script
decides where it can: Cyrillic is stemmed as Russian, Greek as Greek, Arabic as Arabic, Devanagari
as Hindi; Latin as the tokenizer's language.

This file knows no store: hashing is ``analyser``'s.
"""

# ruff: noqa: RUF001 - letters of other scripts are what this file is about

from __future__ import annotations

import re
import unicodedata
from operator import add
from typing import Final

import Stemmer

from memdb.errors import InvalidArgument
from memdb.query import date_terms
from memdb.query.indexed_text import indexed_text
from memdb.query.stopwords import CJK_STOPS, KOREAN_STOPS, stop_words

__all__ = ["MAX_TERM_CHARS", "TOKENIZER_VERSION", "Tokenizer", "indexed_text"]

# Raise with every change that alters a term: stores compare it with what they were indexed by.
TOKENIZER_VERSION: Final = 1

MAX_TERM_CHARS: Final = 48

# Marks and vowel signs that Python's \w does not count as letters (Hebrew, Arabic, Indic).
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff"
)
_WORD = rf"(?:[^\W_]|[{_MARKS}])+"
_EMOJI = "\u2600-\u27bf\U0001f300-\U0001faff"
_NUMBER = r"\d{4}-\d\d-\d\d(?:t\d\d:\d\d[\d:.z]*)?|\d+(?:[-/.,:]\d+)+(?:[ap]m\b)?"
_INITIALS = r"[a-z](?:\.[a-z])+(?![^\W_])\.?"  # u.s.a.
_ASCII_RAW: Final = re.compile(rf"{_NUMBER}|{_INITIALS}|[a-z0-9]+(?:'[a-z]+)*")
_RAW: Final = re.compile(rf"{_NUMBER}|{_INITIALS}|{_WORD}(?:'{_WORD})*|[{_EMOJI}]")
# Lower case, and blanks for what no token of ASCII text contains: so that ``split`` does most of
# the cutting.
_PLAIN: Final = bytes(
    0x20 if chr(code) in '!"#$%&()*+;<=>?@[\\]^_`{|}~' else ord(chr(code).lower())
    for code in range(128)
) + bytes(128)
_TYPOGRAPHY: Final = (
    ("\u2019", "'"),
    ("\u2018", "'"),
    ("\u02bc", "'"),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("\u2013", " - "),
    ("\u2014", " - "),
    ("\u2026", " "),
    ("\u00a0", " "),
)

_HAN_KANA = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"
)
_HANGUL = "\u1100-\u11ff\uac00-\ud7a3"
_UNSPACED = "\u0e01-\u0e4e\u0e80-\u0ece\u1000-\u109f\u1780-\u17d3"
_MONTH_CHUNKS: Final = frozenset(
    before + name + after
    for name in date_terms.MONTH_NAMES
    if name.isascii()
    for before in ("", "'", "-", ".", ",")
    for after in ("", ",", ".", ":", "'s", "'", "-", "/", ".,")
)
_PAIRED: Final = re.compile(f"[{_HAN_KANA}]+|[{_HANGUL}]+|[{_UNSPACED}]+")
_HAN: Final = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")

_ELISION: Final = re.compile(r"(?:[cdjlmnst]|qu|dell|all|nell|sull|un)'(?=..)")
_CONTRACTED: Final = frozenset(["s", "t", "d", "ll", "m", "re", "ve"])
_ORDINAL: Final = re.compile(r"(\d+)(?:st|nd|rd|th)\Z")
_CLOCK: Final = re.compile(r"(\d{1,2}(?::\d\d)?)([ap]m)\Z")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?\Z")
_STEMMER_OF_SCRIPT: Final = (
    ("\u0400", "\u052f", "russian"),
    ("\u0370", "\u03ff", "greek"),
    ("\u0600", "\u06ff", "arabic"),
    ("\u0900", "\u097f", "hindi"),
)


class Tokenizer:
    """Text to terms, for one language of Latin script.

    ``language`` is the name of a Snowball algorithm ("english", "german", ...) or "none" for
    no stemming of Latin words. Raises ``InvalidArgument`` for another name. Not for concurrent use.
    """

    def __init__(self, language: str = "english") -> None:
        if language != "none" and language not in Stemmer.algorithms():
            raise InvalidArgument(
                f"no stemmer for language {language!r}",
                field="language",
                hint="one of: none, " + ", ".join(sorted(Stemmer.algorithms())),
            )
        self.language = language
        self._stops = stop_words(language)
        self._elides = language in ("french", "italian", "catalan")
        self._stemmers = {name: Stemmer.Stemmer(name, 0) for _, _, name in _STEMMER_OF_SCRIPT}
        self._latin = None if language == "none" else Stemmer.Stemmer(language, 0)

    def terms(self, text: str) -> list[str]:
        """The terms of a text in no particular order, repeats kept; may be empty."""
        return [term for raw in self.raw(text) for term in self.terms_of(raw)]

    def raw(self, text: str) -> list[str]:
        """The raw tokens of a text; each becomes terms by ``terms_of``, whatever is around it.

        A raw token of ASCII text may carry punctuation: ``terms_of`` cuts it, and is cached.
        """
        if not text.isascii():
            for written, plain in _TYPOGRAPHY:
                text = text.replace(written, plain)
        if text.isascii():
            text = text.encode().translate(_PLAIN).decode()  # thrice as fast as on str
            chunks = text.split()
            if _MONTH_CHUNKS.isdisjoint(chunks):
                return chunks
            tokens, dates = date_terms.around_months(_ASCII_RAW.findall(text))
            return tokens + dates
        text = unicodedata.normalize("NFKC", text).casefold()
        text, found = date_terms.cut_han_dates(text)
        if _PAIRED.search(text):
            found += _pairs(text)
            text = _PAIRED.sub(" ", text)
        tokens = _RAW.findall(text)
        if not date_terms.MONTH_NAMES.isdisjoint(tokens):
            tokens, dates = date_terms.around_months(tokens)
            found += dates
        return tokens + found

    def terms_of(self, raw: str) -> list[str]:
        """The terms of one raw token: none for a stop word, several for a date."""
        if raw[0] == "@" or _PAIRED.match(raw):
            return [raw] if raw not in CJK_STOPS else []
        if raw.isalnum():
            return self._terms_of_token(raw)
        return [term for token in _RAW.findall(raw) for term in self._terms_of_token(token)]

    def _terms_of_token(self, token: str) -> list[str]:
        if token[0].isdigit():
            terms = _number_terms(token)
        else:
            terms = [self._word_term(token.replace(".", ""))]
        return [term[:MAX_TERM_CHARS] for term in terms if term]

    def _word_term(self, word: str) -> str:
        if "'" in word:
            if self._elides:
                word = _ELISION.sub("", word)
            head, _, tail = word.rpartition("'")
            if tail in _CONTRACTED and head in self._stops:
                return ""  # what's, can't, they're
            word = (head if tail == "s" else word).replace("'", "")
        if word in self._stops:
            return ""
        return _fold(self._stem(word))

    def _stem(self, word: str) -> str:
        first = word[0]
        stemmer = self._latin
        if first > "\u024f":
            stemmer = None
            for low, high, name in _STEMMER_OF_SCRIPT:
                if low <= first <= high:
                    stemmer = self._stemmers[name]
        return word if stemmer is None else str(stemmer.stemWord(word))


def _number_terms(raw: str) -> list[str]:
    dates = date_terms.of_number(raw)
    if dates is not None:
        return dates
    found = _ORDINAL.match(raw)
    if found:
        return [found[1]]
    found = _CLOCK.match(raw)
    if found:
        return [found[1], found[2]]
    if _THOUSANDS.match(raw):
        return [raw.replace(",", "")]
    return [raw] if "/" not in raw and "-" not in raw else re.split("[-/]", raw)


def _pairs(text: str) -> list[str]:
    """The overlapping pairs of each run of an unspaced script or of Korean, and each Han character.

    A Han character is a word by itself often enough ("cat" inside "kitten"); a kana or a Hangul
    syllable is not, unless it stands alone.
    """
    pairs: list[str] = []
    for run in _PAIRED.findall(text):
        if len(run) == 1:
            pairs.append(run)
        elif run not in KOREAN_STOPS:
            pairs += map(add, run, run[1:])
            pairs += _HAN.findall(run)
    return pairs


def _fold(stem: str) -> str:
    """Without accents where writers leave them out: Latin, Greek, and Russian's ё.

    Not й, nor the marks of other scripts: there they make another letter. German umlauts fold to
    their base letter, as Snowball's German does; "ue" for "ü" is its business too.
    """
    if stem.isascii():
        return stem
    if "\u0400" <= stem[0] <= "\u052f":
        return stem.replace("ё", "е")
    if stem[0] > "\u03ff" and not "\u1e00" <= stem[0] <= "\u1fff":
        return stem
    apart = unicodedata.normalize("NFD", stem)
    bare = "".join(mark for mark in apart if not unicodedata.combining(mark))
    return bare.translate(_LETTERS) or stem


_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe"}
)
