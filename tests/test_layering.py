"""Who may import whom: the direction of dependencies, checked on every import statement.

Imports inside functions and under TYPE_CHECKING count too: they are dependencies all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.source_tree import LINKED, ROOT, Module, modules

BASE = ("memdb.errors", "memdb.types", "memdb.settings", "memdb.times")

# The first prefix that fits a module decides. "memdb" alone stands for the public names.
MAY_IMPORT: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("memdb.errors", ()),
    ("memdb.settings", ()),
    ("memdb.types", ("memdb.errors",)),
    ("memdb.times", BASE),
    ("memdb.storage", (*BASE, "memdb.storage")),
    ("memdb.index", (*BASE, "memdb.index")),
    ("memdb.ingest", (*BASE, "memdb.ingest")),
    ("memdb.query", (*BASE, "memdb.index", "memdb.storage", "memdb.query")),
    ("memdb.server", ("memdb", "memdb.server")),
    ("memdb.adapters", ("memdb", "memdb.adapters")),
    ("memdb.cli", ("memdb", "memdb.cli", "memdb.demo", "memdb.sample_life", "memdb.server")),
    ("memdb.demo", ("memdb", "memdb.cli", "memdb.sample_life")),
    ("memdb.sample_life", ()),
    ("memdb.__main__", ("memdb.cli",)),
    (
        "bench",
        ("memdb", "memdb.index", "memdb.retention", "memdb.settings", "memdb.server", "bench"),
    ),
)


@cache
def public_names() -> frozenset[str]:
    """``memdb.__all__``, read and not imported: layering is judged even where memdb is broken."""
    package = ast.parse((ROOT / "memdb" / "__init__.py").read_text(encoding="utf-8"))
    for node in package.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    raise AssertionError("memdb/__init__.py lists its public names in __all__")


@pytest.fixture(scope="module", autouse=True)
def forgotten_trees() -> Iterator[None]:
    yield
    modules.cache_clear()


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def project_imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a module imports of the project.

    A public name (``from memdb import open``) is yielded as ``memdb``; anything else taken from
    the package is yielded as ``memdb.name``.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module == "memdb":
            for alias in node.names:
                public = alias.name in public_names()
                yield node.lineno, "memdb" if public else f"memdb.{alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def allowed(module: Module, imported: str) -> bool:
    for prefix, targets in MAY_IMPORT:
        if is_within(module.name, prefix):
            # "memdb" is exact: it stands for the public names, not for every module below it.
            return any(
                imported == target if target == "memdb" else is_within(imported, target)
                for target in targets
            )
    return not is_within(imported, "memdb.server") and not is_within(imported, "bench")


def violations(module: Module) -> list[str]:
    return [
        f"{module}:{line}: {module.name} must not import {imported}"
        for line, imported in project_imports(module)
        if imported.split(".")[0] in ("memdb", "bench") and not allowed(module, imported)
    ]


def test_every_import_follows_the_direction_of_dependencies() -> None:
    found = [text for module in modules() if module.path.parts[0] != "tests"
             for text in violations(module)]  # fmt: skip
    assert not found, "\n".join(found)


def test_no_module_imports_a_root_folder_by_its_bare_name() -> None:
    found = [
        f"{module}:{line}: import memdb.{imported}, not {imported}"
        for module in modules()
        for line, imported in project_imports(module)
        if imported.split(".")[0] in LINKED
    ]
    assert not found, "\n".join(found)


def test_no_module_uses_relative_imports() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("memdb.storage.store", "from memdb.index import flat"),
        ("memdb.index.flat", "def f():\n    import memdb.storage.tables"),
        ("memdb.ingest.sync", "from memdb.query.planner import Planner"),
        ("memdb.query.planner", "from memdb.database import Database"),
        ("memdb.server.api", "from memdb.storage import tables"),
        ("memdb.cli.main", "from memdb import database"),
        ("memdb.database", "from memdb.server import app"),
        ("bench.recall", "import memdb.storage"),
        ("memdb.errors", "from memdb.types import Memory"),
    ],
)
def test_an_import_against_the_direction_is_found(name: str, statement: str) -> None:
    example = modules()[0].__class__(modules()[0].path, name, statement, ast.parse(statement))
    assert len(violations(example)) == 1
