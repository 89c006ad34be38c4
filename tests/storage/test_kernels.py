"""The native code of storage against its twins, on random and on adversarial input."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from random import Random
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import reference
from memdb.storage.filters import strings
from memdb.storage.kernels import Kernels, available
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES, obeys_size_rule

TWIN = reference
NATIVE = [kernels for name, kernels in available().items() if name != "numpy"]
KEYS = st.binary(min_size=1, max_size=40)
PAYLOADS = st.one_of(
    st.binary(max_size=100),
    st.sampled_from([1892, 1893, 1895, 1896, 1897, 4071, 4072, 4073, 8168, 8169, 70_000]).map(
        lambda size: (bytes(range(251)) * 300)[:size]
    ),
)


@pytest.fixture(params=NATIVE, ids=lambda _: "native")
def native(request: pytest.FixtureRequest) -> Kernels:
    found: Kernels = request.param
    return found


def test_the_native_code_was_built() -> None:
    assert NATIVE, "the native module is missing: run `make test`, which builds it"


def test_the_environment_chooses_the_twins() -> None:
    program = "from memdb.storage.kernels import KERNELS; print(KERNELS.__name__)"
    for wanted, expected in (("numpy", "memdb.storage.reference"), ("", "memdb.storage._native")):
        environment = {**os.environ, "MEMDB_KERNELS": wanted}
        command = [sys.executable, "-c", program]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected


# --- the envelope of values -----------------------------------------------------------------------


@pytest.mark.parametrize("native", NATIVE)
@given(data=st.binary(max_size=300))
def test_checksums_are_crc32c(native: Kernels, data: bytes) -> None:
    assert native.crc32c(data) == google_crc32c.value(data)


@pytest.mark.parametrize("native", NATIVE)
@given(pairs=st.lists(st.tuples(KEYS, PAYLOADS), max_size=5))
def test_values_are_sealed_as_by_the_twin(
    native: Kernels, pairs: list[tuple[bytes, bytes]]
) -> None:
    sealed = native.seal_many(pairs)
    assert sealed == TWIN.seal_many(pairs) == [(key, native.seal(key, p)) for key, p in pairs]
    assert all(obeys_size_rule(value) for _, value in sealed)
    assert [(key, native.unseal(key, value)) for key, value in sealed] == pairs


@pytest.mark.parametrize("native", NATIVE)
@given(key=KEYS, payload=PAYLOADS, bit=st.integers(min_value=0), other=KEYS)
def test_a_changed_bit_of_a_value_or_its_key_is_found(
    native: Kernels, key: bytes, payload: bytes, bit: int, other: bytes
) -> None:
    value = bytearray(TWIN.seal(key, payload))
    value[bit // 8 % len(value)] ^= 1 << bit % 8
    for wrong_key, wrong in ((key, bytes(value)), (key, b""), (key, bytes(value)[:3])):
        for kernels in (native, TWIN):
            with pytest.raises(StoreCorrupt):
                kernels.unseal(wrong_key, wrong)
    if other != key:
        with pytest.raises(StoreCorrupt):
            native.unseal(other, TWIN.seal(key, payload))


def test_a_length_beyond_the_value_is_refused(native: Kernels) -> None:
    key = b"key"
    body = (5000).to_bytes(4, "little") + bytes(4072)
    forged = reference.crc32c(key + body).to_bytes(4, "little") + body
    for kernels in (native, TWIN):
        with pytest.raises(StoreCorrupt) as error:
            kernels.unseal(key, forged)
        assert error.value.path == "kv"


def test_entries_are_read_up_to_a_key(native: Kernels) -> None:
    pairs = [(bytes([n]), bytes([n]) * n * 100) for n in range(1, 60)]
    sealed = TWIN.seal_many(pairs)
    for stop in (b"\0", b"\x14", b"\x14\0", b"\xff"):
        found = native.unseal_until(iter(sealed), stop)
        assert found == TWIN.unseal_until(iter(sealed), stop) == [p for p in pairs if p[0] < stop]
    damaged = [*sealed[:5], (sealed[5][0], b"123"), *sealed[6:]]
    assert native.unseal_until(damaged, sealed[5][0]) == pairs[:5]
    with pytest.raises(StoreCorrupt):
        native.unseal_until(damaged, b"\xff")


def test_a_wrong_call_is_an_error_and_no_crash(native: Kernels) -> None:
    for items in ([b"not a pair"], [(b"key",)], [(b"key", "text")], [("key", b"payload")], 7):
        with pytest.raises(TypeError):
            native.seal_many(items)  # type: ignore[arg-type]
    for pair in ((b"key", "text"), ("key", b"payload"), (b"key", None)):
        with pytest.raises(TypeError):
            native.seal(*pair)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            native.unseal(*pair)  # type: ignore[arg-type]
    assert native.seal_many([]) == []
    assert len(native.seal(b"k", bytes(SMALL_PAYLOAD_MAX_BYTES))) == 1900


# --- keys -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


@pytest.mark.parametrize("native", NATIVE)
@given(st.binary(max_size=64), st.binary(max_size=600), st.integers(1, 64))
def test_digests_are_blake2b(native: Kernels, key: bytes, data: bytes, size: int) -> None:
    assert native.digest(key, data, size) == blake2b(data, digest_size=size, key=key).digest()
    for length in (0, 1, 127, 128, 129, 256, 257):
        body = (data * 300)[:length]
        assert native.digest(key, body, size) == TWIN.digest(key, body, size)


@pytest.mark.parametrize("native", NATIVE)
@given(st.binary(max_size=3), st.lists(st.text(max_size=90), max_size=4))
def test_texts_are_digested_as_by_the_twin(native: Kernels, tag: bytes, texts: list[str]) -> None:
    parts, key = tuple(texts), b"k" * 32
    found = native.digest_of_parts(key, tag, parts, 16)
    assert found == TWIN.digest_of_parts(key, tag, parts, 16)
    encoded = [text.encode() for text in texts]
    assert native.set_prefixes(key, tag, 500, encoded) == TWIN.set_prefixes(key, tag, 500, encoded)


class Odd(str):
    pass


@pytest.mark.parametrize("native", NATIVE)
@given(
    st.recursive(
        st.one_of(st.none(), TEXT, TEXT.map(Odd), st.just("\u00e9" * 2000), st.just(b"bytes")),
        lambda values: st.lists(values, max_size=4).map(tuple),
        max_leaves=8,
    )
)
@example(("\ud800",))
@example(("\ud800" * 2000, None))
def test_plain_strings_are_told_as_by_the_twin(native: Kernels, value: object) -> None:
    assert native.plain_strings((value,)) == TWIN.plain_strings((value,))


# --- filing ---------------------------------------------------------------------------------------


class Sorted:
    """A cursor as py-lmdb's, over sorted pairs."""

    def __init__(self, pairs: dict[bytes, bytes]) -> None:
        self._items = sorted(pairs.items())
        self._at = 0

    def _place(self, at: int) -> bool:
        self._at = at
        return 0 <= at < len(self._items)

    def set_range(self, key: bytes) -> bool:
        return self._place(bisect_left(self._items, (key, b"")))

    def prev(self) -> bool:
        return self._place(self._at - 1)

    def next(self) -> bool:
        return self._place(self._at + 1)

    def last(self) -> bool:
        return self._place(len(self._items) - 1)

    def key(self) -> bytes:
        return self._items[self._at][0] if 0 <= self._at < len(self._items) else b""

    def value(self) -> bytes:
        return self._items[self._at][1]


