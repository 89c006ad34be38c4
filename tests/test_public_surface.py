"""The names a user may type: exactly these, with exactly these parameters.

Adding a name is a decision: add it here, to the README and to the changelog. Renaming or removing
one breaks every program written against memdb.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memdb
from memdb import errors
from tests.source_tree import ROOT

RESULTS = [
    "Context",
    "FileStatus",
    "Forgotten",
    "Hit",
    "Hits",
    "Memory",
    "Page",
    "Report",
    "Space",
    "SyncReport",
    "Trashed",
    "Why",
    "Written",
]
PUBLIC = {"Database", "VectorIndex", "__version__", "open", *RESULTS, *errors.__all__}

PARAMETERS = {
    "open": "path embedder namespace source memory_budget readonly create clock",
    "Database.remember": "text data source external_id kind tags metadata namespace stream position"
    " subject key about event_time event_end valid_from valid_to importance pinned sensitivity"
    " derived_from expires_at expires_in vector space on_conflict dedup",
    "Database.remember_many": "items batch progress on_conflict",
    "Database.get": "id as_of external_id namespace",
    "Database.get_many": "ids",
    "Database.update": "id fields",
    "Database.versions": "id",
    "Database.count": "where",
    "Database.iter": "where",
    "Database.values": "field where",
    "Database.list": "where order_by descending limit cursor",
    "Database.namespaces": "",
    "Database.recall": "query k where mode as_of namespace space vector min_score exact explain",
    "Database.recall_within": "radius query vector where namespace space",
    "Database.context": "query tokens where namespace",
    "Database.forget": "ids where about",
    "Database.restore": "ids batch",
    "Database.trash": "",
    "Database.report": "ids where about",
    "Database.stats": "",
    "Database.check": "repair",
    "Database.compact": "",
    "Database.snapshot": "path",
    "Database.export": "path format where progress",
    "Database.import_": "path progress",
    "Database.close": "",
    "VectorIndex": "path dim metric kind profile params memory_budget threads readonly",
    "VectorIndex.add": "ids vectors",
    "VectorIndex.remove": "ids",
    "VectorIndex.get": "ids",
    "VectorIndex.search": "queries k allowed effort exact",
    "VectorIndex.wait": "",
    "VectorIndex.stats": "",
    "VectorIndex.close": "",
}

# What must not be loaded by ``import memdb``: slow to import, or an extra that may be absent.
HEAVY = ("pyarrow", "torch", "flask", "tokenizers", "sentence_transformers", "hnswlib", "pandas")
IMPORT_LIMIT_MS = 150


def test_the_package_exports_exactly_the_documented_names() -> None:
    assert set(memdb.__all__) == PUBLIC
    assert len(memdb.__all__) == len(PUBLIC)


def test_every_exported_name_exists_and_is_listed_by_dir() -> None:
    assert all(getattr(memdb, name) is not None for name in memdb.__all__)
    assert set(memdb.__all__) <= set(dir(memdb))


def test_every_exported_class_and_function_is_documented() -> None:
    assert not [
        name
        for name in memdb.__all__
        if callable(getattr(memdb, name)) and not inspect.getdoc(getattr(memdb, name))
    ]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_documented_ones(name: str) -> None:
    target = memdb
    for part in name.split("."):
        target = getattr(target, part)
    names = [word for word in inspect.signature(target).parameters if word not in ("self", "cls")]
    assert sorted(names) == sorted(PARAMETERS[name].split())


def test_every_public_method_of_a_database_is_listed_above() -> None:
    methods = {
        f"Database.{name}"
        for name, value in vars(memdb.Database).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert methods == {name for name in PARAMETERS if name.startswith("Database.")}


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert memdb.__version__ == project["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(memdb.__version__)}", changelog, re.MULTILINE)


def test_the_package_is_typed() -> None:
    assert (Path(memdb.__file__).parent / "py.typed").is_file()


def run_python(program: str) -> str:
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    loaded = run_python(
        f"import sys, memdb; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded == ""


def test_import_is_quick() -> None:
    # Processor time, not wall time: what other processes do meanwhile is not memdb's doing.
    program = (
        "import time; start = time.process_time(); import memdb;"
        "print((time.process_time() - start) * 1e3)"
    )
    run_python(program)  # the first one may compile to bytecode
    times_ms = [float(run_python(program)) for _ in range(7)]
    # The least of them: noise on a busy machine only ever adds.
    assert min(times_ms) < IMPORT_LIMIT_MS, times_ms
