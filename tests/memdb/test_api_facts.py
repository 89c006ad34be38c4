"""Facts over time against a brute-force model: random lives of one fact, asked about every day."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import memdb
from tests.memdb.clock import Clock

BASE = datetime(2024, 1, 1, tzinfo=UTC)
CELL = timedelta(hours=12)
CELLS = 80  # half days; what is given lies on whole days, the clock never does
FIRST = -1  # the cell that stands for all the time before
VALUES = ["Elm", "Oak", "Ash"]


def at(cell: int | None) -> datetime | None:
    return None if cell is None or cell in (FIRST, CELLS) else BASE + cell * CELL


class Piece(NamedTuple):
    """A stretch of time in which one stored value is true."""

    number: int
    value: str


class Painted:
    """What is true in each cell: the model. A later write paints over an earlier one."""

    def __init__(self) -> None:
        self.cells: dict[int, Piece] = {}
        self.count = 0

    def piece(self, value: str) -> Piece:
        self.count += 1
        return Piece(self.count, value)

    def span(self, piece: Piece) -> tuple[int, int]:
        cells = [cell for cell, held in self.cells.items() if held == piece]
        assert sorted(cells) == list(range(min(cells), max(cells) + 1))
        return min(cells), max(cells) + 1

    def begins(self) -> set[int]:
        return {self.span(piece)[0] for piece in set(self.cells.values())}

    def clear(self, piece: Piece) -> None:
        self.cells = {cell: held for cell, held in self.cells.items() if held != piece}

    def paint(self, piece: Piece, start: int, stop: int) -> None:
        self.cells.update((cell, piece) for cell in range(start, stop))

    def set(self, value: str, start: int, stop: int) -> Piece | None:
        """The piece painted; None when the value was true all that time already."""
        stop = min([stop, *(begin for begin in self.begins() if begin > start)])
        held = self.cells.get(start)
        if held is not None:
            begin, end = self.span(held)
            if held.value == value and end >= stop:
                return None
            if begin == start:
                self.clear(held)
            elif end > stop:
                self.paint(self.piece(held.value), stop, end)
        piece = self.piece(value)
        self.paint(piece, start, stop)
        return piece


class Facts(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.now = 11
        self.clock.moment = BASE + self.now * CELL
        self.db = memdb.open(self.folder / "db", embedder="none", clock=self.clock)
        self.model = Painted()
        self.trash: dict[str, tuple[str, int, int, int]] = {}  # batch: value, validity, when

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.check_export()
            self.db.close()
            shutil.rmtree(self.folder)

    def tick(self) -> None:
        """A day goes by; near the end of the model's time, none does."""
        if self.now < CELLS - 4:
            self.now += 2
            self.clock.moment = BASE + self.now * CELL

    @rule(
        value=st.sampled_from(VALUES),
        start=st.none() | st.integers(0, 30),
        length=st.none() | st.integers(1, 12),
    )
    def set(self, value: str, start: int | None, length: int | None) -> None:
        if start is None:
            return self.set_now(value)
        first, stop = 2 * start, CELLS if length is None else min(2 * (start + length), CELLS)
        before = self.model.cells.get(first)
        painted = self.model.set(value, first, stop)
        written = self.db.profile.set("address", value, valid_from=at(first), valid_to=at(stop))
        if painted is None:
            assert written.status == "duplicate"
        elif before is None:
            assert written.status == "inserted"
        else:
            assert written.status in ("superseded", "replaced")
        return None

    def set_now(self, value: str) -> None:
        if self.now >= CELLS - 4:
            return
        self.model.set(value, self.now if self.model.cells else FIRST, CELLS)
        self.db.profile.set("address", value)
        self.tick()

    @rule()
    def delete(self) -> None:
        self.tick()
        held = self.model.cells.get(self.now)
        if held is None or self.now >= CELLS - 4:
            if held is None:
                with pytest.raises(memdb.NotFound):
                    self.db.profile.delete("address")
            return
        stop = self.model.span(held)[1]
        if self.model.span(held)[0] == self.now:
            return
        self.db.profile.delete("address")
        for cell in range(self.now, stop):
            del self.model.cells[cell]

    def stored(self, number: int) -> memdb.Memory | None:
        values = self.db.profile.versions("address")
        return values[number % len(values)] if values else None

    def cell_of(self, moment: datetime | None, otherwise: int) -> int:
        return otherwise if moment is None else (moment - BASE) // CELL

    def bounds(self, memory: memdb.Memory) -> tuple[int, int]:
        return self.cell_of(memory.valid_from, FIRST), self.cell_of(memory.valid_to, CELLS)

    @rule(number=st.integers(0, 20))
    def forget(self, number: int) -> None:
        memory = self.stored(number)
        if memory is not None:
            start, stop = self.bounds(memory)
            self.model.clear(self.model.cells[start])
            self.trash[self.db.forget(memory.id).batch] = str(memory.data), start, stop, self.now

    @rule(number=st.integers(0, 20))
    def restore(self, number: int) -> None:
        if not self.trash:
            return
        batch = sorted(self.trash)[number % len(self.trash)]
        value, start, stop, forgotten = self.trash[batch]
        if self.now - forgotten > 14:  # seven days
            with pytest.raises(memdb.NotFound):
                self.db.restore(batch=batch)
            return
        free = [cell for cell in range(start, stop) if cell not in self.model.cells]
        if not free:
            with pytest.raises(memdb.Conflict):
                self.db.restore(batch=batch)
            return
        self.db.restore(batch=batch)
        del self.trash[batch]
        end = next((c for c in range(free[0], stop) if c in self.model.cells), stop)
        self.model.paint(self.model.piece(value), free[0], end)

    @rule(
        number=st.integers(0, 20),
        start=st.none() | st.integers(0, 30),
        length=st.none() | st.integers(1, 12),
    )
    def update(self, number: int, start: int | None, length: int | None) -> None:
        memory = self.stored(number)
        if memory is None or (start is None and length is None):
            return
        old_start, old_stop = self.bounds(memory)
        first = old_start if start is None else 2 * start
        stop = old_stop if length is None else min(max(first, 0) + 2 * length, CELLS)
        if stop <= first:
            return
        changes = {}
        if start is not None:
            changes["valid_from"] = at(first)
        if length is not None:
            changes["valid_to"] = at(stop)
        if not self.moves(self.model.cells[old_start], first, stop):
            with pytest.raises(memdb.Conflict):
                self.db.update(memory.id, **changes)
            return
        self.db.update(memory.id, **changes)

    def moves(self, piece: Piece, first: int, stop: int) -> bool:
        """Move a piece in the model; False where it must not go."""
        model = self.model
        old_start, old_stop = model.span(piece)
        if (first, stop) == (old_start, old_stop):
            return True
        others = {one: model.span(one) for one in set(model.cells.values()) if one != piece}
        if any(begin == first for begin, _ in others.values()):
            return False
        stop = min([stop, *(begin for begin, _ in others.values() if begin > first)])
        earlier = [one for one, (begin, _) in others.items() if begin < first]
        previous = max(earlier, key=lambda one: others[one], default=None)
        if previous is not None and others[previous][1] > stop:
            return False
        model.clear(piece)
        if previous is not None:
            begin, end = others[previous]
            if end > first or (end == old_start and first > old_start):
                model.clear(previous)
                model.paint(previous, begin, first)
        model.paint(piece, first, stop)
        return True

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = memdb.open(self.folder / "db", clock=self.clock)

    @invariant()
    def every_day_is_answered_as_by_the_model(self) -> None:
        if not hasattr(self, "db"):
            return
        self.check(self.db)
        values = self.db.profile.versions("address")
        spans = [self.bounds(memory) for memory in values]
        assert spans == sorted(self.model.span(one) for one in set(self.model.cells.values()))
        for (_, stop), (start, _) in pairwise(spans):
            assert stop <= start
        now = self.db.profile.get("address")
        assert self.db.profile.items() == ({} if now is None else {"address": now})

    def check(self, db: memdb.Database) -> None:
        early = self.model.cells.get(FIRST)
        assert db.profile.get("address", as_of="1950") == (early.value if early else None)
        for cell in range(CELLS):
            held = self.model.cells.get(cell)
            found = db.profile.get("address", as_of=BASE + cell * CELL)
            assert found == (held.value if held else None), cell

    def check_export(self) -> None:
        """Exported and imported, in any order, the fact has the same history."""
        assert self.db.check()["problems"] == []
        file = self.folder / "out.jsonl"
        count = self.db.export(file)
        with memdb.open(self.folder / "copy", embedder="none", clock=self.clock) as copy:
            assert copy.import_(file) == count
            assert copy.import_(file) == 0
            self.check(copy)


