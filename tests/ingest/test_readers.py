"""Readers: every file becomes a text or a reason, never an exception."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.ingest import readers
from memdb.ingest.readers import Document, Unread


@pytest.mark.parametrize(
    "data",
    ["Grüße\n".encode(), codecs.BOM_UTF8 + "Grüße\n".encode(), "Grüße\n".encode("utf-16"),
     codecs.BOM_UTF16_BE + "Grüße\n".encode("utf-16-be"), "Grüße\r\n".encode(),
     "Grüße\r".encode()],
    ids=["utf-8", "bom", "utf-16", "utf-16-be", "crlf", "cr"],
)  # fmt: skip
def test_encodings_and_line_ends_become_one(data: bytes) -> None:
    assert readers.decode(data) == "Grüße\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (b"plain for long" + b" " * 10_000 + b"\0", "binary"),
        (b"caf\xe9", "not valid UTF-8 (byte 3)"),
        (codecs.BOM_UTF16_LE + b"a", "not valid UTF-16 (byte 2)"),
        ("a\0b".encode("utf-16"), "binary"),
    ],
)
def test_what_is_no_text_is_skipped_with_the_reason(data: bytes, reason: str) -> None:
    found = readers.decode(data)
    assert found == Unread("skipped", reason)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_text_or_a_reason(data: bytes) -> None:
    for reader in set(readers.READERS.values()):
        found = reader(data, "a/b.md")
        if isinstance(found, Document):
            assert "\r" not in found.text and "\0" not in found.text
            found.text.encode()
        else:
            assert found.state == "skipped"


def test_the_reader_is_chosen_by_extension() -> None:
    assert readers.reader_for("a/B.MD", named=False) is readers.read_markdown
    assert readers.reader_for("a/README", named=False) is readers.read_plain
    assert readers.reader_for("a.py", named=False) is None
    assert readers.reader_for("a.py", named=True) is readers.read_plain


def test_markdown_has_the_facts_of_its_front_matter() -> None:
    data = b"---\ntitle: T\ntags: [a]\ndate: 2024-01-02\n---\nbody"
    found = readers.read_markdown(data, "x.md")
    assert found == Document(data.decode(), "markdown", "T", ("a",), "2024-01-02")


def test_a_daily_note_has_the_date_of_its_name() -> None:
    dates = {
        name: found.date
        for name in ("j/2024-03-05.md", "2024-03-05 Ana.txt", "2024-03-051.md", "a2024-03-05.md")
        if isinstance(found := readers.READERS[Path(name).suffix](b"text", name), Document)
    }
    assert dates == {
        "j/2024-03-05.md": "2024-03-05",
        "2024-03-05 Ana.txt": "2024-03-05",
        "2024-03-051.md": None,
        "a2024-03-05.md": None,
    }


def test_files_are_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert readers.read_bytes(path, limit=100) == b"x" * 100
    assert readers.read_bytes(path, limit=99) == Unread("skipped", "larger than 99 bytes")


def test_a_file_that_is_gone_is_the_callers_business(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        readers.read_bytes(tmp_path / "none")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_pipes_folders_and_links_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name, state in {"link": "failed", "pipe": "skipped", ".": "skipped"}.items():
        found = readers.read_bytes(tmp_path / name)
        assert isinstance(found, Unread)
        assert found.state == state