def stored(pairs: Iterable[tuple[bytes, bytes]]) -> Sorted:
    return Sorted(dict(TWIN.seal_many(pairs)))


# Rows that make each kind of container: alone, in runs, many, far apart.
ROWS = st.lists(
    st.one_of(
        st.integers(0, 300).map(lambda row: range(row, row + 1)),
        st.integers(0, 1 << 18).map(lambda row: range(row, row + 1)),
        st.integers((1 << 32) - 70_000, (1 << 32) - 1).map(lambda row: range(row, row + 1)),
        st.tuples(st.integers(0, 1 << 17), st.integers(1, 9000), st.integers(1, 9)).map(
            lambda run: range(run[0], run[0] + run[1], run[2])
        ),
    ),
    min_size=1,
    max_size=12,
).map(lambda parts: sorted({row for part in parts for row in part}))


def blocks_of(prefix: bytes, rows: Sequence[int]) -> dict[bytes, bytes]:
    """A set as ``bitmaps`` stores it."""
    found: dict[bytes, bytes] = {}
    for at in range(0, len(rows), 700):
        cut = BitMap(rows[at : at + 700])
        cut.run_optimize()
        first = 0 if at == 0 else rows[at]
        found[prefix + first.to_bytes(4, "big")] = b"R" + cut.serialize()
    return found


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ROWS, ROWS, st.sampled_from("AARRBN")), max_size=4), st.randoms())
def test_sets_are_extended_as_by_the_twin(
    native: Kernels, given_sets: list[tuple[list[int], list[int], str]], random: Random
) -> None:
    held: dict[bytes, bytes] = {}
    sets = []
    for number, (before, rows, kind) in enumerate(given_sets):
        prefix = bytes((0, number)) + bytes(8)
        if kind == "A":
            held[prefix + bytes(4)] = b"A" + array("I", before[:8]).tobytes()
        elif kind == "R":
            held |= blocks_of(prefix, before)
        elif kind == "B":
            chunk = rows[0] >> 13 << 13
            held[prefix + bytes(4)] = b"R" + BitMap().serialize()
            held[prefix + chunk.to_bytes(4, "big")] = b"B" + bytes([random.randrange(256), 7])
        sets.append((prefix, random.sample(rows[:400], min(400, len(rows)))))
    cursor = stored(held.items())
    assert native.extend_sets(cursor, sets) == TWIN.extend_sets(cursor, sets)


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ROWS, st.sampled_from("ABRL"), st.binary(max_size=1024)), max_size=5))
def test_rows_are_put_together_as_by_the_twin(
    native: Kernels, parts: list[tuple[list[int], str, bytes]]
) -> None:
    blocks, lists, expected = [], [], set()
    for rows, kind, bits in parts:
        if kind == "A":
            blocks.append((bytes(4), b"A" + array("I", rows[:8]).tobytes()))
            expected.update(rows[:8])
        elif kind == "R":
            blocks += blocks_of(b"prefix", rows).items()
            expected.update(rows)
        elif kind == "L":
            lists.append(array("I", rows[::-1]).tobytes())
            expected.update(rows)
        else:
            first = rows[0] >> 13 << 13
            blocks.append((b"prefix" + first.to_bytes(4, "big"), b"B" + bits))
            set_bits = np.flatnonzero(np.unpackbits(np.frombuffer(bits, "u1"), bitorder="little"))
            expected.update((set_bits + first).tolist())
    for kernels in (native, TWIN):
        assert set(BitMap.deserialize(kernels.union_rows(blocks, lists))) == expected


