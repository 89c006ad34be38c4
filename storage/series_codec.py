"""Samples of one series as a compressed block, exactly: every JSON type comes back as it was.

The data of each sample is taken apart into a *shape* (which keys and lists, in which order) and
its *leaves* (numbers, strings, booleans, nulls). A block has few shapes, usually one, and one
column a leaf, of the leaves of all samples that have it. A sample whose shape is too large or too
rare is one leaf by itself.

Grammar (integers little-endian; ``ints`` and ``floats`` as in ``columns``)::

    block    := version u8 = 1 | 3 zeros | count u32 | lo i64 | hi i64 | zstd frame of body
    body     := msgpack [offsets ints, times ints, recorded, ends, zones words, precisions words,
                         shapes, places ints or nil, columns]
    recorded := [0, ints] as they are | [1, ints] less the sample's time
    ends     := nil | [present bits, ints less the sample's time]
    words    := [distinct values, ints or nil]              nil: all are the first
    shapes   := [[shape, column number of each leaf] ...]
    shape    := nil a leaf | [keys, shapes] a mapping | [length, shapes] a list
    columns  := [[path, values] ...]
    values   := [0, ints] | [1, floats] | [2, words] | [3, lengths ints, bytes of UTF-8]
              | [4, bits] booleans | [5] nulls | [6, msgpack of a list] anything else
              | [7, group of each u8, [values of each group]] more than one type

Samples stand in order of time. Times are microseconds UTC; ``lo`` and ``hi`` are the first and
the last, readable without decompressing. An offset is a sample's place among the 1,024 sequence
numbers of its block, by which it keeps its id when others go.

This file knows samples and bytes; it does not know tables, series or ids.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage.columns import (
    compress,
    decode_floats,
    decode_ints,
    decompress,
    encode_floats,
    encode_ints,
)
from memdb.storage.kernels import KERNELS
from memdb.types import Precision

T = TypeVar("T")
Path: TypeAlias = tuple[str | int, ...]
Shape: TypeAlias = "tuple[Any, tuple[Any, ...]] | None"
Values: TypeAlias = "NDArray[np.int64] | NDArray[np.float64] | list[Any]"

_VERSION = 1
_LEVEL = 9
_HEAD = struct.Struct("<B3xIqq")
_MAX_SHAPES = 32
_MAX_LEAVES = 64
_MAX_LIST = 16
_MAX_DEPTH = 8
_INTS, _FLOATS, _WORDS, _STRINGS, _BITS, _NULLS, _OTHER, _MIXED = range(8)

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One measurement: when, learned when, what. Times are microseconds UTC."""

    event_us: int
    recorded_us: int
    data: Any
    end_us: int | None = None
    zone: str | None = None
    precision: Precision = "exact"


class Columns(NamedTuple):
    """What samples have beside their times, a value a sample. recorded (n,) microseconds UTC."""

    recorded: NDArray[np.int64]
    data: list[Any]
    ends: list[int | None]
    zones: list[str | None]
    precisions: list[Precision]

    @property
    def plain(self) -> bool:
        """Whether no sample has an end, a zone or another precision than ``exact``."""
        count = len(self.data)
        nothing = self.ends.count(None) == count == self.zones.count(None)
        return nothing and self.precisions.count("exact") == count

    def at(self, places: NDArray[np.int64]) -> Columns:
        """Those of some samples."""
        wanted = places.tolist()
        rest = ([column[place] for place in wanted] for column in self[1:])
        return Columns(self.recorded[places], *rest)


def columns_of(samples: Sequence[Sample]) -> Columns:
    """The same of samples that are in no block."""
    return Columns(
        np.array([sample.recorded_us for sample in samples], np.int64),
        [sample.data for sample in samples],
        [sample.end_us for sample in samples],
        [sample.zone for sample in samples],
        [sample.precision for sample in samples],
    )


