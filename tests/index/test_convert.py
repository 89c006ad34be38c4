"""Going to a smaller profile, beside readers and writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memdb.errors import Conflict, InvalidArgument, StoreCorrupt
from memdb.index.convert import (
    LADDER,
    Conversion,
    check_target,
    other_files,
    remove_others,
    resumable,
)
from memdb.index.flat import FlatIndex
from memdb.index.protocol import Profile, SpaceSpec
from memdb.index.records_file import NAMES
from memdb.index.slots import SlotSet

DIM = 96
STEPS = [(high, low) for at, high in enumerate(LADDER) for low in LADDER[at + 1 :]]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, DIM))
    return (rng.standard_normal((count, DIM)) + 2 * centres[rng.integers(0, 20, count)]).astype(
        np.float32
    )


def built(directory: Path, given: np.ndarray, profile: Profile) -> FlatIndex:
    index = FlatIndex(directory, SpaceSpec(dim=DIM, metric="l2", profile=profile), writable=True)
    index.train(given)
    index.publish(index.prepare(np.arange(len(given)), index.encode(given)))
    return index


def recall(index: FlatIndex, given: np.ndarray, queries: np.ndarray) -> float:
    found, _ = index.search(queries, 10, allowed=SlotSet.all(len(given)))
    distances = ((queries[:, None] - given[None]) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1)[:, :10]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest, strict=True)]))


@pytest.mark.parametrize(("high", "low"), STEPS)
def test_a_converted_space_is_the_space_built_at_that_profile(
    tmp_path: Path, high: Profile, low: Profile
) -> None:
    given, queries = vectors(6000), vectors(40, seed=1)
    source = built(tmp_path, given, high)
    before = source.search(queries, 10, allowed=SlotSet.all(6000))
    conversion = Conversion(source, low)
    assert conversion.restarted
    for first in range(0, 6000, 1700):
        conversion.copy(np.arange(first, min(6000, first + 1700)))
        np.testing.assert_array_equal(source.search(queries, 10, allowed=SlotSet.all(6000)), before)
    spec = conversion.install()
    after_install = source.search(queries, 10, allowed=SlotSet.all(6000))
    np.testing.assert_array_equal(after_install[0], before[0])
    converted = FlatIndex(tmp_path, spec, writable=True)
    remove_others(tmp_path, spec)
    assert {path.name for path in tmp_path.glob("refine.*")} == {NAMES[spec.precision]}
    converted.verify(np.arange(6000))
    other = tmp_path / "other"
    other.mkdir()
    fresh = recall(built(other, given, low), given, queries)
    assert recall(converted, given, queries) >= fresh - 0.02
    sizes = converted.stats()
    assert sizes["records_disk_bytes"] < source.stats()["record_bytes"] * 6000


def test_a_conversion_goes_on_where_another_stopped(tmp_path: Path) -> None:
    given = vectors(3000)
    source = built(tmp_path, given, "standard")
    first = Conversion(source, "compact")
    first.copy(np.arange(1500))
    first.close()
    second = Conversion(source, "compact")
    assert not second.restarted
    second.copy(np.arange(1500, 3000))
    converted = FlatIndex(tmp_path, second.install(), writable=False)
    converted.verify(np.arange(3000))


def test_codes_about_another_centre_are_not_gone_on_with(tmp_path: Path) -> None:
    given = vectors(3000)
    source = built(tmp_path, given, "standard")
    Conversion(source, "compact").copy(np.arange(1500))
    source.train(given[:100] + 1, encoded=SlotSet.all(3000))
    assert Conversion(source, "compact").restarted


def test_only_what_would_be_gone_on_with_is_resumable_and_asking_makes_nothing(
    tmp_path: Path,
) -> None:
    source = built(tmp_path, vectors(3000), "standard")
    assert not resumable(source, "compact") and other_files(tmp_path, source.spec) == []
    Conversion(source, "compact").close()
    assert resumable(source, "compact") and not resumable(source, "nano")
    (tmp_path / "refine.5").write_bytes(b"torn")
    assert not resumable(source, "compact")
    remove_others(tmp_path, source.spec)
    installed = Conversion(source, "compact")
    installed.copy(np.arange(3000))
    assert installed.install() == installed.install()  # and then the caller dies
    again = FlatIndex(tmp_path, source.spec, writable=True)
    assert not resumable(again, "compact")
    again.verify(np.arange(3000))
    assert recall(again, vectors(3000), vectors(20, seed=1)) > 0.9
    another = Conversion(again, "compact")
    another.copy(np.arange(3000))
    FlatIndex(tmp_path, another.install(), writable=False).verify(np.arange(3000))


def test_a_slot_cleared_or_written_meanwhile_is_so_in_the_new_files(tmp_path: Path) -> None:
    given = vectors(3000)
    source = built(tmp_path, given, "standard")
    conversion = Conversion(source, "compact")
    conversion.copy(np.arange(3000))
    source.clear([7])
    conversion.clear([7])
    late = vectors(1, seed=5)
    source.publish(source.prepare([9], source.encode(late)))
    conversion.copy([9])
    converted = FlatIndex(tmp_path, conversion.install(), writable=False)
    with pytest.raises(StoreCorrupt, match="slot 7"):
        converted.fetch([7])
    cosine = (converted.fetch([9])[0] @ late[0]) / np.linalg.norm(late) ** 2
    assert abs(cosine - 1) < 0.01


@pytest.mark.parametrize(("low", "high"), [(low, high) for high, low in STEPS])
def test_going_up_is_refused_because_nothing_would_be_gained(low: Profile, high: Profile) -> None:
    with pytest.raises(Conflict, match="does not hold"):
        check_target(SpaceSpec(dim=8, profile=low), high)


def test_targets_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="profile"):
        check_target(SpaceSpec(dim=8), "tiny")
    with pytest.raises(Conflict, match="hamming"):
        check_target(SpaceSpec(dim=8, metric="hamming"), "nano")
