"""Budgets that hold next to nothing: the directory stays under them or a typed error says why, and
nothing protected goes. Random histories against a model of what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memdb
from bench.forgetting.readers import disk_bytes
from bench.forgetting.year import watched
from tests.memdb.clock import Clock

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "lo")]


class History:
    """A database under budgets, and what it should hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.clock = Clock()
        self.rng = np.random.default_rng(seed)
        self.db = memdb.open(folder / "db", embedder="none", clock=self.clock)
        self.texts: dict[str, str] = {}
        self.protected: set[str] = set()
        self.facts: dict[str, str] = {}
        self.budget: int | None = None
        self.refused = self.written = 0

    def text(self, size: int) -> str:
        """Words, and what does not compress."""
        return " ".join(self.rng.choice(WORDS, 8)) + " " + self.rng.bytes(size // 2).hex()

    def remember(self, count: int, size: int, pinned: bool) -> None:
        texts = [self.text(size) for _ in range(count)]
        items = [
            {"text": text, "kind": "event", "pinned": pinned, "vector": self.vector()}
            for text in texts
        ]
        before = self.db.count()
        try:
            done = self.db.remember_many(items, batch=8)
        except memdb.BudgetExceeded:
            self.refused += 1
            if count <= 8:  # one transaction: all of it or nothing
                assert self.db.count() <= before
            self.known_again(texts, pinned)
            return
        self.written += len(done)
        self.stays_under()
        for one, text in zip(done, texts, strict=True):
            self.texts[one.id] = text
            if pinned:
                self.protected.add(one.id)

    def vector(self) -> Any:
        return self.rng.standard_normal(32).astype(np.float32)

    def known_again(self, texts: list[str], pinned: bool) -> None:
        """What of a batch that was refused on the way had been written."""
        wanted = set(texts)
        for memory in self.db.iter():
            if memory.text in wanted:
                self.texts[memory.id] = memory.text
                if pinned:
                    self.protected.add(memory.id)

    def fact(self, number: int, size: int) -> None:
        value = self.text(size)
        try:
            self.db.profile.set(f"fact{number}", value, subject="user")
        except memdb.BudgetExceeded:
            self.refused += 1
        else:
            self.facts[f"fact{number}"] = value
            self.stays_under()

    def forget(self, share: float) -> None:
        ids = [memory.id for memory in self.db.iter() if memory.id in self.texts]
        for id in ids[: int(share * len(ids))]:
            self.protected.discard(id)
        if ids[: int(share * len(ids))]:
            self.db.forget(ids[: int(share * len(ids))])

    def limit(self, budget: int) -> None:
        self.budget = budget
        self.db.settings.disk_budget = budget
        self.db._maintenance.drain()

    def later(self, days: int) -> None:
        self.clock.advance(days=days)
        self.db._maintenance.drain()

    def stays_under(self) -> None:
        """An admitted write leaves the directory under the budget."""
        if self.budget is not None:
            assert disk_bytes(self.db.path) <= self.budget

    def holds(self) -> int:
        """Nothing protected is gone, and what is there says what it said; how much there is."""
        for id in self.protected:
            assert self.db[id].text == self.texts[id]
        for key, value in self.facts.items():
            assert self.db.profile.get(key, subject="user") == value
        shown = list(self.db.iter())
        for memory in shown:
            if memory.key is None:
                assert memory.text == self.texts[memory.id]
        last = self.db.retention.status()["last"]
        over = self.budget is not None and disk_bytes(self.db.path) > self.budget
        if over:  # never in silence
            assert last is not None and last["shortfall"] > 0
        assert self.db.check()["ok"]
        return len(shown)


STEPS = st.one_of(
    st.tuples(st.just("remember"), st.integers(1, 30), st.sampled_from((40, 400, 6_000)),
              st.booleans()),
    st.tuples(st.just("remember"), st.integers(20, 60), st.sampled_from((40, 2_000)),
              st.just(False)),
    st.tuples(st.just("fact"), st.integers(0, 3), st.sampled_from((20, 3_000))),
    st.tuples(st.just("forget"), st.floats(0.05, 0.5)),
    st.tuples(st.just("limit"), st.integers(300_000, 5_000_000)),
    st.tuples(st.just("later"), st.integers(1, 9)),
)  # fmt: skip


@given(st.integers(0, 2**32), st.integers(1_000_000, 3_000_000), st.lists(STEPS, max_size=7))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_tiny_budget_holds_or_says_that_it_cannot(
    seed: int, budget: int, steps: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), seed)
        with history.db:
            history.limit(budget)
            for name, *arguments in steps:
                getattr(history, name)(*arguments)
            assert history.holds() == history.db.count()


def test_at_a_small_budget_room_is_made_now_and_then_and_not_for_each_write(
    tmp_path: Path,
) -> None:
    """Hysteresis: what one run frees, many writes use up."""
    history = History(tmp_path, 1)
    with history.db, watched(history.db) as operations:
        history.limit(1_000_000)
        for _ in range(60):
            history.remember(8, 1_200, False)
        history.holds()
        assert history.refused == 0
        plans = sum(name == "plan" for name, _, _ in operations.spans)
        assert 0 < plans < 15
        assert operations.most <= 1_000_000


@pytest.mark.parametrize("budget", [600_000, 800_000])
def test_while_room_is_made_a_small_budget_holds_too(tmp_path: Path, budget: int) -> None:
    """At every commit, sync and rename, while a copy stands beside the store as well."""
    history = History(tmp_path, 1)
    with history.db, watched(history.db) as operations:
        history.limit(budget)
        for _ in range(40):
            history.remember(5, 1_000, False)
        assert any(name == "evict" for name, _, _ in operations.spans)
        assert operations.most <= budget


def test_a_budget_that_cannot_be_kept_is_said_and_leaves_the_background_at_rest(
    tmp_path: Path,
) -> None:
    history = History(tmp_path, 2)
    with history.db, watched(history.db) as operations:
        history.remember(20, 6_000, True)
        history.limit(300_000)
        history.holds()
        assert history.db.retention.status()["last"]["shortfall"] > 0
        operations.spans.clear()
        history.db._maintenance.drain()
        names = {name for name, _, _ in operations.spans}
        assert not names & {"plan", "write"}, "nothing was written: nothing is looked at again"
        for times in (1, 2, 3):
            history.remember(1, 100 * times, False)  # each is larger than the one before
            assert (history.refused, history.db.count()) == (times, 20)
        assert sum(name == "plan" for name, _, _ in operations.spans) == 1, "weighed once"
        history.clock.advance(minutes=2)
        history.remember(1, 400, False)
        assert sum(name == "plan" for name, _, _ in operations.spans) == 2
        history.refused = 1
        history.limit(3_000_000)
        history.remember(1, 40, False)
        assert (history.refused, history.db.count()) == (1, 21)
        history.holds()


def test_a_day_under_a_budget_that_holds_weighs_no_memory(tmp_path: Path) -> None:
    history = History(tmp_path, 3)
    with history.db, watched(history.db) as operations:
        history.limit(5_000_000)
        history.remember(10, 40, False)
        history.later(2)
        assert history.db.retention.status()["last"]["why"] == "policies"
        assert "plan" not in {name for name, _, _ in operations.spans}
        history.db.settings.policies = {"decay": {"below": 0.5}}
        history.later(2)
        assert "plan" in {name for name, _, _ in operations.spans}
        assert history.holds() == 10