@pytest.mark.parametrize("kernels", [*NATIVE, TWIN])
@pytest.mark.parametrize(
    "block", [b"", b"?", b"A123", b"R\x3a\x30", b"B" + bytes(1025), b"Bodd", b"Rnonsense"]
)
def test_a_block_of_no_known_form_is_not_put_together(kernels: Kernels, block: bytes) -> None:
    first = 8 if block == b"Bodd" else 0
    with pytest.raises(StoreCorrupt):
        kernels.union_rows([(first.to_bytes(4, "big"), block)], [])
    with pytest.raises(StoreCorrupt):
        kernels.union_rows([], [b"abc"])


ENTRIES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)),
        st.one_of(st.integers(0, 5), st.integers(0, (1 << 32) - 1)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None)
@given(ENTRIES, ENTRIES, st.integers(1, 9), st.integers(0, 2))
def test_entries_are_merged_as_by_the_twin(
    native: Kernels,
    held: list[tuple[int, int]],
    entries: list[tuple[int, int]],
    full: int,
    neighbours: int,
) -> None:
    pairs, _ = TWIN.merge_blocks(7, [], [], held, full)
    for field in [6, 8][:neighbours]:
        pairs += TWIN.merge_blocks(field, [], [], [(1, 1), (2, 2)], 1)[0]
    cursor = stored(pairs)
    blocks, bounds = TWIN.blocks_for(cursor, 7, entries)
    assert native.blocks_for(cursor, 7, entries) == (blocks, bounds)
    made = TWIN.merge_blocks(7, blocks, bounds, entries, full)
    assert native.merge_blocks(7, blocks, bounds, entries, full) == made
    after = dict(pairs)
    for key in made[1]:
        del after[key]
    after |= dict(made[0])
    mine = [payload for key, payload in sorted(after.items()) if key[:2] == b"\0\7"]
    read = [TWIN._entries(payload) for payload in mine]
    assert [entry for block in read for entry in block] == sorted({*held, *entries})
    assert all(len(block) <= full for block in read)


@pytest.mark.parametrize("native", NATIVE)
@given(ENTRIES, st.lists(st.integers(8, 63), max_size=3))
def test_radix_sets_are_those_of_the_twin(
    native: Kernels, entries: list[tuple[int, int]], shifts: list[int]
) -> None:
    found = native.radix_sets(500, shifts, 16, entries)
    assert found == TWIN.radix_sets(500, shifts, 16, entries)
    assert sum(len(rows) for _, rows in found) == len(set(entries)) * len(shifts)


TEXTS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(["", "a", "ab", "aba", "abb", "b\u00e9", "\U0010ffff"]),
            st.text(max_size=6),
            st.text("ab", min_size=300, max_size=400),
        ).map(str.encode),
        st.one_of(st.integers(0, 5), st.just(0xFFFF_FFFF)),
    ),
    max_size=12,
).map(lambda texts: sorted(set(texts)))


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 5))
def test_texts_are_joined_as_by_the_twin(
    native: Kernels, held: list[tuple[bytes, int]], entries: list[tuple[bytes, int]], size: int
) -> None:
    pieces = [held[at : at + size] for at in range(0, len(held), size)]
    blocks = [(at.to_bytes(8, "big"), strings._encode(piece)) for at, piece in enumerate(pieces)]
    found = native.join_blocks(blocks, entries)
    assert found == TWIN.join_blocks(blocks, entries)
    for block in [b"", *(payload for _, payload in blocks)]:
        joined = native.join_block(block, entries)
        assert joined == TWIN.join_block(block, entries)
        if joined is not None:
            before = strings.decode_block(block) if block else []
            assert strings.decode_block(joined) == sorted({*before, *entries})


