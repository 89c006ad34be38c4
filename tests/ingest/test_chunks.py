"""Chunks are slices of the file: none overlap, nothing is lost, none is over its budget."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import InvalidArgument
from memdb.ingest.chunks import MAX_WORD_CHARS, Chunk, Chunker


def words(text: str) -> int:
    """Tokens as words, with two around every text as BERT's tokenizers put them."""
    return len(text.split()) + 2


def characters(text: str) -> int:
    return len(text)


def offsets(text: str, chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Where each chunk lies in the text, found from the one before it on."""
    spans = []
    position = 0
    for chunk in chunks:
        start = text.index(chunk.text, position)
        spans.append((start, start + len(chunk.text)))
        position = start + len(chunk.text)
    return spans


LINES = st.sampled_from(
    [
        "",
        "   ",
        "# One",
        "## Two ##",
        "### Three C#",
        "#hashtag",
        "Setext",
        "======",
        "---",
        "title: x",
        "```",
        "``` python",
        "~~~~",
        "    ```",
        "- item",
        "  continued",
        "1. first",
        "| a | b |",
        "|---|:-:|",
        "> quote",
        "One sentence. Another one! A third?",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "\u5979\u8bf4\u3002\u4ed6\u4e0d\u4fe1\uff01\u771f\u7684\u5417\uff1f\u597d",
        "x" * 300,
        "tab\tand \u2028 odd \x0c space",
    ]
)
TEXTS = (
    st.lists(LINES | st.text(max_size=30), max_size=40)
    .map("\n".join)
    .map(lambda text: text.replace("\r", "").replace("\ud800", ""))
)


@settings(max_examples=300)
@given(TEXTS, st.integers(8, 60), st.booleans(), st.sampled_from([words, characters]))
def test_chunks_cover_the_text_in_order_without_overlap(
    text: str, budget: int, markdown: bool, count: object
) -> None:
    chunker = Chunker(budget, words if count is words else characters)
    chunks = chunker.markdown(text) if markdown else chunker.plain(text)
    spans = offsets(text, chunks)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    for start, end in list(pairwise(edges))[::2]:
        assert not text[start:end].strip()
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.text.strip() for chunk in chunks)


@settings(max_examples=300)
@given(TEXTS, st.integers(8, 60), st.booleans(), st.sampled_from([words, characters]))
def test_a_chunk_over_its_budget_is_one_word(
    text: str, budget: int, markdown: bool, count: object
) -> None:
    counter = words if count is words else characters
    chunker = Chunker(budget, counter)
    chunks = chunker.markdown(text, "A title") if markdown else chunker.plain(text, "A title")
    for chunk in chunks:
        if counter(chunk.indexed_text) > budget:
            assert len(chunk.text.split()) == 1 and len(chunk.text) <= MAX_WORD_CHARS


@settings(max_examples=300)
@given(TEXTS, st.integers(8, 60), st.booleans())
def test_line_numbers_are_those_of_the_file(text: str, budget: int, markdown: bool) -> None:
    chunker = Chunker(budget, words)
    lines = text.split("\n")
    chunks = chunker.markdown(text) if markdown else chunker.plain(text)
    for (start, end), chunk in zip(offsets(text, chunks), chunks, strict=True):
        assert chunk.start_line == text.count("\n", 0, start) + 1
        assert chunk.end_line == text.count("\n", 0, end) + 1
    held = [0] * len(lines)
    for chunk in chunks:
        for line in range(chunk.start_line, chunk.end_line + 1):
            held[line - 1] += 1
    for line, times in zip(lines, held, strict=True):
        assert not line.strip() or times >= 1
        assert times <= 1 or words(line) > budget - budget // 4 - 4 or len(line) > 24 * 8


@given(TEXTS, st.integers(8, 60))
def test_no_chunk_begins_or_ends_inside_a_word(text: str, budget: int) -> None:
    spans = offsets(text, Chunker(budget, words).plain(text))
    for _, end in spans:
        if end < len(text) and re.match(r"[a-z]{2}", text[end - 1 : end + 1]):
            word = re.search(r"\S+$", text[:end])
            assert word and len(word[0]) >= MAX_WORD_CHARS


def chunk_lines(chunks: list[Chunk]) -> list[tuple[int, int]]:
    return [(chunk.start_line, chunk.end_line) for chunk in chunks]


DOCUMENT = """\
---
title: A note
tags: [a, b]
---
# Trip

## Packing
Socks and a passport.

- charger
- adapter

```python
# not a heading

packed = True
```

## Costs

| what | cost |
|------|------|
| bus  | 12   |

Remarks
-------
It rained.
"""


def test_sections_are_chunks_and_carry_their_heading_path() -> None:
    chunks = Chunker(100, words).markdown(DOCUMENT, "A note")
    assert chunk_lines(chunks) == [(1, 4), (5, 17), (19, 23), (25, 27)]
    assert [chunk.heading for chunk in chunks] == [
        (),
        ("Trip", "Packing"),
        ("Trip", "Costs"),
        ("Trip", "Remarks"),
    ]


def test_the_context_holds_the_headings_that_the_text_lacks() -> None:
    chunks = Chunker(24, words).markdown(DOCUMENT, "A note")
    first, second = (chunk for chunk in chunks if chunk.heading == ("Trip", "Packing"))
    assert first.context == "A note"
    assert second.context == "A note > Trip > Packing"
    assert second.indexed_text == f"A note > Trip > Packing\n{second.text}"
    assert chunks[-1].context == "A note > Trip"


def test_fences_and_tables_that_fit_are_not_cut() -> None:
    for budget in range(16, 40):
        texts = [chunk.text for chunk in Chunker(budget, words).markdown(DOCUMENT)]
        assert any("```python\n# not a heading\n\npacked = True\n```" in text for text in texts)
        if budget >= 24:
            assert any("| what | cost |\n|------|------|\n| bus  | 12   |" in t for t in texts)


def test_a_fence_too_long_is_cut_at_lines() -> None:
    lines = [f"step_{n} = {n}" for n in range(40)]
    chunks = Chunker(20, words).markdown("\n".join(["```", *lines, "```"]))
    assert len(chunks) > 5
    assert [line for chunk in chunks for line in chunk.text.split("\n")][1:-1] == lines


def test_headings_inside_fences_and_front_matter_are_none() -> None:
    text = "---\nname: x\n# comment\n---\n~~~\n# a\n~~~\n    # indented code\n#tag\n\\# b"
    assert {chunk.heading for chunk in Chunker(100, words).markdown(text)} == {()}


def test_an_unclosed_fence_runs_to_the_end_but_not_one_in_a_list() -> None:
    chunker = Chunker(100, words)
    assert len(chunker.markdown("```\ncode\n\n# no heading\n\n# none")) == 1
    assert [c.text for c in chunker.markdown("- a\n  ```\n  code\n\n# B")][1:] == ["# B"]
    assert len(chunker.markdown("- a\n      ```\n      code\n# no heading\n      ```")) == 1


def test_a_rule_at_the_beginning_is_not_front_matter() -> None:
    chunks = Chunker(100, words).markdown("---\n\nJust a rule.\n\n---\n# Then")
    assert chunk_lines(chunks) == [(1, 5), (6, 6)]


def test_a_deeper_heading_shares_the_chunk_of_its_bare_parent() -> None:
    text = "# A\n## B\ntext\n# C\n# D\ntext"
    chunks = Chunker(100, words).markdown(text)
    assert [chunk.text for chunk in chunks] == ["# A\n## B\ntext", "# C", "# D\ntext"]
    assert chunks[0].heading == ("A", "B")


def test_a_long_paragraph_is_cut_at_the_ends_of_sentences() -> None:
    text = " ".join(f"Sentence number {n} has six words." for n in range(50))
    chunks = Chunker(30, words).plain(text)
    assert len(chunks) > 10
    assert all(chunk.text.endswith(".") for chunk in chunks)


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    text = "記憶" * 200
    chunks = Chunker(50, characters).plain(text)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(len(chunk.text) <= 50 for chunk in chunks)


def test_a_run_without_spaces_is_cut_as_data() -> None:
    text = "A" * 5000
    chunks = Chunker(100, characters).plain(text)
    assert "".join(chunk.text for chunk in chunks) == text
    assert max(len(chunk.text) for chunk in chunks) <= MAX_WORD_CHARS


def test_a_heading_path_too_long_for_the_budget_loses_its_outermost() -> None:
    text = "# " + "outer " * 40 + "\n## inner\n" + "word " * 100
    chunks = Chunker(30, words).markdown(text)
    assert chunks[-1].context == "inner"
    assert all(words(chunk.indexed_text) <= 30 for chunk in chunks)


def test_the_same_text_under_another_heading_has_another_digest() -> None:
    chunker = Chunker(8, words)
    first = chunker.markdown("# A\n\none two three four five six seven")
    other = chunker.markdown("# B\n\none two three four five six seven")
    again = chunker.markdown("# A\n\none two three four five six seven")
    assert [chunk.digest for chunk in first] == [chunk.digest for chunk in again]
    assert first[-1].text == other[-1].text
    assert first[-1].digest != other[-1].digest


@pytest.mark.parametrize("separator", ["\n\n", "\n"], ids=["paragraphs", "lines"])
def test_an_edit_in_a_long_text_without_headings_changes_few_chunks(separator: str) -> None:
    """Cuts that only fill the budget change 31 chunks an edit here; these change 2."""
    rng = random.Random(7)
    vocabulary = [f"w{n}" for n in range(2000)]
    parts = [" ".join(rng.choices(vocabulary, k=rng.randint(5, 20))) for _ in range(1500)]
    chunker = Chunker(128, words)

    def digests(texts: list[str]) -> list[bytes]:
        return [chunk.digest for chunk in chunker.plain(separator.join(texts))]

    before = digests(parts)
    changed = []
    for _ in range(12):
        edited = parts.copy()
        edited.insert(rng.randrange(len(parts)), " ".join(rng.choices(vocabulary, k=20)))
        changed.append(len(set(digests(edited)) - set(before)))
    assert len(before) > 150
    assert sum(changed) / len(changed) <= 4
    assert max(changed) <= 16


def test_a_chunk_ends_with_a_paragraph_rather_than_inside_the_next() -> None:
    first = "\n".join(" ".join(f"a{n}" for n in range(20)) for _ in range(3))
    second = "\n".join(" ".join(f"b{n}" for n in range(20)) for _ in range(8))
    chunks = Chunker(102, words).plain(f"{first}\n\n{second}")
    assert chunks[0].text == first


def test_chunks_fill_their_budget_well() -> None:
    rng = random.Random(3)
    text = "\n\n".join("word " * rng.randint(5, 60) for _ in range(300))
    sizes = [words(chunk.text) for chunk in Chunker(128, words).plain(text)]
    assert sum(sizes) / len(sizes) > 0.6 * 128


def test_a_budget_no_text_fits_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Chunker(7, words)
    assert caught.value.field == "max_tokens"


@pytest.mark.parametrize(
    "text",
    ["." * 300_000, "|" * 300_000, "# " + "#" * 300_000, " " * 300_000 + "a", "`" * 300_000,
     "    ```a\n" * 10_000, "- \n" * 60_000, "---\n" * 60_000, "a\n---\n" * 20_000],
    ids=["dots", "pipes", "hashes", "spaces", "ticks", "open fences", "items", "rules", "setext"],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_hostile_texts_take_linear_time(text: str) -> None:
    chunks = Chunker(256, words).markdown(text)
    assert sum(len(chunk.text.replace("\n", "")) for chunk in chunks) >= len(text.strip()) / 4
