"""Export and import: memories as a file that other programs read, and back without loss.

JSON Lines, one object a line, UTF-8::

    {"format":"memdb-export","version":1,"spaces":[{"name":"photos","dim":512, ...}]}
    {"id":"01HZ...","kind":"event","text":"...","event_time":"2024-05-01T07:30:00Z", ...}
    ...
    {"end":2}

A memory's line has the fields of ``memdb.types.Memory`` that are not empty, and ``vector`` where
one was given: base64 of little-endian float32 (a list of numbers is read as well). Times are UTC
with microseconds. The last line counts the memories, so that a file that was cut off is noticed.
A name ending in ``.gz`` or ``.zst`` is compressed; reading goes by content, not by name.

Parquet has one column a field: times are timestamps in microseconds UTC, tags and the like lists
of strings, ``data`` and ``metadata`` JSON strings (which keep their types exactly), ``vector`` a
list of float32; the schema's metadata has the version under ``memdb_export`` and the spaces, as
JSON, under ``memdb_spaces``.

Both are written beside their destination and renamed, so that a file of that name is whole; both
are read and written as streams. This file knows fields and files; it does not know the database.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
import zstandard
from numpy.typing import ArrayLike, NDArray

from memdb import settings
from memdb.errors import (
    FormatTooNew,
    InvalidArgument,
    MemdbError,
    MissingDependency,
    NotFound,
    PermissionDenied,
    StoreFull,
)
from memdb.storage.generations import fsync_directory
from memdb.types import Memory, from_micros
from memdb.validate import json_data, json_value, string

if TYPE_CHECKING:
    import pyarrow

FORMAT = "memdb-export"
VERSION = 1
FORMATS = ("jsonl", "parquet")
_MAX_LINE_BYTES = 32 << 20
_ROWS = 1_024
_REPORT_EVERY = 256
_VERSION_KEY, _SPACES_KEY = b"memdb_export", b"memdb_spaces"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b"

_FIELDS = msgspec.structs.fields(Memory)
_TIMES = tuple(f.name for f in _FIELDS if f.type == datetime | None)
_LISTS = tuple(f.name for f in _FIELDS if f.type == tuple[str, ...])
_JSON = ("data", "metadata")


class Exported(NamedTuple):
    """A memory as read, and (dim,) float32 where the file has a vector for it."""

    memory: Memory
    vector: NDArray[np.float32] | None


class SpaceOf(msgspec.Struct, frozen=True):
    """An embedding space that memories of an export name."""

    name: str
    dim: int
    metric: Literal["cosine", "ip", "l2"] = "cosine"
    profile: Literal["exact", "standard", "compact", "nano", "pico"] = "standard"


class _Header(msgspec.Struct, omit_defaults=True):
    format: str
    version: int
    spaces: list[SpaceOf] = []


class _End(msgspec.Struct, forbid_unknown_fields=True):
    end: int


def _line_type() -> type[msgspec.Struct]:
    """``Memory`` with its fields by name, and ``vector``."""
    fields: list[Any] = []
    for field in _FIELDS:
        if field.default_factory is not msgspec.NODEFAULT:
            default: Any = msgspec.field(default_factory=field.default_factory)
        else:
            default = msgspec.field(default=field.default)
        fields.append((field.name, field.type, default))
    fields.append(("vector", str | list[float] | None, None))
    return msgspec.defstruct(
        "Line", fields, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
    )


_Line: Any = _line_type()
_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode

Entry = Memory | tuple[Memory, ArrayLike | None]


# --- writing ------------------------------------------------------------------------------


def export(
    memories: Iterable[Entry],
    path: str | os.PathLike[str],
    format: str = "jsonl",
    *,
    spaces: Sequence[SpaceOf] = (),
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write memories, or (memory, vector or None) pairs, to ``path``; returns how many.

    ``spaces`` says what the spaces are that they name.

    ``progress`` is called with the number written so far. A file of that name is replaced once
    the new one is complete. Raises ``InvalidArgument`` (format, a directory as path),
    ``NotFound`` (its folder), ``PermissionDenied``, ``StoreFull``, ``MissingDependency``.
    """
    if format not in FORMATS:
        raise InvalidArgument("format must be 'jsonl' or 'parquet'", field="format")
    target = Path(path)
    if target.is_dir():
        raise InvalidArgument("path is a directory, not a file", field="path")
    if format == "parquet":
        _pyarrow()  # before anything is written
    entries = (e if isinstance(e, tuple) else (e, None) for e in memories)
    write = _write_parquet if format == "parquet" else _write_lines
    with _replacing(target) as handle:
        return write(entries, handle, target.suffix, list(spaces), progress or (lambda done: None))


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``target`` when the block ends, or never existed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _typed_errors():
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(target.parent)


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("there is no such file or folder", hint="check the path") from error
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise PermissionDenied("the file cannot be opened", hint="check the path") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull("there is no room for the file; nothing was written") from error
        if error.errno in (errno.EROFS, errno.ENAMETOOLONG):
            raise PermissionDenied("the file cannot be written there") from error
        raise