TestFacts = Facts.TestCase
TestFacts.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_correction_is_a_version_of_the_value_it_corrects(db: memdb.Database) -> None:
    wrong = db.profile.set("shoe_size", 38, valid_from="2020")
    right = db.profile.set("shoe_size", 39, valid_from="2020", source="app:shop")
    assert (right.status, right.id, right.memory.version) == ("replaced", wrong.id, 2)
    assert db.profile["shoe_size"] == 39
    assert [m.data for m in db.versions(wrong.id)] == [38, 39]
    assert [m.data for m in db.profile.versions("shoe_size")] == [39]
    assert db.count() == 1
    assert db.check()["ok"]


def test_a_value_for_a_while_is_followed_by_the_one_it_interrupted(db: memdb.Database) -> None:
    home = db.profile.set("address", "12 Elm St", valid_from="2020", vector=[1.0, 0.0])
    db.profile.set("address", "a hotel", valid_from="2024-05-01", valid_to="2024-06-01")
    assert db.profile["address"] == "12 Elm St"
    assert db.profile.get("address", as_of="2024-05-15") == "a hotel"
    before, hotel, after = db.profile.versions("address")
    assert (before.id, before.valid_to) == (home.id, hotel.valid_from)
    assert (after.data, after.valid_from, after.valid_to) == ("12 Elm St", hotel.valid_to, None)
    assert after.source == before.source
    assert [h.id for h in db.recall("elm", mode="lexical")] == [after.id]
    assert [h.id for h in db.recall(vector=[1.0, 0.0], mode="vector")] == [after.id]
    assert [h.id for h in db.recall("hotel", mode="lexical", as_of="2024-05-15")] == [hotel.id]
    assert db.check()["ok"]


