"""Damage to any file of a database: the right answer or a typed error, never anything else."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb.storage import generations, tables, values
from memdb.storage.pages import PAGE
from tests.memdb import full_store

DATA = f"kv/{'g' + '[0-9]' * 10}/data.mdb"
FILES = ("FORMAT", "kv/CURRENT", DATA, "space/1/codes.bin", "space/1/refine.8", "blob/*")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    full_store.build(folder / "db", folder / "notes", full_store.Clock())
    return folder / "db"


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "db")
    return tmp_path / "db"


def reopened(path: Path) -> memdb.Database:
    clock = full_store.Clock()
    clock.advance(days=41)
    return memdb.open(path, embedder="none", clock=clock)


def outcomes(pristine: Path, scratch: Path, damages: list[tuple[str, str, float]]) -> list[str]:
    """What each damage led to; see ``damage_probe``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.memdb.damage_probe", str(pristine), str(scratch)],
        input="\n".join(map(json.dumps, damages)),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
        check=True,
    )
    return [json.loads(line)[3] for line in done.stdout.splitlines()]


def bad(damages: list[tuple[str, str, float]], found: list[str]) -> list[tuple[object, str]]:
    assert len(found) == len(damages)
    pairs = zip(damages, found, strict=True)
    return [(damage, what) for damage, what in pairs if what.split()[0] not in ("right", "typed")]


def test_an_undamaged_copy_answers_everything_rightly(pristine: Path, tmp_path: Path) -> None:
    """The probe itself: nothing is wrong where nothing was done (a comment past CURRENT's line)."""
    with reopened(pristine) as db:
        for name, ask, right in full_store.questions(db):
            assert ask() == right, name
        assert db.check()["ok"]


@pytest.mark.parametrize("file", FILES)
def test_a_deleted_cut_or_lengthened_file_is_noticed_or_harmless(
    pristine: Path, tmp_path: Path, file: str
) -> None:
    damages = [("delete", file, 0.0), ("append", file, 0.0)]
    damages += [("truncate", file, part) for part in (0.0, 0.4, 0.9)]
    found = outcomes(pristine, tmp_path, damages)
    assert not bad(damages, found)
    assert found[0].startswith("typed"), "a missing file was not noticed"
    assert found[2].startswith("typed"), "an empty file was not noticed"


