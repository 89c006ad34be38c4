"""Databases written by earlier versions open, are sound and say what they said.

``tests/golden/format-N.zip`` was written by the version that introduced format N; beside it lies
what that version exported. See ``tests/golden/make.py``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

import memdb
from memdb import settings
from tests.memdb.full_store import NOW, Clock
from tests.source_tree import ROOT

GOLDEN = sorted((ROOT / "tests" / "golden").glob("format-*.zip"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unpacked database; what was exported from it lies beside it as ``expected``."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / "db")
    packed = request.param.with_suffix(".jsonl.zst")
    with open(packed, "rb") as source, open(tmp_path / "expected", "wb") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    return tmp_path / "db"


def lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def memories(path: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in lines(path) if "id" in line}


def opened(path: Path, **options: Any) -> memdb.Database:
    return memdb.open(path, embedder="none", clock=Clock(NOW), namespace="", **options)


def test_there_is_a_golden_database_of_the_current_format() -> None:
    assert f"format-{settings.FORMAT_VERSION}" in [path.stem for path in GOLDEN]


def test_a_golden_database_is_sound_and_of_the_current_format_once_opened(golden: Path) -> None:
    with opened(golden) as db:
        found = db.check()
    assert found["ok"], found
    assert (golden / "FORMAT").read_text() == f"memdb {settings.FORMAT_VERSION}\n"


def test_every_field_of_a_golden_database_is_read_as_it_was_written(golden: Path) -> None:
    with opened(golden) as db:
        db.export(golden.parent / "now.jsonl")
    expected, now = memories(golden.parent / "expected"), memories(golden.parent / "now.jsonl")
    assert len(expected) > 400
    assert now.keys() == expected.keys()
    assert not {id: line for id, line in expected.items() if now[id] != line}


def test_the_memories_of_a_golden_database_are_found_by_words_and_by_vector(golden: Path) -> None:
    with opened(golden) as db:
        found = {}
        for memory in list(db.iter({"external_id": {"$exists": True}}))[::25]:
            if memory.text is None or len(memory.text) > 1_000:
                continue
            number = memory.metadata[next(key for key in memory.metadata if "number" in key)]
            vector = np.random.default_rng(number).standard_normal(16).astype(np.float32)
            words = db.recall(memory.text, mode="lexical", k=1)
            near = db.recall(vector=vector, mode="vector", k=1)
            found[memory.id] = {hit.id for hit in (*words, *near)}
    assert len(found) > 10
    assert all(ids == {id} for id, ids in found.items())