def _write_lines(
    entries: Iterable[tuple[Memory, ArrayLike | None]],
    handle: IO[bytes],
    suffix: str,
    spaces: list[SpaceOf],
    progress: Callable[[int], None],
) -> int:
    written = 0
    with contextlib.ExitStack() as stack:
        out: Any = handle
        if suffix == ".gz":
            out = stack.enter_context(gzip.GzipFile("", "wb", 6, handle, mtime=0))
        elif suffix == ".zst":
            compressor = zstandard.ZstdCompressor(level=9)
            out = stack.enter_context(compressor.stream_writer(handle, closefd=False))
        out.write(_encode(_Header(FORMAT, VERSION, spaces)) + b"\n")
        for memory, vector in entries:
            packed = None if vector is None else base64.b64encode(_floats(vector)).decode()
            out.write(_encode(_Line(**memory.to_dict(), vector=packed)) + b"\n")
            written += 1
            if written % _REPORT_EVERY == 0:
                progress(written)
        out.write(_encode(_End(written)) + b"\n")
    progress(written)
    return written


def _floats(vector: ArrayLike) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _write_parquet(
    entries: Iterable[tuple[Memory, ArrayLike | None]],
    handle: IO[bytes],
    suffix: str,
    spaces: list[SpaceOf],
    progress: Callable[[int], None],
) -> int:
    pa, parquet = _pyarrow()
    schema = _schema(pa, spaces)
    written = 0
    stream = iter(entries)
    settled = {"compression": "zstd", "write_page_checksum": True}
    with parquet.ParquetWriter(handle, schema, **settled) as writer:
        while batch := list(islice(stream, _ROWS)):
            columns: dict[str, list[Any]] = {
                field.name: [getattr(memory, field.name) for memory, _ in batch]
                for field in _FIELDS
            }
            for name in _JSON:
                columns[name] = [None if v is None else _encode(v).decode() for v in columns[name]]
            columns["vector"] = [
                None if v is None else np.asarray(v, dtype=np.float32) for _, v in batch
            ]
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
            written += len(batch)
            progress(written)
    return written


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("the Parquet format needs pyarrow", extra="arrow") from error
    return pyarrow, pyarrow.parquet


def _schema(pa: Any, spaces: Sequence[SpaceOf] = ()) -> pyarrow.Schema:
    simple = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = []
    for field in _FIELDS:
        if field.name in _TIMES:
            kind = pa.timestamp("us", "UTC")
        elif field.name in _LISTS:
            kind = pa.list_(pa.string())
        elif field.name in _JSON:
            kind = pa.string()
        else:
            known = [simple[t] for t in simple if field.type in (t, t | None)]
            kind = known[0] if known else pa.string()
        columns.append(pa.field(field.name, kind))
    columns.append(pa.field("vector", pa.list_(pa.float32())))
    metadata = {_VERSION_KEY: str(VERSION).encode(), _SPACES_KEY: _encode(list(spaces))}
    return pa.schema(columns, metadata=metadata)


# --- reading ------------------------------------------------------------------------------


