"""The scan: what it takes, what it leaves, and how often it asks the file system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import InvalidArgument, NotFound
from memdb.ingest.globs import Globs
from memdb.ingest.scan import NO_READER, Rules, real_root, scan


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"text of {path}")
    return root


def taken(root: Path, **rules: list[str]) -> list[str]:
    found = scan(str(root), Rules(**rules)).files
    return [file.path for file in found if file.unread is None]


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("*.md", ["a.md", "x/y/a.md", ".md"], ["a.mdx", "md"]),
        ("drafts", ["drafts", "drafts/a", "x/drafts/y/z"], ["drafts2", "my/draftsx/a"]),
        ("drafts/", ["drafts/", "x/drafts/a"], ["drafts", "x/drafts"]),
        ("/top", ["top", "top/a"], ["x/top"]),
        ("a/b", ["a/b", "a/b/c"], ["x/a/b", "a/c/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/c"], ["ab", "a/xb"]),
        ("**/b", ["b", "x/y/b"], ["xb", "x/yb/c"]),
        ("a/**", ["a/x", "a/x/y"], ["a", "b/a/x"]),
        ("**", ["a", "a/b"], []),
        ("a*b/c", ["ab/c", "axxb/c/d"], ["a/b/c"]),
        ("?.txt", ["a.txt", "x/b.txt"], ["ab.txt", "/.txt"]),
        ("[a-c].txt", ["b.txt"], ["d.txt", "B.txt"]),
        ("[!a-c].txt", ["d.txt", "x/e.txt"], ["a.txt"]),
        ("[]x].txt", ["].txt", "x.txt"], ["[.txt"]),
        ("[ab", ["[ab"], ["a", "b"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_patterns_mean_what_they_mean_to_gitignore(
    pattern: str, matched: list[str], unmatched: list[str]
) -> None:
    globs = Globs([pattern], "include")
    assert [path for path in matched if not globs.match(path)] == []
    assert [path for path in unmatched if globs.match(path)] == []


def test_the_last_pattern_that_matches_decides() -> None:
    globs = Globs(["*.md", "!keep.md", "/keep.md"], "exclude")
    assert globs.match("a.md") and globs.match("keep.md") and not globs.match("x/keep.md")


@pytest.mark.parametrize("patterns", ["*.md", [""], ["/"], ["!"], ["[z-a]"], ["a" * 600],
                                      ["a"] * 300, [3]])  # fmt: skip
def test_a_malformed_pattern_names_its_parameter(patterns: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Globs(patterns, "include")
    assert caught.value.field == "include"


@given(st.text("ab*?[]!^-/.\\", min_size=1, max_size=12), st.text("ab/.", max_size=12))
def test_any_pattern_matches_or_is_refused(pattern: str, path: str) -> None:
    try:
        globs = Globs([pattern], "exclude")
    except InvalidArgument as error:
        assert error.field == "exclude"
    else:
        assert globs.match(path) in (True, False)


def test_texts_are_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b/c.txt", "b/README", "photo.jpg", ".hidden.md", ".git/x.md",
         "node_modules/m/README.md", "b/__pycache__/x.txt", "old.md~")  # fmt: skip
    found = scan(str(tmp_path), Rules())
    assert taken(tmp_path) == ["a.md", "b/README", "b/c.txt"]
    assert [(f.path, f.unread) for f in found.files if f.unread] == [("photo.jpg", NO_READER)]


def test_include_and_exclude_choose(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "x.csv", "work/b.md", "work/secret/c.md", ".plan/d.md")
    assert taken(tmp_path, include=["work"]) == ["work/b.md", "work/secret/c.md"]
    assert taken(tmp_path, exclude=["secret/"]) == ["a.md", "work/b.md"]
    assert taken(tmp_path, include=["*.csv"]) == ["x.csv"]
    assert taken(tmp_path, include=[".plan/"], exclude=["!.plan"]) == [".plan/d.md"]


def test_the_database_itself_is_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "db/b.md")
    found = scan(str(tmp_path), Rules(avoid=[str(tmp_path / "db")]))
    assert [file.path for file in found.files] == ["a.md"]


def test_a_file_is_asked_about_once_and_only_if_it_is_for_us(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b/c.txt", "photo.jpg", ".git/x.md", "b/d.md")
    asked: list[str] = []

    def counting(path: str) -> os.stat_result:
        asked.append(os.path.relpath(path, tmp_path).replace(os.sep, "/"))
        return os.lstat(path)

    scan(str(tmp_path), Rules(exclude=["d.md"]), stat_file=counting)
    assert sorted(asked) == ["a.md", "b/c.txt"]


def test_an_excluded_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.md", ".git/x/y.md", "drafts/z.md", "b/c.md")
    listed: list[str] = []
    real = os.scandir

    def noting(path: str) -> object:
        listed.append(os.path.relpath(path, tmp_path))
        return real(path)

    monkeypatch.setattr(os, "scandir", noting)
    scan(str(tmp_path), Rules(exclude=["drafts/"]))
    assert sorted(listed) == [".", "b"]


def test_files_over_the_limit_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.md")
    (found,) = scan(str(tmp_path), Rules(max_bytes=3)).files
    assert found.unread is not None
    assert found.unread.reason == "larger than 3 bytes"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_links_and_pipes_are_reported_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "root/a.md", "outside/b.md")
    root = tmp_path / "root"
    (root / "out.md").symlink_to(tmp_path / "outside" / "b.md")
    (root / "in.md").symlink_to(root / "a.md")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.md")
    reasons = {f.path: f.unread and f.unread.reason for f in scan(str(root), Rules()).files}
    assert reasons == {
        "a.md": None,
        "folder": "symbolic link",
        "in.md": "symbolic link",
        "loop": "symbolic link",
        "out.md": "symbolic link",
        "pipe.md": "not a regular file",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_that_is_not_unicode_is_skipped(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.md"), "w") as handle:
        handle.write("x")
    (found,) = scan(str(tmp_path), Rules()).files
    assert found.path == "caf\\xe9.md"
    assert found.unread is not None
    assert found.unread.reason == "its name is not UTF-8"


def test_a_folder_that_goes_while_it_is_listed_is_reported_closed(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b/c.md")
    real = os.lstat

    def removing(path: str) -> os.stat_result:
        status = real(path)
        if path.endswith("a.md"):
            (tmp_path / "b" / "c.md").unlink()
            (tmp_path / "b").rmdir()
        return status

    found = scan(str(tmp_path), Rules(), stat_file=removing)
    assert [file.path for file in found.files] == ["a.md"]
    assert [folder for folder, _ in found.closed] == ["b/"]


def test_the_root_must_be_a_folder_that_exists(tmp_path: Path) -> None:
    make(tmp_path, "a.md")
    with pytest.raises(NotFound, match="does not exist"):
        real_root(tmp_path / "none")
    with pytest.raises(InvalidArgument) as caught:
        real_root(tmp_path / "a.md")
    assert caught.value.field == "path"
    assert real_root(tmp_path) == str(tmp_path.resolve())
