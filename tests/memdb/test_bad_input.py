"""Bad input is a typed error that names the field, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import memdb
from tests.memdb.clock import unit


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "   "}, "text"),
        ({}, "text"),
        ({"text": "x" * (1 << 20) + "y"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": 7}, "text"),
        ({"text": "x", "kind": "k" * 600}, "kind"),
        ({"text": "x", "tags": "work"}, "tags"),
        ({"text": "x", "tags": [""]}, "tags"),
        ({"text": "x", "metadata": {"a": float("nan")}}, "metadata"),
        ({"text": "x", "metadata": {"a": 2**60}}, "metadata"),
        ({"text": "x", "metadata": {1: "a"}}, "metadata"),
        ({"text": "x", "metadata": {"a": object()}}, "metadata"),
        ({"text": "x", "data": {"a": {1, 2}}}, "data"),
        ({"text": "x", "data": 2**70}, "data"),
        ({"text": "x", "event_time": 1700000000}, "event_time"),
        ({"text": "x", "event_time": "yesterday"}, "event_time"),
        ({"text": "x", "event_time": "2024", "event_end": "2023"}, "event_end"),
        ({"text": "x", "valid_from": "2024", "valid_to": "2023"}, "valid_to"),
        ({"text": "x", "expires_in": "-2h"}, "expires_in"),
        ({"text": "x", "importance": 2}, "importance"),
        ({"text": "x", "pinned": 1}, "pinned"),
        ({"text": "x", "position": 1.5}, "position"),
        ({"text": "x", "namespace": "a//b"}, "namespace"),
        ({"text": "x", "namespace": ""}, "namespace"),
        ({"text": "x", "vector": [float("nan")] * 8}, "vector"),
        ({"text": "x", "vector": [[1.0] * 8]}, "vector"),
        ({"text": "x", "vector": []}, "vector"),
        ({"text": "x", "vector": "abc"}, "vector"),
        ({"text": "x", "on_conflict": "maybe"}, "on_conflict"),
        ({"text": "x", "dedup": "maybe"}, "dedup"),
    ],
)
def test_bad_input_is_a_typed_error_that_names_the_field_and_writes_nothing(
    db: memdb.Database, fields: dict[str, object], field: str
) -> None:
    text = fields.get("text")
    with pytest.raises(memdb.InvalidArgument) as caught:
        db.remember(**fields)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert caught.value.hint
    if isinstance(text, str) and len(text.strip()) > 3:
        assert text[:20] not in str(caught.value)
    assert db.count() == 0


def test_a_vector_of_another_length_is_a_dimension_mismatch(db: memdb.Database) -> None:
    db.remember("x", vector=unit(1))
    with pytest.raises(memdb.DimensionMismatch):
        db.remember("y", vector=[1.0, 2.0])
    with pytest.raises(memdb.DimensionMismatch):
        db.recall(vector=[1.0, 2.0], mode="vector")
    assert db.count() == 1


def test_bad_questions_are_typed_errors(db: memdb.Database) -> None:
    for arguments in (
        {"query": None},
        {"query": ""},
        {"query": "x", "k": 0},
        {"query": "x", "k": 1 << 20},
        {"query": "x", "mode": "magic"},
        {"query": "x", "where": {"nope": 1}},
        {"query": "x", "where": {"kind": {"$near": 1}}},
        {"query": "x", "where": []},
        {"query": "x", "min_score": 7},
        {"query": "x" * (1 << 17)},
        {"query": None, "vector": unit(1), "mode": "lexical"},
    ):
        with pytest.raises(memdb.InvalidArgument):
            db.recall(**arguments)  # type: ignore[arg-type]


def test_an_unwritable_directory_is_permission_denied(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc/memdb")  # where not even root may make a directory
    else:
        tmp_path.chmod(0o500)
        target = tmp_path / "db"
    with pytest.raises(memdb.PermissionDenied):
        memdb.open(target)