def test_moving_a_beginning_moves_the_end_before_it(db: memdb.Database) -> None:
    db.profile.set("address", "Elm", valid_from="2020")
    moved = db.profile.set("address", "Oak", valid_from="2024-05-01").id
    db.update(moved, valid_from="2024-06-01")
    assert db.profile.get("address", as_of="2024-05-15") == "Elm"
    db.update(moved, valid_from="2024-04-01")
    assert db.profile.get("address", as_of="2024-04-15") == "Oak"
    with pytest.raises(memdb.Conflict):
        db.update(moved, valid_from="2020")
    assert [m.data for m in db.profile.versions("address")] == ["Elm", "Oak"]


def test_an_end_in_the_past_needs_a_beginning(db: memdb.Database) -> None:
    db.profile["address"] = "Elm"
    with pytest.raises(memdb.InvalidArgument) as caught:
        db.profile.set("address", "Oak", valid_to="2020")
    assert caught.value.field == "valid_from"
    assert len(db.profile.versions("address")) == 1


def test_an_external_id_replaces_a_value_of_its_own_fact_only(db: memdb.Database) -> None:
    db.profile.set("address", "Elm", valid_from="2020", external_id="form-1")
    db.profile.set("address", "Oak", valid_from="2024")
    again = {"external_id": "form-1", "on_conflict": "replace"}
    assert db.profile.set("address", "Ash", valid_from="2021", **again).status == "replaced"
    spans = [(m.data, m.valid_from and m.valid_from.year) for m in db.profile.versions("address")]
    assert spans == [("Ash", 2021), ("Oak", 2024)]
    with pytest.raises(memdb.Conflict):
        db.profile.set("phone", "1", **again)
    with pytest.raises(memdb.Conflict):
        db.remember("a note", **again)
    assert db.get(external_id="form-1") is not None
    assert db.check()["ok"]
