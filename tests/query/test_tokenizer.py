"""The terms of texts in several languages, and that texts and questions meet in them."""

from __future__ import annotations

import time
from collections import Counter
from hashlib import blake2b

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from memdb.errors import InvalidArgument
from memdb.query.analyser import Analyser
from memdb.query.tokenizer import MAX_TERM_CHARS, Tokenizer

EIGHTH_OF_MAY = ["2023", "@05", "@2023-05", "@05-08", "@2023-05-08"]
MAY_2023 = ["2023", "@05", "@2023-05"]


def digest(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size, key=b"a key of this test").digest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # English: stems, question words, contractions, possessives
        ("Where did Ana's sisters go swimming?", ["ana", "sister", "go", "swim"]),
        ("What can't Ana eat? I don't know, she's allergic", ["ana", "eat", "know", "allerg"]),
        ("Ana\u2019s boats; the boats\u2019 sails", ["ana", "boat", "boat", "sail"]),
        ("Who is it, and why?", []),
        ("O'Brien and o\u2019brien", ["obrien", "obrien"]),
        # numbers, times, initials, codes
        ("1,000,000 or 3.14 at 5:30pm or 17:45", ["1000000", "3.14", "5:30", "pm", "17:45"]),
        ("the 3rd floor, version 1.2.3, 24/7", ["3", "floor", "version", "1.2.3", "24", "7"]),
        ("U.S.A. vs. usa at 5 p.m.", ["usa", "vs", "usa", "5", "pm"]),
        ("well-being snake_case a/b", ["well", "snake", "case", "b"]),
        # addresses and paths come apart
        ("https://www.example.org/notes/plan.md", ["exampl", "org", "note", "plan", "md"]),
        ("bob.smith@mail.example.org", ["bob", "smith", "mail", "exampl", "org"]),
        # accents are folded, ligatures and widths normalised
        (
            "na\u00efve caf\u00e9 \uff21\uff22\uff23\uff11 \ufb01le",
            ["naiv", "cafe", "abc1", "file"],
        ),
        ("\u0141\u00f3d\u017a S\u00f8ren", ["lodz", "soren"]),
        # Russian
        ("Где живёт моя сестра? Сестры живут", ["живет", "сестр", "сестр", "живут"]),
        # Greek, Hebrew, Arabic, Hindi keep their words whole
        (
            "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
            ["\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"],
        ),
        # Chinese: pairs and characters, without those that carry grammar
        ("我的猫叫什么", ["的猫", "猫叫", "叫什", "猫", "叫", "什", "么"]),
        ("小猫", ["小猫", "小", "猫"]),
        # Japanese: kana in pairs, Han characters by themselves too
        ("東京タワーはどこですか", ["東京", "東", "京", "京タ", "タワ", "ワー", "ーは", "こで"]),
        # Korean
        ("한국어 공부", ["한국", "국어", "공부"]),
        ("언제 공부", ["공부"]),
        # mixed scripts
        ("用Python写代码", ["用", "python", "写代", "代码", "写", "代", "码"]),
        # emoji
        ("party \U0001f382\U0001f382!", ["parti", "\U0001f382", "\U0001f382"]),
        ("", []),
        (" \t\n ___ ... '' @ \u200d", []),
    ],
)
def test_a_text_has_these_terms(text: str, expected: list[str]) -> None:
    assert Counter(Tokenizer().terms(text)) == Counter(expected)


@pytest.mark.parametrize(
    "text",
    [
        "8 May 2023", "May 8, 2023", "the 8th of May, 2023", "8th May 2023", "MAY 8th 2023",
        "2023-05-08", "2023/05/08", "2023.5.8", "8.5.2023", "08.05.2023", "2023-05-08T13:56:00Z",
        "(8 may, 2023)", "8. Mai 2023", "8 mai 2023", "8 de mayo de 2023", "8 мая 2023",
        "2023年5月8日", "2023年05月08号", "二〇二三年五月八日", "2023년 5월 8일",
    ],
)  # fmt: skip
def test_every_way_to_write_a_day_gives_the_same_terms(text: str) -> None:
    assert sorted(Tokenizer().terms(text)) == sorted(EIGHTH_OF_MAY)