def read_export(path: str | os.PathLike[str]) -> Iterator[Exported]:
    """The memories of a file that ``export`` wrote, one at a time.

    Raises ``InvalidArgument`` naming the line or row, never its content; ``FormatTooNew``,
    ``NotFound``, ``PermissionDenied``, ``MissingDependency``.
    """
    with _opened(path) as (stream, is_parquet):
        yield from _read_parquet(stream) if is_parquet else _read_lines(stream)


def read_spaces(path: str | os.PathLike[str]) -> list[SpaceOf]:
    """The embedding spaces that the memories of an export name. Raises as ``read_export``."""
    with _opened(path) as (stream, is_parquet):
        if not is_parquet:
            return _check_header(stream.readline(_MAX_LINE_BYTES + 1))
        pa, parquet = _pyarrow()
        try:
            metadata = parquet.read_schema(stream).metadata or {}
            return msgspec.json.decode(metadata.get(_SPACES_KEY, b"[]"), type=list[SpaceOf])
        except (pa.ArrowException, OSError, msgspec.DecodeError, ValueError) as error:
            raise _malformed("the Parquet file is damaged") from error


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, bool]]:
    """The content of an export, decompressed, and whether it is Parquet."""
    source = Path(path)
    if source.is_dir():
        raise InvalidArgument("path is a directory, not a file", field="path")
    with _typed_errors(), open(source, "rb") as handle:
        magic = handle.read(4)
        handle.seek(0)
        if magic == b"PAR1":
            yield handle, True
        elif magic == _ZSTD_MAGIC:
            reader: Any = zstandard.ZstdDecompressor().stream_reader(
                handle, read_across_frames=True, closefd=False
            )
            yield io.BufferedReader(reader, 1 << 16), False
        elif magic.startswith(_GZIP_MAGIC):
            yield gzip.GzipFile("", "rb", fileobj=handle), False
        else:
            yield handle, False


