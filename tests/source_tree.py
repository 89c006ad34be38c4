"""The project's own sources as the tests about them see them. Knows no memdb API."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("index", "ingest", "query", "server", "storage")
FOLDERS = ("memdb", *LINKED, "bench", "tests")
IGNORED_FOLDERS = {"__pycache__", "results", "build", ".hypothesis"}
IGNORED_SUFFIXES = {".so", ".pyd", ".dylib", ".pyc"}


@dataclass(frozen=True)
class Module:
    """One Python file: its path below the root, its import name and its syntax tree."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return self.path.as_posix()


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is a source, links to folders not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.is_symlink() and path.name not in IGNORED_FOLDERS:
                yield from walk(path)
        elif path.suffix not in IGNORED_SUFFIXES:
            yield path


@cache
def source_files() -> tuple[Path, ...]:
    """All files of the project's folders and of the root itself, as paths below the root."""
    hidden = [path for folder in (".ci", ".github") for path in walk(ROOT / folder)]
    top = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".cov")]
    inner = [path for folder in FOLDERS for path in walk(ROOT / folder)]
    return tuple(sorted(path.relative_to(ROOT) for path in (*hidden, *top, *inner)))


@cache
def modules() -> tuple[Module, ...]:
    """All Python files with their import names: ``storage/x.py`` is memdb.storage.x.

    Their trees are a million objects, which every later collection of garbage would visit: the
    tests that ask for them forget them (``modules.cache_clear``).
    """
    found = []
    for path in source_files():
        if path.suffix != ".py":
            continue
        parts = list(path.with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts[0] in LINKED:
            parts.insert(0, "memdb")
        text = (ROOT / path).read_text(encoding="utf-8")
        found.append(Module(path, ".".join(parts), text, ast.parse(text, str(path))))
    return tuple(found)
