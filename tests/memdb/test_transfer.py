"""What is exported comes back field by field, and what is damaged is refused with its place."""

from __future__ import annotations

import base64
import builtins
import gzip
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import (
    FormatTooNew,
    InvalidArgument,
    MissingDependency,
    NotFound,
    PermissionDenied,
)
from memdb.transfer import export, read_export
from memdb.types import Memory

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
INT64 = st.integers(-(2**63), 2**63 - 1)


def json_values(integers: Any) -> Any:
    return st.recursive(
        st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=8,
    )  # fmt: skip


TIMES = st.none() | st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC, fold=0))
NAMES = st.lists(TEXT, max_size=3).map(tuple)
UNIT = st.none() | st.floats(0, 1)
MEMORIES = st.builds(
    Memory,
    id=TEXT.filter(bool),
    kind=TEXT,
    text=st.none() | TEXT,
    source=TEXT,
    namespace=TEXT,
    recorded_at=TIMES,
    event_time=TIMES,
    stream=st.none() | TEXT,
    position=st.none() | INT64,
    tags=NAMES,
    metadata=st.dictionaries(
        TEXT.filter(bool), json_values(st.integers(1 - 2**53, 2**53 - 1)), max_size=3
    ),
    data=json_values(INT64),
    subject=st.none() | TEXT,
    key=st.none() | TEXT,
    about=NAMES,
    external_id=st.none() | TEXT,
    event_end=TIMES,
    time_zone=st.none() | TEXT,
    precision=st.sampled_from(["year", "month", "day", "minute", "exact"]),
    valid_from=TIMES,
    valid_to=TIMES,
    retired_at=TIMES,
    importance=UNIT,
    pinned=st.booleans(),
    sensitivity=st.none() | TEXT,
    derived_from=NAMES,
    expires_at=TIMES,
    space=st.none() | TEXT,
    version=st.integers(1, 2**31),
    last_used=TIMES,
    use_count=st.integers(0, 2**31),
    strength=UNIT,
)
VECTORS = st.none() | st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5
)
PLAIN = Memory(
    id="01HZY3V2J7Q8K6T5R4E3W2A1B0",
    text="Ana can't eat nuts",
    tags=("food",),
    data={"n": 1, "x": 1.0, "t": True},
    event_time=datetime(2024, 5, 1, 7, 30, 0, 123_456, tzinfo=UTC),
    time_zone="Europe/Vienna",
    precision="minute",
)