def _read_lines(stream: IO[bytes] | io.BufferedReader | gzip.GzipFile) -> Iterator[Exported]:
    number = 0

    def next_line() -> bytes:
        nonlocal number
        number += 1
        try:
            line = stream.readline(_MAX_LINE_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise _malformed(f"line {number}: the compressed file is damaged") from error
        if len(line) > _MAX_LINE_BYTES:
            raise _malformed(f"line {number} is longer than {_MAX_LINE_BYTES:,} bytes")
        return line

    _check_header(next_line())
    count = 0
    while line := next_line():
        if line.startswith(b'{"end":'):
            _check_end(line, count, number)
            if next_line().strip():
                raise _malformed(f"line {number}: there is more after the last line")
            return
        if line.strip():
            yield _parse_line(line, number)
            count += 1
    raise _malformed(
        f"line {number}: the file ends before its last line", "it was cut off: copy it again"
    )


def _check_header(line: bytes) -> list[SpaceOf]:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except (msgspec.DecodeError, ValueError) as error:
        raise _malformed("line 1 is not the header of an export") from error
    if header.format != FORMAT:
        raise _malformed("line 1 is not the header of an export")
    _check_version(header.version)
    return header.spaces


def _check_version(version: int) -> None:
    if version > VERSION:
        raise FormatTooNew(f"the export has format {version}; this memdb reads up to {VERSION}")


def _check_end(line: bytes, count: int, number: int) -> None:
    try:
        end = msgspec.json.decode(line, type=_End).end
    except (msgspec.DecodeError, ValueError) as error:
        raise _malformed(f"line {number} is malformed") from error
    if end != count:
        raise _malformed(f"line {number}: {end} memories were written, {count} are here")


def _parse_line(line: bytes, number: int) -> Exported:
    where = f"line {number}"
    try:
        fields = msgspec.structs.asdict(_decode_line(line))
    except msgspec.ValidationError as error:
        raise _malformed(f"{where}: {_problem(error)}") from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _malformed(f"{where} is not a JSON object") from None
    vector = fields.pop("vector")
    return _checked(fields, _vector(vector, where), where)


def _problem(error: msgspec.ValidationError) -> str:
    """Which field is wrong, without what it holds (msgspec quotes unknown names)."""
    _, found, place = str(error).rpartition(" - at `$.")
    field = place.rstrip("`").split("[")[0].split(".")[0]
    known = found and any(field == known.name for known in _FIELDS)
    return f"{field} has the wrong type" if known else "a field is missing, unknown or malformed"


def _vector(value: str | list[float] | None, where: str) -> NDArray[np.float32] | None:
    if value is None:
        return None
    if isinstance(value, list):
        vector = np.array(value, dtype=np.float32)
    else:
        try:
            raw = base64.b64decode(value, validate=True)
            vector = np.frombuffer(raw, dtype="<f4").astype(np.float32)
        except (binascii.Error, ValueError):
            raise _malformed(f"{where}: vector is not base64 of float32") from None
    if not vector.size or vector.size > settings.MAX_DIM or not np.isfinite(vector).all():
        raise _malformed(f"{where}: vector must be 1 to {settings.MAX_DIM} finite numbers")
    return vector


def _checked(fields: dict[str, Any], vector: NDArray[np.float32] | None, where: str) -> Exported:
    """The memory, with what types alone do not say."""
    try:
        for name in _TIMES:
            moment = fields[name]
            if moment is not None:
                if moment.tzinfo is None:
                    raise InvalidArgument(f"{name} has no UTC offset", field=name)
                fields[name] = moment.astimezone(UTC)
        fields["metadata"] = json_value(fields["metadata"], "metadata", safe_integers=True)
        if fields["data"] is not None:
            fields["data"] = json_data(fields["data"])
        string(fields["id"], "id")
        if fields["text"] is not None:
            string(fields["text"], "text", settings.MAX_TEXT_BYTES, empty=True)
        return Exported(Memory(**fields), vector)
    except InvalidArgument as error:
        raise _malformed(f"{where}: {error.message}") from None
    except OverflowError:
        raise _malformed(f"{where}: a time is outside the years 1 to 9999") from None


def _read_parquet(handle: IO[bytes]) -> Iterator[Exported]:
    pa, parquet = _pyarrow()
    number = 0
    try:
        file = parquet.ParquetFile(handle, page_checksum_verification=True)
        version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"")
        if not version.isdigit():
            raise _malformed("the Parquet file is not an export of memdb")
        _check_version(int(version))
        schema = _schema(pa)
        names = set(file.schema_arrow.names)
        if not names <= set(schema.names) or "id" not in names:
            raise _malformed("the Parquet file has other columns than an export")
        for batch in file.iter_batches(_ROWS):
            columns = {name: _column(pa, schema, batch, name) for name in batch.schema.names}
            for values in zip(*columns.values(), strict=True):
                number += 1
                yield _parse_row(dict(zip(columns, values, strict=True)), f"row {number}")
    except MemdbError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _malformed(f"the Parquet file is damaged after row {number}") from error


def _column(pa: Any, schema: pyarrow.Schema, batch: Any, name: str) -> list[Any]:
    column = batch.column(name).cast(schema.field(name).type)
    if name not in _TIMES:
        return list(column.to_pylist())
    micros = column.cast(pa.int64()).to_pylist()
    return [None if moment is None else from_micros(moment) for moment in micros]


def _parse_row(row: dict[str, Any], where: str) -> Exported:
    vector = _vector(row.pop("vector", None), where)
    fields = {field.name: row[field.name] for field in _FIELDS if row.get(field.name) is not None}
    try:
        for name in _JSON:
            if name in fields:
                fields[name] = msgspec.json.decode(fields[name])
        # Through the same type as a line, for precisions, empty fields and their defaults.
        fields = msgspec.structs.asdict(msgspec.convert(fields, _Line))
    except (msgspec.DecodeError, RecursionError, OverflowError, ValueError):
        raise _malformed(f"{where}: a field is missing or malformed") from None
    del fields["vector"]
    return _checked(fields, vector, where)


def _malformed(message: str, hint: str | None = None) -> InvalidArgument:
    return InvalidArgument(message, field="path", hint=hint or "name a file written by export")
