"""The documentation is true: its code runs, its printed results appear, its tables are generated.

In every Markdown file, all ``python`` blocks run in order as one program in an empty folder, then
every ``sh`` block that calls ``memdb`` runs in that folder. A ``text`` block right after a
``python`` block is what that block prints. Tables between ``<!-- generated: NAME -->`` and
``<!-- end -->`` are made from the code; MEMDB_WRITE_DOCS=1 writes them instead of comparing.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from memdb import errors
from memdb.cli.commands import COMMANDS
from memdb.database import Database
from memdb.files import Files
from memdb.history import History
from memdb.profile import Profile
from memdb.retention.face import Retention
from memdb.spaces import Spaces
from tests.source_tree import ROOT, source_files

DOCUMENTS = [path for path in source_files() if path.suffix == ".md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
FACES = {
    "profile": Profile,
    "history": History,
    "files": Files,
    "spaces": Spaces,
    "retention": Retention,
}
BLOCK_END = "\x1e"  # printed between blocks, to tell their output apart


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    printed: str | None = None  # what the block after it says it prints


def blocks_of(text: str) -> list[Block]:
    found: list[Block] = []
    end = -1
    for match in FENCE.finditer(text):
        follows = not text[end : match.start()].strip()
        block = Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        if block.language == "text" and follows and found and found[-1].language == "python":
            python = found.pop()
            block = Block(python.language, python.code, python.line, printed=block.code)
        found.append(block)
        end = match.end()
    return found


def check_runs(command: list[str], folder: Path) -> str:
    scripts = sysconfig.get_path("scripts")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "USERPROFILE": str(folder),
        "PYTHONIOENCODING": "utf-8",
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def check_python(blocks: list[Block], name: str, folder: Path) -> None:
    """Run the blocks as one program whose tracebacks name the lines of the document."""
    program = "".join(
        f"exec(compile({chr(10) * (block.line - 1) + block.code!r}, {name!r}, 'exec'), globals())\n"
        f"print({BLOCK_END!r}, end='')\n"
        for block in blocks
    )
    outputs = check_runs([sys.executable, "-c", program], folder).split(BLOCK_END)
    for block, output in zip(blocks, outputs, strict=False):
        if block.printed is not None:
            assert output == block.printed, f"{name}:{block.line} prints something else"


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_the_code_in_a_document_runs(path: Path, tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / path).read_text(encoding="utf-8"))
    python = [block for block in blocks if block.language == "python"]
    if python:
        check_python(python, path.as_posix(), tmp_path)
    for block in blocks:
        calls_memdb = re.search(r"^memdb ", block.code, re.MULTILINE)
        if block.language == "sh" and calls_memdb and os.name == "posix":
            check_runs(["sh", "-eu", "-c", block.code], tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    text = FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))
    targets = [link for link in LINK.findall(text) if "://" not in link]
    assert not [link for link in targets if not (ROOT / path.parent / link).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_code_block_names_its_language(path: Path) -> None:
    blocks = blocks_of((ROOT / path).read_text(encoding="utf-8"))
    assert not [block.line for block in blocks if not block.language]


def errors_table() -> str:
    """One row an error, the tree shown by what each one is a kind of."""
    rows = ["| error | code | HTTP | when | what to do |", "| --- | --- | --- | --- | --- |"]
    for name in errors.__all__:
        kind = getattr(errors, name)
        when = (kind.__doc__ or "").split("\n")[0].rstrip(".").replace("``", "`")
        parent = kind.__mro__[1].__name__
        label = f"`{name}`" if parent in ("Exception", "MemdbError") else f"`{name}` ({parent})"
        rows.append(f"| {label} | `{kind.code}` | {kind.status} | {when} | {kind.default_hint} |")
    return "\n".join(rows) + "\n"


def commands_table() -> str:
    rows = ["| command | what it does |", "| --- | --- |"]
    rows += [f"| `memdb {command.name}` | {command.summary} |" for command in COMMANDS]
    return "\n".join(rows) + "\n"


def calls_table() -> str:
    """Every method of a database and of its faces, by the first sentence about it."""
    rows = ["| call | what it does |", "| --- | --- |"]
    for prefix, kind in {"": Database, **FACES}.items():
        # In the order of the code: what a class inherits comes after its own.
        members = {name: method for one in kind.__mro__ for name, method in vars(one).items()}
        for name, method in members.items():
            if inspect.isfunction(method) and not name.startswith("_"):
                first = re.split(r"(?<=\.)\s", inspect.getdoc(method) or "", maxsplit=1)[0]
                said = " ".join(first.split()).rstrip(".").replace("``", "`")
                rows.append(f"| `db.{prefix and prefix + '.'}{name}` | {said} |")
    return "\n".join(rows) + "\n"


TABLES = {"errors": errors_table, "commands": commands_table, "calls": calls_table}


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_generated_tables_are_up_to_date(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    fresh = GENERATED.sub(lambda match: match[1] + TABLES[match[2]]() + match[4], text)
    if os.environ.get("MEMDB_WRITE_DOCS"):
        (ROOT / path).write_text(fresh, encoding="utf-8", newline="\n")
        return
    assert text == fresh, "run the test with MEMDB_WRITE_DOCS=1 to write the tables anew"


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_shows_every_generated_table(name: str) -> None:
    assert f"<!-- generated: {name} -->" in (ROOT / "README.md").read_text(encoding="utf-8")