def typed(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, typed(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [type(value), *(typed(inner) for inner in value)]
    return (type(value), repr(value))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(['{"format":"memdb-export","version":1}', *lines]) + "\n")
    return path


@settings(max_examples=60)
@given(entries=st.lists(st.tuples(MEMORIES, VECTORS), max_size=4))
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
def test_every_field_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str, entries: list[Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    format = "parquet" if name.endswith("parquet") else "jsonl"
    assert export(entries, path, format) == len(entries)
    found = list(read_export(path))
    assert [typed(e.memory.to_dict()) for e in found] == [typed(m.to_dict()) for m, _ in entries]
    vectors = [None if e.vector is None else e.vector.tolist() for e in found]
    assert vectors == [vector for _, vector in entries]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_memories_stream_through_and_progress_is_told(tmp_path: Path, format: str) -> None:
    told: list[int] = []
    alive: list[int] = []

    def memories() -> Iterator[Memory]:
        for i in range(5_000):
            alive.append(i - (told[-1] if told else 0))
            yield PLAIN.replace(id=f"id{i}")

    path = tmp_path / "out"
    assert export(memories(), path, format, progress=told.append) == 5_000
    assert told == sorted(told)
    assert told[-1] == 5_000
    assert max(alive) <= 1_024
    reader = read_export(path)
    assert next(reader).memory == PLAIN.replace(id="id0")
    assert [e.memory.id for e in reader] == [f"id{i}" for i in range(1, 5_000)]


def test_a_line_is_readable_json_without_empty_fields(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export([(PLAIN, np.array([1.5, -2], dtype=np.float32))], path)
    header, line, end = map(json.loads, path.read_text().splitlines())
    assert header == {"format": "memdb-export", "version": 1}
    assert end == {"end": 1}
    assert line == {
        "id": PLAIN.id,
        "text": PLAIN.text,
        "tags": ["food"],
        "data": {"n": 1, "x": 1.0, "t": True},
        "event_time": "2024-05-01T07:30:00.123456Z",
        "time_zone": "Europe/Vienna",
        "precision": "minute",
        "vector": base64.b64encode(np.array([1.5, -2], "<f4").tobytes()).decode(),
    }


def test_a_vector_may_be_a_list_of_numbers_and_times_have_any_offset(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in",
        '{"id":"a","vector":[1,0.5],"event_time":"2024-05-01T09:30:00+02:00"}',
        "",
        '{"end":1}',
    )
    ((memory, vector),) = read_export(path)
    assert memory == Memory(id="a", event_time=datetime(2024, 5, 1, 7, 30, tzinfo=UTC))
    assert vector is not None
    assert vector.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("secret", "line 3 is not a JSON object"),
        ('{"id":"secret"', "line 3 is not a JSON object"),
        ('{"id":"a","data":' + "[" * 100_000, "line 3 is not a JSON object"),
        ('{"text":"secret"}', "line 3: a field is missing, unknown or malformed"),
        ('{"id":"a","secret":1}', "line 3: a field is missing, unknown or malformed"),
        ('{"id":"a","tags":"secret"}', "line 3: tags has the wrong type"),
        ('{"id":"a","tags":["b",1]}', "line 3: tags has the wrong type"),
        ('{"id":"a","pinned":"secret"}', "line 3: pinned has the wrong type"),
        ('{"id":"a","event_time":"secret"}', "line 3: event_time has the wrong type"),
        ('{"id":"a","event_time":"2024-05-01T09:30:00"}', "line 3: event_time has no UTC offset"),
        ('{"id":"a","event_time":"9999-12-31T23:30:00-02:00"}', "line 3: a time is outside"),
        ('{"id":"a","precision":"secret"}', "line 3: precision has the wrong type"),
        ('{"id":"a","data":123456789012345678901234567890}', "line 3: data has an integer"),
        ('{"id":"a","data":1e999}', "line 3"),
        ('{"id":"a","metadata":{"n":9007199254740993}}', "line 3: metadata has an integer"),
        ('{"id":"","text":"secret"}', "line 3: id must not be empty"),
        ('{"id":"a","text":"\\ud800"}', "line 3"),
        ('{"id":"a","vector":"secret!"}', "line 3: vector is not base64"),
        ('{"id":"a","vector":"AAA="}', "line 3: vector is not base64"),
        ('{"id":"a","vector":[]}', "line 3: vector must be"),
        ('{"id":"a","vector":"AADAfw=="}', "line 3: vector must be"),
        ('{"end":7}', "line 3: 7 memories were written, 1 are here"),
        ('{"end":1,"id":"secret"}', "line 3 is malformed"),
        ('{"end":1}\n{"id":"secret"}', "line 4: there is more"),
    ],
)
def test_a_malformed_line_is_named_and_not_quoted(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path / "in", '{"id":"first"}', line, '{"end":2}')
    reader = read_export(path)
    assert next(reader).memory.id == "first"
    with pytest.raises(InvalidArgument) as caught:
        list(reader)
    assert str(caught.value).startswith(problem)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None or "secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize("head", ["", "{}", "[]", "memories", '{"format":"other","version":1}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, head: str) -> None:
    path = tmp_path / "in"
    path.write_text(head + '\n{"id":"a"}\n')
    with pytest.raises(InvalidArgument, match="line 1 is not the header"):
        list(read_export(path))


def test_invalid_utf8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in", '{"id":"a","text":"@"}', '{"end":1}')
    path.write_bytes(path.read_bytes().replace(b"@", b"\xff\xfe"))
    with pytest.raises(InvalidArgument, match="line 2"):
        list(read_export(path))


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    memories = [PLAIN.replace(id=f"id{i}", text=os.urandom(30).hex()) for i in range(400)]
    export(memories, path, "parquet" if name.endswith("parquet") else "jsonl")
    whole = path.read_bytes()
    for size in (len(whole) // 3, len(whole) - 3, len(whole) - 12):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidArgument):
            list(read_export(path))


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
def test_damage_is_a_typed_error_or_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    memories = [PLAIN.replace(id=f"id{i}") for i in range(50)]
    export(memories, path, "parquet" if name.endswith("parquet") else "jsonl")
    whole = path.read_bytes()
    refused = 0
    for place in range(4, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(read_export(path))
        except (InvalidArgument, FormatTooNew):
            refused += 1
    assert refused > 5


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text('{"format":"memdb-export","version":2,"new":true}\n')
    with pytest.raises(FormatTooNew):
        list(read_export(path))


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"id": ["a"]}), path)
    with pytest.raises(InvalidArgument, match="not an export"):
        list(read_export(path))
    table = pyarrow.table({"id": ["a"], "secret": [1]}).replace_schema_metadata(
        {b"memdb_export": b"1"}
    )
    parquet.write_table(table, path)
    with pytest.raises(InvalidArgument, match="other columns"):
        list(read_export(path))
    table = pyarrow.table({"id": ["a", None]}).replace_schema_metadata({b"memdb_export": b"1"})
    parquet.write_table(table, path)
    with pytest.raises(InvalidArgument, match="row 2"):
        list(read_export(path))


