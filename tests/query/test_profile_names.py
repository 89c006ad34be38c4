"""Which facts a question names: by their words, by how people ask, and of whom."""

from __future__ import annotations

import pytest

from memdb.query.profile_names import key_words, named

KEYS = [
    "address", "birthdate", "favourite_color", "employer", "job", "spouse", "diet", "name",
    "phone_number", "place_of_birth", "passportNumber", "blood.type",
]  # fmt: skip
SUBJECTS = ["user", "Ana", "Mr. Weber"]


@pytest.mark.parametrize(
    ("question", "facts"),
    [
        ("where do I live?", ["user.address"]),
        ("what is my address", ["user.address"]),
        ("address?", ["user.address"]),
        ("Where does Ana live now?", ["Ana.address"]),
        ("Wo wohne ich?", ["user.address"]),
        ("when was I born", ["user.birthdate"]),
        ("how old is Ana?", ["Ana.birthdate"]),
        ("when is Ana's birthday", ["Ana.birthdate"]),
        ("where was I born?", ["user.place_of_birth"]),
        ("what is my favorite colour?", ["user.favourite_color"]),
        ("where do I work", ["user.employer"]),
        ("what do I do for a living?", ["user.job"]),
        ("who is Mr. Weber married to", ["Mr. Weber.spouse"]),
        ("what can't Ana eat?", ["Ana.diet"]),
        ("what's my passport number", ["user.passportNumber"]),
        ("which blood type do I have", ["user.blood.type"]),
        ("call me on which number? my phone", ["user.phone_number"]),
        ("what was my phone call with Ben about", []),
        ("who am I", ["user.name"]),
        ("where does Ben live?", []),
        ("what did Ana cook in March?", []),
        ("when did we go to Rome", []),
        ("what is the address of the dentist", []),
    ],
)
def test_a_question_names_facts_of_the_one_it_speaks_of(question: str, facts: list[str]) -> None:
    assert [f"{one.subject}.{one.key}" for one in named(question, KEYS, SUBJECTS)] == facts


def test_keys_are_read_in_any_spelling() -> None:
    for key in ("favouriteColour", "favourite_color", "favorite.colour", "Favorite-Color"):
        assert key_words(key) == ["favorite", "color"]


def test_a_fact_named_by_its_own_words_goes_before_one_of_the_table() -> None:
    found = named("what is my home town, where do I live?", ["city", "home_town"], ["user"])
    assert [one.key for one in found] == ["home_town", "city"]
