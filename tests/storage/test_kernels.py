"""The native code of storage against its twins, on random and on adversarial input."""

from __future__ import annotations

import os
import subprocess
import sys

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import StoreCorrupt
from memdb.storage import reference
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