def test_a_failed_export_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Memory]:
        yield PLAIN
        raise RuntimeError("reader")

    path = tmp_path / "out.jsonl"
    path.write_text("before")
    for format in ("jsonl", "parquet"):
        with pytest.raises(RuntimeError):
            export(broken(), path, format)
        assert path.read_text() == "before"
        assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX")
def test_an_export_is_private_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export([PLAIN], path)
    assert path.stat().st_mode & 0o077 == 0


def test_paths_that_cannot_be_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        export([], tmp_path)
    with pytest.raises(InvalidArgument):
        list(read_export(tmp_path))
    with pytest.raises(InvalidArgument):
        export([], tmp_path / "x", "xml")
    with pytest.raises(NotFound):
        export([], tmp_path / "no" / "x")
    with pytest.raises(NotFound):
        list(read_export(tmp_path / "no"))
    (tmp_path / "file").touch()
    with pytest.raises(PermissionDenied):
        export([], tmp_path / "file" / "x")


def test_without_pyarrow_parquet_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    path = tmp_path / "out.parquet"
    export([PLAIN], path, "parquet")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency) as caught:
        export([PLAIN], path, "parquet")
    assert caught.value.extra == "arrow"
    with pytest.raises(MissingDependency):
        list(read_export(path))


def test_compressed_files_are_what_other_programs_read(tmp_path: Path) -> None:
    plain, packed, frame = (tmp_path / n for n in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"))
    for path in (plain, packed, frame):
        export([PLAIN] * 50, path)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    content = zstandard.ZstdDecompressor().decompressobj().decompress(frame.read_bytes())
    assert content == plain.read_bytes()
    assert len(frame.read_bytes()) * 10 < len(content)


def test_a_parquet_file_is_a_table_with_a_column_for_every_field(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    export([(PLAIN, [1.0, 2.0])], path, "parquet")
    table = parquet.read_table(path)
    names = [field.name for field in msgspec.structs.fields(Memory)]
    assert table.column_names == [*names, "vector"]
    (row,) = table.to_pylist()
    assert row["event_time"] == PLAIN.event_time
    assert row["tags"] == ["food"]
    assert json.loads(row["data"]) == PLAIN.data
    assert row["vector"] == [1.0, 2.0]
