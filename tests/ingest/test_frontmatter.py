"""Front matter: the three facts memdb reads, and what it leaves alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.ingest import frontmatter
from memdb.ingest.frontmatter import FrontMatter


def facts(*lines: str) -> FrontMatter:
    text = "\n".join(("---", *lines, "---"))
    assert frontmatter.end_of(text) == len(text)
    return frontmatter.parse(text)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["title: A: b # c"], FrontMatter(title="A: b")),
        (['title: "A # b"  # c'], FrontMatter(title="A # b")),
        (["Title: 'It'", "tags: [a, 'b c', \"d\"]"], FrontMatter("It", ("a", "b c", "d"))),
        (["tags:", "  - one", "  - '#two'", "date: 2024-03-05"],
         FrontMatter(tags=("one", "two"), date="2024-03-05")),
        (["tags: a, b, a", "created: 2024-03-05T10:00:00+01:00"],
         FrontMatter(tags=("a", "b"), date="2024-03-05T10:00:00+01:00")),
        (["keywords: x", "title:", "date: null"], FrontMatter(tags=("x",))),
        (["title: first", "title: second"], FrontMatter(title="first")),
        (["author:", "  name: Ana", "  - not ours"], FrontMatter()),
        (["summary: |", "  free text", "title: T"], FrontMatter(title="T")),
    ],
)  # fmt: skip
def test_simple_keys_are_read(lines: list[str], expected: FrontMatter) -> None:
    assert facts(*lines) == expected


@pytest.mark.parametrize(
    "text",
    ["", "---", "---\n", "--- \nno key\n---", "---\ntitle: open", "----\ntitle: x\n----",
     " ---\ntitle: x\n---", "---\n---\n", "text\n---\ntitle: x\n---"],
)  # fmt: skip
def test_what_is_not_front_matter_is_text(text: str) -> None:
    assert frontmatter.end_of(text) == 0


@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_block_parses_to_strings(lines: list[str]) -> None:
    text = "\n".join(("---", "key: value", *lines, "---"))
    end = frontmatter.end_of(text)
    found = frontmatter.parse(text[:end] if end else text)
    assert found.title is None or found.title.strip()
    assert all(tag.strip() for tag in found.tags)
