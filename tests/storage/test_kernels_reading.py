"""The native code that reads: values joined and postings scored, against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage import reference
from memdb.storage.kernels import Kernels, available
from memdb.storage.postings import ENTRY

TWIN = reference
NATIVE = [kernels for name, kernels in available().items() if name != "numpy"]
PAYLOADS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=6), st.binary(max_size=50)), max_size=9
)


def packed(rows: NDArray[np.integer], rng: np.random.Generator) -> bytes:
    entries = np.empty(len(rows), ENTRY)
    entries["row"] = rows
    entries["tf"] = rng.integers(1, 256, len(rows))
    entries["length"] = rng.integers(0, 256, len(rows))
    return entries.tobytes()


@pytest.mark.parametrize("native", NATIVE)
@given(pairs=PAYLOADS, stop=st.one_of(st.none(), st.binary(min_size=1, max_size=6)))
def test_joined_payloads_are_those_of_the_twin(
    native: Kernels, pairs: list[tuple[bytes, bytes]], stop: bytes | None
) -> None:
    sealed = TWIN.seal_many(pairs)
    found = native.unseal_joined(iter(sealed), stop)
    assert found == TWIN.unseal_joined(sealed, stop)
    end = next((at for at, pair in enumerate(pairs) if stop is not None and pair[0] >= stop), 99)
    payloads = [payload for _, payload in pairs[:end]]
    keys = [key for key, _ in pairs[:end]]
    firsts = bytes([(one or b"\0")[0] for one in payloads])
    assert found == (b"".join(keys), b"".join(payloads), firsts)


@pytest.mark.parametrize("native", NATIVE)
def test_large_values_are_joined_without_their_padding(native: Kernels) -> None:
    pairs = [(b"a", b"x" * 3000), (b"b", b""), (b"c", b"y" * 70_000)]
    sealed = TWIN.seal_many(pairs)
    assert native.unseal_joined(sealed, None)[1:] == (b"x" * 3000 + b"y" * 70_000, b"x\0y")


@pytest.mark.parametrize("kernels", [*NATIVE, TWIN])
def test_damage_among_joined_values_is_found(kernels: Kernels) -> None:
    sealed = TWIN.seal_many([(bytes([n]), b"payload") for n in range(9)])
    for wrong in ((sealed[4][0], b"1"), (sealed[4][0], sealed[5][1]), (b"\x77", sealed[4][1])):
        with pytest.raises(StoreCorrupt):
            kernels.unseal_joined([*sealed[:4], wrong, *sealed[5:]], None)
    with pytest.raises(TypeError):
        kernels.unseal_joined([(b"key", "text")], None)  # type: ignore[list-item]


@pytest.mark.parametrize("native", NATIVE)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 300), terms=st.integers(1, 4))
def test_scores_are_those_of_the_twin_to_the_bit(
    native: Kernels, seed: int, count: int, terms: int
) -> None:
    rng = np.random.default_rng(seed)
    norm = (rng.random(256) * 4 + 1e-3).astype(np.float32)
    found, expected = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    lists = [packed(rng.permutation(1000)[:count], rng) for _ in range(terms)]
    for postings in lists:
        weight = float(rng.random() * 20)
        native.add_scores(postings, norm, weight, found)
        TWIN.add_scores(postings, norm, weight, expected)
        assert native.postings_end(postings) == TWIN.postings_end(postings)
    assert found.tobytes() == expected.tobytes()
    for postings in lists:
        native.clear_scores(postings, found)
    assert not found.any()


@pytest.mark.parametrize("kernels", [*NATIVE, TWIN])
def test_postings_that_do_not_fit_are_refused_and_nothing_is_scored(kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    norm, scores = np.ones(256, np.float32), np.zeros(100, np.float32)
    for row in (100, 101, 0xFFFF_FFFF):
        postings = packed(np.array([3, row]), rng)
        assert kernels.postings_end(postings) == row + 1
        with pytest.raises(IndexError):
            kernels.add_scores(postings, norm, 1.0, scores)
        with pytest.raises(IndexError):
            kernels.clear_scores(postings, scores)
    with pytest.raises(ValueError):
        kernels.add_scores(b"seven b", norm, 1.0, scores)
    assert not scores.any()
    assert kernels.postings_end(b"") == 0


@pytest.mark.parametrize("native", NATIVE)
def test_arrays_of_another_kind_are_refused(native: Kernels) -> None:
    norm, scores = np.ones(256, np.float32), np.zeros(100, np.float32)
    wrong: list[tuple[object, object]] = [
        (norm.astype(np.float64), scores),
        (norm[:255], scores),
        (norm, scores.astype(np.float64)),
        (norm, scores[::2]),
        (norm, scores.reshape(10, 10)),
        (norm, None),
    ]
    for its_norm, its_scores in wrong:
        with pytest.raises(TypeError):
            native.add_scores(b"", its_norm, 1.0, its_scores)  # type: ignore[arg-type]
    frozen = np.zeros(10, np.float32)
    frozen.flags.writeable = False
    with pytest.raises((TypeError, BufferError, ValueError)):
        native.clear_scores(b"", frozen)