class Flat:
    """Data taken apart: which shape each sample has, and the leaves of each path in a row."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.shapes: list[tuple[Shape, list[int]]] = []
        self.paths: list[Path] = []
        self.leaves: list[list[Any]] = []
        self._known_shapes: dict[Shape, int] = {}
        self._known_paths: dict[Path, int] = {}

    def add(self, data: Any) -> None:
        found: list[tuple[Path, Any]] = []
        shape = _shape(data, (), found)
        place = self._known_shapes.get(shape)
        full = len(self.shapes) >= _MAX_SHAPES - 1  # one is left for the leaf
        if len(found) > _MAX_LEAVES or (place is None and full):
            shape, found = None, [((), data)]
            place = self._known_shapes.get(shape)
        if place is None:
            place = self._known_shapes[shape] = len(self.shapes)
            self.shapes.append((shape, [self._column(path) for path, _ in found]))
        self.places.append(place)
        for column, (_, value) in zip(self.shapes[place][1], found, strict=True):
            self.leaves[column].append(value)

    def _column(self, path: Path) -> int:
        column = self._known_paths.get(path)
        if column is None:
            column = self._known_paths[path] = len(self.paths)
            self.paths.append(path)
            self.leaves.append([])
        return column


def _shape(value: Any, path: Path, found: list[tuple[Path, Any]]) -> Shape:
    if len(path) < _MAX_DEPTH and value:
        if type(value) is dict and len(value) <= _MAX_LEAVES:
            keys = tuple(value)
            return keys, tuple([_shape(value[key], (*path, key), found) for key in keys])
        if type(value) is list and len(value) <= _MAX_LIST:
            return len(value), tuple([_shape(v, (*path, i), found) for i, v in enumerate(value)])
    found.append((path, value))
    return None


def encode_block(offsets: Sequence[int], samples: Sequence[Sample]) -> bytes:
    """The block of at least one sample, in order of time, with their offsets."""
    times = np.array([sample.event_us for sample in samples], dtype=np.int64)
    recorded = np.array([sample.recorded_us for sample in samples], dtype=np.int64)
    flat = Flat()
    for sample in samples:
        flat.add(sample.data)
    body = [
        encode_ints(np.array(offsets, dtype=np.int64)),
        encode_ints(times),
        _encode_recorded(recorded, times),
        _encode_ends(samples),
        _encode_words([sample.zone for sample in samples]),
        _encode_words([sample.precision for sample in samples]),
        flat.shapes,
        encode_ints(np.array(flat.places, dtype=np.int64)) if len(flat.shapes) > 1 else None,
        [
            [path, _encode_values(values)]
            for path, values in zip(flat.paths, flat.leaves, strict=True)
        ],
    ]
    head = _HEAD.pack(_VERSION, len(samples), int(times[0]), int(times[-1]))
    return head + compress(_pack(body), _LEVEL)


class Block:
    """A block as read: its span at once, the rest when asked for. ``StoreCorrupt`` if unsound."""

    def __init__(self, payload: bytes) -> None:
        try:
            version, self.count, self.lo, self.hi = _HEAD.unpack_from(payload)
        except struct.error as error:
            raise StoreCorrupt("a series block is too short", path="kv") from error
        if version != _VERSION:
            raise StoreCorrupt("a series block has an unknown version", path="kv")
        self._payload = payload

    @cached_property
    def _body(self) -> list[Any]:
        try:
            body = _unpack(decompress(memoryview(self._payload)[_HEAD.size :]))
        except (msgspec.DecodeError, ValueError) as error:
            raise _corrupt() from error
        if not isinstance(body, list) or len(body) != 9:
            raise _corrupt()
        return body

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(count,) places among the block's sequence numbers."""
        return self._read(lambda: decode_ints(self._body[0], self.count))

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """(count,) microseconds UTC, ascending."""
        return self._read(lambda: decode_ints(self._body[1], self.count))

    @cached_property
    def recorded(self) -> NDArray[np.int64]:
        """(count,) microseconds UTC."""

        def read() -> NDArray[np.int64]:
            form, encoded = self._body[2]
            values = decode_ints(encoded, self.count)
            return values + self.times if form else values

        return self._read(read)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(count,) which shape each sample has."""
        encoded = self._body[7]
        if encoded is None:
            return np.zeros(self.count, dtype=np.int64)
        return self._read(lambda: decode_ints(encoded, self.count))

    def columns(self, part: slice) -> Columns:
        """What the samples of some places have, in order of time."""
        return self._read(
            lambda: Columns(
                self.recorded[part],
                self._data(part),
                _decode_ends(self._body[3], self.times)[part],
                _decode_words(self._body[4], self.count)[part],
                _decode_words(self._body[5], self.count)[part],
            )
        )

    def samples(self, start: int = 0, stop: int | None = None) -> list[Sample]:
        """The samples from place ``start`` to before ``stop``, in order of time."""
        part = slice(start, stop)
        found = self.columns(part)
        times, recorded = self.times[part].tolist(), found.recorded.tolist()
        return list(map(Sample, times, recorded, *found[1:]))

    def fields(self) -> Iterator[tuple[Path, NDArray[np.int64], Values]]:
        """(path, positions of the samples that have it, their values) of every leaf."""
        shapes = self._body[6]
        for column, (path, encoded) in enumerate(self._body[8]):
            having = [place for place, (_, leaves) in enumerate(shapes) if column in leaves]
            if len(having) == len(shapes):
                positions = np.arange(self.count)
            else:
                positions = np.flatnonzero(np.isin(self.places, having))
            yield tuple(path), positions, self._values(encoded, len(positions))

    def _values(self, encoded: list[Any], count: int) -> Values:
        return self._read(lambda: _decode_values(encoded, count))

    def _data(self, part: slice) -> list[Any]:
        shapes = self._body[6]
        single = len(shapes) == 1
        columns: list[list[Any]] = []
        for _, _, values in self.fields():
            chosen = values[part] if single else values
            columns.append(chosen if isinstance(chosen, list) else chosen.tolist())
        if single:
            ((shape, leaves),) = shapes
            return KERNELS.build_rows(shape, [columns[column] for column in leaves])
        places = self.places.tolist()
        streams = [iter(column) for column in columns]
        rows = [([next(streams[c]) for c in shapes[place][1]], place) for place in places]
        return [
            KERNELS.build_rows(shapes[place][0], [[leaf] for leaf in leaves])[0]
            for leaves, place in rows[part]
        ]

    @staticmethod
    def _read(decode: Callable[[], T]) -> T:
        try:
            return decode()
        except (ValueError, LookupError, TypeError, StopIteration, msgspec.DecodeError) as error:
            raise _corrupt() from error


def _corrupt() -> StoreCorrupt:
    return StoreCorrupt("a series block does not decode", path="kv")


def _encode_recorded(recorded: NDArray[np.int64], times: NDArray[np.int64]) -> list[Any]:
    """A device that uploads has one time for a batch; a live one is as late every time."""
    forms = [[0, encode_ints(recorded)], [1, encode_ints(recorded - times)]]
    return min(forms, key=lambda form: len(compress(_pack(form), 1)))


def _encode_ends(samples: Sequence[Sample]) -> list[Any] | None:
    present = np.array([sample.end_us is not None for sample in samples])
    if not present.any():
        return None
    lengths = [s.end_us - s.event_us for s in samples if s.end_us is not None]
    return [np.packbits(present).tobytes(), encode_ints(np.array(lengths, dtype=np.int64))]


def _decode_ends(encoded: list[Any] | None, times: NDArray[np.int64]) -> list[int | None]:
    ends: list[int | None] = [None] * len(times)
    if encoded is not None:
        places = np.flatnonzero(_decode_bits(encoded[0], len(times)))
        found = times[places] + decode_ints(encoded[1], len(places))
        for place, end in zip(places.tolist(), found.tolist(), strict=True):
            ends[place] = end
    return ends


def _decode_bits(packed: bytes, count: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count).astype(np.bool_)


def _encode_words(values: Sequence[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return [distinct, None]
    place = {value: i for i, value in enumerate(distinct)}
    return [distinct, encode_ints(np.array([place[v] for v in values], dtype=np.int64))]


def _decode_words(encoded: list[Any], count: int) -> list[Any]:
    distinct, places = encoded
    if places is None:
        return list(distinct) * count
    return [distinct[place] for place in decode_ints(places, count).tolist()]


def _encode_values(values: list[Any]) -> list[Any]:
    """One column, by the type of its values."""
    types = set(map(type, values))
    if len(types) > 1:
        groups = sorted(types, key=lambda kind: kind.__name__)
        tags = bytes([groups.index(type(value)) for value in values])
        parts = [[value for value in values if type(value) is kind] for kind in groups]
        return [_MIXED, tags, [_encode_values(part) for part in parts]]
    (kind,) = types
    if kind is int and all(-(1 << 63) <= value < 1 << 63 for value in values):
        return [_INTS, encode_ints(np.array(values, dtype=np.int64))]
    if kind is float:
        return [_FLOATS, encode_floats(np.array(values, dtype=np.float64))]
    if kind is str and len(set(values)) * 2 <= len(values):
        return [_WORDS, _encode_words(values)]
    if kind is str:
        encoded = [value.encode() for value in values]
        lengths = np.array([len(part) for part in encoded], dtype=np.int64)
        return [_STRINGS, encode_ints(lengths), b"".join(encoded)]
    if kind is bool:
        return [_BITS, np.packbits(np.array(values)).tobytes()]
    if kind is type(None):
        return [_NULLS]
    return [_OTHER, _pack(values)]


def _decode_values(encoded: list[Any], count: int) -> Values:
    form, *rest = encoded
    if form == _INTS:
        return decode_ints(rest[0], count)
    if form == _FLOATS:
        return decode_floats(rest[0], count)
    if form == _WORDS:
        return _decode_words(rest[0], count)
    if form == _STRINGS:
        ends = np.cumsum(decode_ints(rest[0], count)).tolist()
        starts = [0, *ends]
        return [rest[1][start:end].decode() for start, end in zip(starts, ends, strict=False)]
    if form == _BITS:
        return list(_decode_bits(rest[0], count).tolist())
    if form == _NULLS:
        return [None] * count
    if form == _OTHER:
        return list(_unpack(rest[0]))
    if form != _MIXED:
        raise ValueError("unknown form of a column")
    tags, groups = rest
    streams = []
    for number, group in enumerate(groups):
        values = _decode_values(group, tags.count(number))
        streams.append(iter(values if isinstance(values, list) else values.tolist()))
    return [next(streams[tag]) for tag in tags]