@pytest.mark.parametrize(("file", "count"), [(DATA, 14), ("space/1/refine.8", 4), ("blob/*", 2)])
def test_flipped_bits_and_lost_pages_are_typed_errors_or_harmless(
    pristine: Path, tmp_path: Path, file: str, count: int
) -> None:
    rng = random.Random(4)
    damages = [("flip", file, rng.random()) for _ in range(count)]
    damages += [("zero", file, rng.random()) for _ in range(count // 2)]
    damages += [("garbage", file, rng.random()) for _ in range(count // 2)]
    found = outcomes(pristine, tmp_path, damages)
    # A bit of a key in LMDB's pages hides its entry from look-ups: only ``check`` can tell.
    hidden = [what for what in found if what.startswith("missed")] if file == DATA else []
    assert len(hidden) <= 1
    assert not [pair for pair in bad(damages, found) if pair[1] not in hidden]
    assert any(what.startswith("typed") for what in found)


def test_every_page_of_the_store_may_be_lost_without_a_crash(
    pristine: Path, tmp_path: Path
) -> None:
    """LMDB trusts its pages: one that was zeroed ends the process unless it is found before."""
    (data,) = pristine.glob(DATA)
    pages = data.stat().st_size // PAGE
    damages = [("zero", DATA, (page + 0.5) / pages) for page in range(0, pages, 12)]
    found = outcomes(pristine, tmp_path, damages)
    assert not bad(damages, found)
    assert sum(what.startswith("typed") for what in found) > len(found) // 2


def test_a_damaged_page_is_named_with_its_file(copy: Path) -> None:
    (data,) = copy.glob(DATA)
    content = bytearray(data.read_bytes())
    content[PAGE * 2 :] = bytes(len(content) - PAGE * 2)
    data.write_bytes(content)
    with pytest.raises(memdb.StoreCorrupt) as caught:
        reopened(copy)
    assert caught.value.path == data.relative_to(copy).as_posix()


def test_a_lost_format_never_replaces_the_database(copy: Path) -> None:
    (copy / "FORMAT").unlink()
    before = {path: path.stat().st_size for path in copy.rglob("*.mdb")}
    generation = int((copy / "kv" / "CURRENT").read_text().strip().removeprefix("g"))
    for _ in range(2):
        with pytest.raises(memdb.StoreCorrupt, match="FORMAT"):
            memdb.open(copy, embedder="none")
    with pytest.raises(memdb.StoreCorrupt, match="FORMAT"):
        memdb.open(copy, embedder="none", readonly=True)
    (copy / "kv" / "CURRENT").unlink()
    with pytest.raises(memdb.StoreCorrupt, match="FORMAT"):
        memdb.open(copy, embedder="none")
    (copy / "FORMAT").write_text("memdb 1\n")
    generations.write_current(copy / "kv", generation)
    assert {path: path.stat().st_size for path in copy.rglob("*.mdb")} == before
    with reopened(copy) as db:
        assert db.check()["ok"]


def test_repair_makes_lost_codes_again(copy: Path) -> None:
    (copy / "space" / "1" / "codes.bin").unlink()
    with reopened(copy) as db:
        found = db.check()
        assert not found["ok"] and any("codes.bin" in text for text in found["problems"])
        for name, ask, right in full_store.questions(db):
            assert ask() == right, name  # slower, and no less right
        repaired = db.check(repair=True)
        assert repaired["ok"], repaired["problems"]
        assert "codes of space default" in repaired["repaired"]
        assert db.check()["ok"]


def test_writing_goes_on_while_codes_are_lost(copy: Path) -> None:
    os.truncate(copy / "space" / "1" / "codes.bin", 100)
    with full_store.small_steps(), reopened(copy) as db:
        db.remember_many(
            [{"text": f"later {n}", "vector": full_store.vector(5_000 + n)} for n in range(80)]
        )
        (hit,) = db.recall(vector=full_store.vector(5_040), mode="vector", k=1)
        assert hit.text == "later 40"
        db.compact()
        (hit,) = db.recall(vector=full_store.vector(5_040), mode="vector", k=1)
        assert hit.text == "later 40"
        assert db.check()["ok"], "maintenance made the codes again"


def test_repair_files_rows_again_whose_fresh_entries_are_damaged(copy: Path) -> None:
    with reopened(copy) as db:
        engine = db._engine

        def damage(txn: Any) -> int:
            keys = list(txn.scan_keys(tables.FRESH_FILTERS))
            for number, key in enumerate(keys):
                stored = bytes(20) if number % 2 else values.seal(key, b"no known form")
                txn._txn.put(key, stored, db=txn._dbs[tables.FRESH_FILTERS])
            txn.changed(added=[int.from_bytes(key, "big") for key in keys])
            return len(keys)

        assert engine.store.write(damage) > 1
        assert not db.check()["ok"]
        repaired = db.check(repair=True)
        assert repaired["ok"], repaired["problems"]
        for name, ask, right in full_store.questions(db):
            assert ask() == right, name


def test_repair_files_rows_again_that_the_filters_lost(copy: Path) -> None:
    with reopened(copy) as db:
        engine = db._engine
        with engine.store.read() as txn:
            rows = engine.filters.get_set(txn, "live")
            memories = list(engine.records.iterate(txn, list(rows)[:50]))

        def lose(txn: object) -> None:
            engine.filters.remove(txn, memories)
            rows = [row for row, _ in memories]
            txn.changed(removed=[], added=rows)  # type: ignore[attr-defined]

        engine.store.write(lose)
        found = db.check()
        assert not found["ok"]
        repaired = db.check(repair=True)
        assert repaired["ok"], repaired["problems"]
        assert "filters" in repaired["repaired"]
        for name, ask, right in full_store.questions(db):
            assert ask() == right, name