@pytest.mark.parametrize("text", ["May 2023", "in May of 2023", "2023-05", "Mai 2023", "2023年5月"])
def test_a_month_of_a_year_meets_its_days(text: str) -> None:
    terms = Tokenizer().terms(text)
    assert sorted(terms) == sorted(MAY_2023)
    assert set(terms) < set(EIGHTH_OF_MAY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("you may go", ["go"]),
        ("a long march home", ["long", "march", "home"]),
        ("mars is a planet", ["mar", "planet"]),
        ("since May", ["@05"]),
        ("last march", ["last", "@03"]),
        ("in January", ["@01"]),
        ("December 25", ["@12", "@12-25"]),
        ("十二月二十五日", ["@12", "@12-25"]),
        ("十月", ["@10"]),
        ("May 45", ["45"]),
        ("2023-13-45", ["2023", "13", "45"]),
        ("3个月间", ["3", "个月", "月间", "个", "月", "间"]),
        ("3/4/2021", ["2021", "@04", "@2021-04", "@04-03", "@2021-04-03",
                      "@03", "@2021-03", "@03-04", "@2021-03-04"]),
    ],
)  # fmt: skip
def test_months_are_months_only_where_they_are_meant(text: str, expected: list[str]) -> None:
    got = Tokenizer().terms(text)
    assert Counter(got) == Counter(expected)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("german", "Wann waren die Häuser der Familie groß?", ["haus", "famili", "gross"]),
        ("german", "Haus", ["haus"]),
        ("french", "Où est l'école d'Ana ? Les écoles", ["ecol", "ana", "ecol"]),
        ("spanish", "¿Dónde están las canciones?", ["cancion"]),
        ("none", "running dogs", ["running", "dogs"]),
    ],
)
def test_a_language_brings_its_stems_and_stop_words(
    language: str, text: str, expected: list[str]
) -> None:
    assert Tokenizer(language).terms(text) == expected


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="klingon") as caught:
        Tokenizer("klingon")
    assert caught.value.field == "language"


def test_a_term_is_never_longer_than_its_limit() -> None:
    for text in ("x" * 5000, "9" * 5000, "\u044f" * 5000, "1." * 3000, "a'" * 3000 + "b"):
        assert all(0 < len(term) <= MAX_TERM_CHARS for term in Tokenizer().terms(text))


def test_a_megabyte_of_anything_is_cut_in_seconds() -> None:
    tokenizer = Tokenizer()
    for unit in (
        "a",
        "1",
        "1-",
        "a'",
        ".",
        "may ",
        "月",
        "中",
        "日曜日 ",
        "\u0301",
        "十",
        "a.b.",
        "8 ",
    ):
        started = time.perf_counter()
        tokenizer.terms(unit * (300_000 // len(unit)))
        assert time.perf_counter() - started < 5, unit


alphabet = st.one_of(
    st.characters(codec="utf-8"),
    st.sampled_from("aamay  8'.,-/:023年月日的中文アあ한글яёéß@_#t5stpm\u2019\u0301"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet, max_size=60), max_size=8))
@example(["'s", "a' may 5", "\u0130stanbul", "\u00b2", "\u2460", "\ufb03 \u1e9e"])
def test_batches_singles_and_terms_agree_on_any_text(texts: list[str]) -> None:
    analyser = Analyser()
    singles = [analyser.analyse(text, digest) for text in texts]
    batch = analyser.analyse_many(texts, digest)
    assert batch == singles
    for text, single in zip(texts, singles, strict=True):
        counts = Counter(Tokenizer().terms(text))
        hashed = sorted((digest(term.encode(), 12), min(n, 255)) for term, n in counts.items())
        assert single.hashes == b"".join(h for h, _ in hashed)
        assert list(single.tfs) == [n for _, n in hashed]
        assert single.length == counts.total()
        assert {term for term, _, _ in analyser.query(text, digest)} == set(counts)


def test_another_stores_key_gives_other_hashes() -> None:
    analyser = Analyser()
    ours = analyser.analyse("dog", digest)
    other = analyser.analyse("dog", lambda data, size: digest(b"other" + data, size))
    again = analyser.analyse("dog", digest)
    assert ours == again
    assert ours.hashes != other.hashes
