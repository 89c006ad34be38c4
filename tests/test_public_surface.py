"""The names a user may type: exactly these, with exactly these parameters.

Adding a name is a decision: add it here, to the README and to the changelog. Renaming or removing
one breaks every program written against memdb.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memdb
from memdb import errors
from memdb.access.auditing import Audit
from memdb.access.tokens import Tokens
from memdb.files import Files
from memdb.history import History
from memdb.profile import Profile
from memdb.retention.face import Retention
from memdb.spaces import Spaces
from tests.source_tree import ROOT

RESULTS = [
    "AuditPage",
    "AuditRow",
    "AuditVerdict",
    "Context",
    "ContextItem",
    "Feedback",
    "FileStatus",
    "Forgotten",
    "Hit",
    "Hits",
    "Memory",
    "NewToken",
    "Page",
    "Receipt",
    "Reembedding",
    "Report",
    "Space",
    "SpaceSample",
    "SyncReport",
    "TokenInfo",
    "Trashed",
    "Why",
    "Written",
]
INDEX = ["SearchPlan", "VectorFilter", "VectorIndex"]
AUDIT = ["Canary", "Residue", "ScanReport", "scan_erased"]
ACCESS = ["Acting", "Grant", "Principal"]
CLIENT = ["Client", "connect"]
SINGLE = ["Database", "__version__", "open"]
PUBLIC = {*ACCESS, *AUDIT, *CLIENT, *INDEX, *RESULTS, *SINGLE, *errors.__all__}

PARAMETERS = {
    "open": "path embedder namespace source memory_budget readonly create clock",
    "Database.remember": "text data source external_id kind tags metadata namespace stream position"
    " subject key about event_time event_end valid_from valid_to importance pinned sensitivity"
    " derived_from expires_at expires_in vector space on_conflict dedup",
    "Database.remember_many": "items batch progress on_conflict dedup",
    "Database.get": "id as_of external_id namespace",
    "Database.get_many": "ids",
    "Database.update": "id fields",
    "Database.versions": "id",
    "Database.count": "where",
    "Database.iter": "where",
    "Database.values": "field where",
    "Database.list": "where order_by descending limit cursor",
    "Database.namespaces": "",
    "Database.recall": "query k where mode as_of namespace space vector min_score exact explain"
    " stages time rerank min_confidence",
    "Database.recall_within": "radius query vector where namespace space",
    "Database.context": "query tokens where as_of namespace counter",
    "Database.timeline": "query start end where descending limit cursor namespace",
    "Database.feedback": "search_id used",
    "Database.forget": "ids where about",
    "Database.restore": "ids batch",
    "Database.trash": "",
    "Database.report": "ids where about",
    "Database.erase": "ids where about confirm_count",
    "Database.receipts": "",
    "Receipt.wait": "timeout",
    "scan_erased": "path canaries fragments",
    "connect": "url token ca timeout_s",
    "Database.stats": "",
    "Database.check": "repair",
    "Database.compact": "",
    "Database.snapshot": "path",
    "Database.export": "path format where progress",
    "Database.import_": "path progress",
    "Database.reembed": "embedder progress wait",
    "Database.close": "",
    "Database.acting": "principal purpose transport tool",
    "Grant": "actions where deny namespace source sensitivity purposes rate_per_minute expires_at",
    "Principal": "name grant owner token_id",
    "tokens.create": "name grant owner expires_in",
    "tokens.list": "",
    "tokens.revoke": "name",
    "tokens.pause": "name",
    "tokens.resume": "name",
    "tokens.owner": "",
    "tokens.authenticate": "secret",
    "tokens.named": "name",
    "audit.rows": "principal since before action limit cursor",
    "audit.verify": "",
    "profile.set": "key value subject valid_from valid_to source namespace fields",
    "profile.get": "key subject as_of namespace default",
    "profile.fact": "key subject as_of namespace",
    "profile.delete": "key subject namespace",
    "profile.versions": "key subject namespace",
    "profile.items": "subject namespace",
    "history.append": "kind text data event_time stream source namespace fields",
    "history.append_many": "kind samples stream source namespace batch",
    "history.range": "kind start end stream where limit reverse namespace",
    "history.to_arrow": "kind start end stream where namespace",
    "files.sync": "path include exclude progress allow_empty",
    "files.watch": "path include exclude interval on_sync",
    "files.status": "path",
    "spaces.create": "name dim metric profile",
    "spaces.list": "",
    "spaces.sample": "name where limit",
    "spaces.convert": "name profile progress",
    "spaces.drop": "name",
    "retention.plan": "policy disk_budget now",
    "retention.apply": "plan changed",
    "retention.undo": "batch",
    "retention.status": "",
    "VectorIndex": "path dim metric kind profile params memory_budget threads readonly",
    "VectorIndex.add": "ids vectors",
    "VectorIndex.remove": "ids",
    "VectorIndex.get": "ids",
    "VectorIndex.search": "queries k allowed effort exact",
    "VectorIndex.within": "query radius allowed",
    "VectorIndex.filter": "ids",
    "VectorIndex.plan": "k allowed effort exact",
    "VectorIndex.convert": "profile progress",
    "VectorIndex.wait": "",
    "VectorIndex.stats": "",
    "VectorIndex.check": "",
    "VectorIndex.close": "",
}

# The faces of a database, by the attribute a user types.
FACES = {
    "profile": Profile,
    "history": History,
    "files": Files,
    "spaces": Spaces,
    "retention": Retention,
    "tokens": Tokens,
    "audit": Audit,
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
    owner, _, method = name.partition(".")
    target = FACES[owner] if owner in FACES else getattr(memdb, owner)
    if method:
        target = getattr(target, method)
    names = [word for word in inspect.signature(target).parameters if word not in ("self", "cls")]
    assert sorted(names) == sorted(PARAMETERS[name].split())


@pytest.mark.parametrize("owner", ["Database", *FACES])
def test_every_public_method_is_listed_above(owner: str) -> None:
    kind = FACES.get(owner, memdb.Database)
    methods = {
        f"{owner}.{name}"
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods == {name for name in PARAMETERS if name.startswith(f"{owner}.")}


def test_a_database_has_its_faces(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "life", embedder="none") as db:
        assert all(type(getattr(db, name)) is kind for name, kind in FACES.items())


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert memdb.__version__ == project["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(memdb.__version__)}", changelog, re.MULTILINE)


def test_the_package_is_typed() -> None:
    assert (Path(memdb.__file__).parent / "py.typed").is_file()


def run_python(program: str, **environment: str) -> str:
    command = [sys.executable, "-c", program]
    variables = {**os.environ, **environment}
    result = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    loaded = run_python(
        f"import sys, memdb; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded == ""


def test_import_is_quick(tmp_path: Path) -> None:
    # Processor time, not wall time: what other processes do meanwhile is not memdb's doing.
    program = (
        "import time; start = time.process_time(); import memdb;"
        "print((time.process_time() - start) * 1e3)"
    )
    # Bytecode is kept, as for a person, also where the tests are run with PYTHONDONTWRITEBYTECODE.
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    run_python(program, **kept)  # the first one compiles
    times_ms = [float(run_python(program, **kept)) for _ in range(7)]
    # The least of them: noise on a busy machine only ever adds.
    assert min(times_ms) < IMPORT_LIMIT_MS, times_ms