# --- terms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=6), st.integers(1, 300))
def test_terms_are_counted_and_inverted_as_by_the_twin(
    native: Kernels, texts: list[list[int]], repeats: int
) -> None:
    texts = [*texts, [3] * repeats]
    starts = np.array([0, 1, 2, 4, 4, 5, 6, 7, 8, 9])
    sizes = np.array([1, 1, 2, 0, 1, 1, 1, 1, 1, 3])
    numbers = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 11])
    hashes = np.random.default_rng(1).integers(0, 3, (12, 12), np.uint8)
    tokens = [token for text in texts for token in text]
    arguments = (tokens, [len(text) for text in texts], starts, sizes, numbers, hashes)
    counted = native.count_terms(*arguments)
    assert counted == TWIN.count_terms(*arguments)
    forwards = [n.to_bytes(4, "little") + tfs + terms for terms, tfs, n in counted]
    rows = [place * 991 % 8191 for place in range(len(texts))]
    lengths = bytes(min(len(text), 255) for text in texts)
    assert native.invert(9, rows, forwards, lengths) == TWIN.invert(9, rows, forwards, lengths)


def test_a_long_list_of_postings_is_cut(native: Kernels) -> None:
    forward = b"\1\0\0\0" + b"\1" + b"h" * 12
    rows, lengths = list(range(1000)), bytes(1000)
    pairs = native.invert(1, rows, [forward] * 1000, lengths)
    assert pairs == TWIN.invert(1, rows, [forward] * 1000, lengths)
    assert len(pairs) == 8
    assert max(len(payload) for _, payload in pairs) <= SMALL_PAYLOAD_MAX_BYTES


# --- samples --------------------------------------------------------------------------------------

SHAPES = st.recursive(
    st.none(),
    lambda inner: st.lists(inner, max_size=3).flatmap(
        lambda parts: st.sampled_from([[[f"k{i}" for i in range(len(parts))], parts], [0, parts]])
    ),
    max_leaves=6,
)


def leaves_of(shape: Any) -> int:
    return 1 if shape is None else sum([leaves_of(part) for part in shape[1]])


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None)
@given(SHAPES, st.integers(0, 3), st.integers(-1, 1))
def test_values_are_put_together_as_by_the_twin(
    native: Kernels, shape: Any, count: int, more: int
) -> None:
    columns = max(0, leaves_of(shape) + more)
    leaves: list[list[Any]] = [[(i, row) for row in range(count)] for i in range(columns)]
    try:
        expected = TWIN.build_rows(shape, leaves)
    except ValueError:
        with pytest.raises(ValueError):
            native.build_rows(shape, leaves)
    else:
        assert native.build_rows(shape, leaves) == expected


def test_what_is_no_shape_is_refused(native: Kernels) -> None:
    for shape in (["k", None], [["k"], []], [[[]], [None]], [1], 7, [1, [7]]):
        with pytest.raises((TypeError, ValueError)):
            native.build_rows(shape, [[1, 2]])
    with pytest.raises(ValueError):
        native.build_rows([["a", "b"], [None, None]], [[1, 2], [1]])


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", NATIVE)
@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["", "A", "R", "B", "R0"]), st.integers(0, 1 << 32))
def test_no_block_makes_the_native_code_crash(
    native: Kernels, body: bytes, tag: str, row: int
) -> None:
    runs = (12347 | 2 << 16).to_bytes(4, "little") if tag == "R0" else b""
    block = tag[:1].encode() + runs + body
    prefix = b"\0\1" + bytes(8)
    row = min(row, (1 << 32) - 1)
    before, pieces, cut = native.extend_sets(
        stored([(prefix + bytes(4), block)]), [(prefix, [row])]
    )
    assert len(before) == 1 and len(pieces) + len(cut) <= 1
    for call in (
        lambda: native.merge_blocks(1, [(b"key", body)], [0, 1], [(5, 5)], 4),
        lambda: native.join_block(body, [(b"text", 1)]),
        lambda: native.join_blocks([(b"key", body)], [(b"text", 1)]),
        lambda: native.invert(1, [1], [body], b"\1"),
    ):
        with contextlib.suppress(StoreCorrupt):
            call()
