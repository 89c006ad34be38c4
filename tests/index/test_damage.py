"""Truncated, flipped and foreign files: a typed error or a right answer, never a crash."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from memdb.errors import FormatTooNew, MemdbError, PermissionDenied, StoreCorrupt, StoreFull
from memdb.index import files, records_file
from memdb.index.flat import FlatIndex
from memdb.index.kernels import available
from memdb.index.protocol import SpaceSpec
from memdb.index.slots import SlotSet

COUNT, DIM = 600, 24
SPEC = SpaceSpec(dim=DIM, epoch=1)
ALL = SlotSet.all(COUNT)
VECTORS = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    index = FlatIndex(tmp_path, SpaceSpec(dim=DIM), writable=True)
    index.train(VECTORS)
    index.publish(index.prepare(np.arange(COUNT), index.encode(VECTORS)))
    index.close()
    return tmp_path


def truth() -> list[int]:
    return list(range(20))


@pytest.mark.parametrize("kernels", available(), ids=lambda kernels: kernels.name)
def test_codes_of_random_bytes_cost_recall_and_nothing_else(directory, kernels) -> None:
    path = directory / "codes.bin"
    raw = bytearray(path.read_bytes())
    raw[4096:] = np.random.default_rng(1).integers(0, 256, len(raw) - 4096, np.uint8).tobytes()
    path.write_bytes(raw)
    index = FlatIndex(directory, SPEC, writable=False, kernels=kernels)
    slots, distances = index.search(VECTORS[:20], 10, allowed=ALL)
    assert all(len(set(row)) == 10 and max(row) < COUNT for row in slots.tolist())
    stored = index.fetch(slots[0])
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(VECTORS[0])
    np.testing.assert_allclose(distances[0], 1 - stored @ VECTORS[0] / lengths, atol=1e-5)
    assert index.search(VECTORS[:20], 1, allowed=ALL, exact=True)[0][:, 0].tolist() == truth()
    with pytest.raises(StoreCorrupt, match=r"codes\.bin"):
        index.verify(np.arange(COUNT))


@pytest.mark.parametrize("name", ["codes.bin", "refine.8"])
def test_a_flipped_bit_anywhere_is_found_or_harmless(directory: Path, name: str) -> None:
    path = directory / name
    sound = path.read_bytes()
    rng = np.random.default_rng(2)
    header = list(range(0, 180 * 8, 7))
    body = (rng.integers(4096, min(len(sound), 16_000), 150) * 8 + rng.integers(0, 8, 150)).tolist()
    found = 0
    for bit in header + body:
        raw = bytearray(sound)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            index = FlatIndex(directory, SPEC, writable=False)
            slots, _ = index.search(VECTORS[:20], 1, allowed=ALL, effort=COUNT)
            assert slots[:, 0].tolist() == truth()
            index.verify(np.arange(COUNT))
        except StoreCorrupt as error:
            assert error.path.endswith(name)
            found += 1
        except FormatTooNew:
            found += 1
    assert found >= (len(header) + len(body)) // 2


@pytest.mark.parametrize("name", ["codes.bin", "refine.8"])
def test_a_truncated_file_is_found_or_harmless(directory: Path, name: str) -> None:
    path = directory / name
    sound = path.read_bytes()
    for length in [0, 1, 19, 50, 120, 4095, 4096, 4097, 9000, len(sound) // 2, len(sound) - 1]:
        path.write_bytes(sound[:length])
        try:
            index = FlatIndex(directory, SPEC, writable=False)
            assert index.search(VECTORS[:20], 1, allowed=ALL)[0][:, 0].tolist() == truth()
            index.verify(np.arange(COUNT))
        except StoreCorrupt as error:
            assert error.path.endswith(name)
        else:
            pytest.fail(f"{name} cut to {length} bytes went unnoticed")


def test_a_record_at_the_wrong_slot_is_found(directory: Path) -> None:
    path = directory / "refine.8"
    raw = bytearray(path.read_bytes())
    size = FlatIndex(directory, SPEC, writable=False).stats()["record_bytes"]
    raw[4096 : 4096 + size] = raw[4096 + size : 4096 + 2 * size]
    path.write_bytes(raw)
    index = FlatIndex(directory, SPEC, writable=False)
    for call in (
        lambda: index.fetch([0]),
        lambda: index.search(VECTORS[0], 1, allowed=ALL, exact=True),
        lambda: index.within(VECTORS[0], 1.0, allowed=ALL),
    ):
        with pytest.raises(StoreCorrupt, match=r"refine\.8.*slot 0"):
            call()


def test_a_slot_past_the_end_is_a_typed_error(directory: Path) -> None:
    index = FlatIndex(directory, SPEC, writable=False)
    for call in (
        lambda: index.fetch([COUNT]),
        lambda: index.search(VECTORS[0], 1, allowed=SlotSet.all(COUNT + 1)),
        lambda: index.search(VECTORS[0], 1, allowed=SlotSet.from_slots([2**31])),
    ):
        with pytest.raises(StoreCorrupt, match="ends before"):
            call()


@pytest.mark.parametrize(
    "spec", [SpaceSpec(dim=25, epoch=1), SpaceSpec(dim=DIM, epoch=1, seed=1)], ids=["dim", "seed"]
)
def test_files_of_another_space_are_refused(directory: Path, spec: SpaceSpec) -> None:
    with pytest.raises(StoreCorrupt, match="another space"):
        FlatIndex(directory, spec, writable=False)


def test_a_missing_records_file_is_named(directory: Path) -> None:
    (directory / "refine.8").unlink()
    with pytest.raises(StoreCorrupt, match=r"refine\.8 is missing"):
        FlatIndex(directory, SPEC, writable=False)


def test_a_header_of_a_later_version_is_refused(directory: Path) -> None:
    path = directory / "refine.8"
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    path.write_bytes(raw)
    with pytest.raises(FormatTooNew):
        FlatIndex(directory, SPEC, writable=False)


def test_a_file_that_is_a_directory_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "refine.8").mkdir()
    with pytest.raises(MemdbError):
        FlatIndex(tmp_path, SPEC, writable=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_store_full() -> None:
    with pytest.raises(StoreFull), files.typed_errors(Path("refine.8")):
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_forbidden_file_is_permission_denied(directory: Path) -> None:
    if os.geteuid() == 0:
        with pytest.raises(PermissionDenied), files.typed_errors(directory):
            raise PermissionError(13, "denied")
        return
    (directory / "refine.8").chmod(0)
    with pytest.raises(PermissionDenied):
        FlatIndex(directory, SPEC, writable=False)


SMALL = [
    SpaceSpec(dim=DIM, profile="exact", epoch=1),
    SpaceSpec(dim=DIM, profile="compact", epoch=1),
    SpaceSpec(dim=DIM, profile="nano", epoch=1),
    SpaceSpec(dim=DIM, metric="hamming", epoch=1),
]


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: f"{spec.profile}-{spec.metric}")
def test_damaged_records_of_every_precision_are_found(tmp_path: Path, spec: SpaceSpec) -> None:
    name = records_file.NAMES[spec.precision]
    vectors = (VECTORS > 0).astype(np.float32) if spec.metric == "hamming" else VECTORS
    writer = FlatIndex(tmp_path, replace(spec, epoch=0), writable=True)
    writer.train(vectors)
    writer.publish(writer.prepare(np.arange(COUNT), writer.encode(vectors)))
    size = writer.stats()["record_bytes"]
    writer.close()
    path = tmp_path / name
    sound = path.read_bytes()
    rng = np.random.default_rng(3)
    for slot, bit in zip(rng.integers(0, COUNT, 60), rng.integers(0, 8 * size, 60), strict=True):
        raw = bytearray(sound)
        raw[4096 + int(slot) * size + bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        index = FlatIndex(tmp_path, spec, writable=False)
        for read in (
            partial(index.search, vectors[:1], 3, allowed=ALL, exact=True),
            partial(index.within, vectors[0], 1e9, allowed=ALL),
            partial(index.fetch, [slot]),
            partial(index.verify, [slot]),
        ):
            with pytest.raises(StoreCorrupt, match=f"{name}.*slot {slot}"):
                read()
    for length in (0, 11, 4095, 4096, 4096 + 7 * size + 5):
        path.write_bytes(sound[:length])
        with pytest.raises(StoreCorrupt, match=name):
            FlatIndex(tmp_path, spec, writable=False).search(vectors[:1], 3, allowed=ALL)
    path.unlink()
    with pytest.raises(StoreCorrupt, match=name):
        FlatIndex(tmp_path, spec, writable=False)


def test_codes_of_an_earlier_layout_are_made_again(directory: Path) -> None:
    path = directory / "codes.bin"
    raw = path.read_bytes()
    fields = raw[20 : 20 + int.from_bytes(raw[16:20], "little")]
    path.write_bytes(files.seal_header(b"MDBCODES", fields, version=1) + raw[4096:])
    index = FlatIndex(directory, SPEC, writable=True)
    assert index.codes_outdated and index.codes_problem is not None
    index.verify(np.arange(COUNT))  # nothing is damaged
    assert index.search(VECTORS[:20], 1, allowed=ALL)[0][:, 0].tolist() == truth()
    assert index.plan(ALL, 1, effort=10).name == "refine"
    index.rebuild_codes(ALL)
    assert not index.codes_outdated
    assert index.plan(ALL, 1, effort=10).name == "scan"
