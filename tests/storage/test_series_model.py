"""Everything a series can do, in any order, beside a dict: a state machine of hypothesis."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memdb.storage import series
from memdb.storage.environment import Environment, ReadTxn
from memdb.storage.series import Position, Sample, SeriesKey
from memdb.types import Memory

HEART = SeriesKey("home/watch", "heart_rate", "watch-3", "app:health")
START = 1_714_000_000_000_000
SECOND = 1_000_000


def beat(second: float, bpm: Any = 70, **more: Any) -> Sample:
    moment = START + int(second * SECOND)
    return Sample(moment, moment + 5, {"bpm": bpm}, **more)


def by_pages(
    txn: ReadTxn,
    names: list[bytes],
    lo_us: int | None,
    hi_us: int | None,
    *,
    limit: int | None,
    reverse: bool,
) -> list[Memory]:
    """What ``read_memories`` gives page by page, each from where the one before ended."""
    found: list[Memory] = []
    after = None
    while limit is None or len(found) < limit:
        size = 700 if limit is None else min(7, limit - len(found))
        page = series.read_memories(
            txn, names, lo_us, hi_us, reverse=reverse, limit=size, after=after
        )
        assert page.times.tolist() == [series.position_of(m).event_us for m in page.memories]
        found += page.memories
        if len(page.memories) < size:
            break
        after = series.position_of(found[-1])
    return found


class Model(RuleBasedStateMachine):
    """Everything a series can do, in any order, beside a dict of its samples."""

    KEYS = (HEART, SeriesKey("b", "k", None, "s"))

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.env = Environment(self.folder)
        self.samples: dict[str, Sample] = {}
        self.hidden: set[str] = set()
        self.rng = random.Random(1)

    @rule(
        key=st.sampled_from(KEYS),
        count=st.sampled_from([1, 3, 200, 1_000, 1_024, 2_500]),
        start=st.integers(-5_000_000, 5_000_000),
        step=st.sampled_from([0, 1, 60, -1, 100_000]),
        data=st.sampled_from([70, 1.5, None, {"a": 1}, [True], "x"]),
        more=st.sampled_from([{}, {"zone": "UTC"}, {"end_us": START, "precision": "minute"}]),
    )
    def append(
        self, key: SeriesKey, count: int, start: int, step: int, data: Any, more: dict[str, Any]
    ) -> None:
        batch = [beat(start + i * step, data, **(more if i % 3 else {})) for i in range(count)]
        with self.env.write() as txn:
            ids = series.append(txn, key, batch)
        assert not self.samples.keys() & set(ids)
        self.samples |= dict(zip(ids, batch, strict=True))

    @rule(budget_ms=st.sampled_from([0.0, 50.0]))
    def seal(self, budget_ms: float) -> None:
        with self.env.write() as txn:
            series.seal_step(txn, budget_ms=budget_ms)

    def some(self, share: float) -> list[str]:
        return [ident for ident in self.samples if self.rng.random() < share]

    @rule(share=st.sampled_from([0.001, 0.3]))
    def hide(self, share: float) -> None:
        ids = self.some(share)
        with self.env.write() as txn:
            assert set(series.hide(txn, ids)) == set(ids) - self.hidden
        self.hidden |= set(ids)

    @rule(share=st.sampled_from([0.1, 1]))
    def show(self, share: float) -> None:
        ids = self.some(share)
        with self.env.write() as txn:
            assert set(series.show(txn, ids)) == self.hidden & set(ids)
        self.hidden -= set(ids)

    @rule(share=st.sampled_from([0.001, 0.4, 1]))
    def erase(self, share: float) -> None:
        ids = self.some(share)
        with self.env.write() as txn:
            assert set(series.erase(txn, ids)) == set(ids)
        for ident in ids:
            del self.samples[ident]
        self.hidden -= set(ids)

    @rule(
        keys=st.sampled_from([KEYS, KEYS[:1], KEYS[1:]]),
        lo=st.none() | st.integers(-6_000_000, 6_000_000),
        span=st.none() | st.integers(0, 3_000_000),
        limit=st.none() | st.integers(0, 50),
        reverse=st.booleans(),
    )
    def range(
        self,
        keys: tuple[SeriesKey, ...],
        lo: int | None,
        span: int | None,
        limit: int | None,
        reverse: bool,
    ) -> None:
        lo_us = None if lo is None else START + lo * SECOND
        hi_us = None if span is None else (lo_us or START) + span * SECOND
        with self.env.read() as txn:
            names = [series.name_of(txn, key) for key in keys]
            found = list(series.read_range(txn, names, lo_us, hi_us, limit=limit, reverse=reverse))
            memories = by_pages(txn, names, lo_us, hi_us, limit=limit, reverse=reverse)
            known = {name: header.key for name, header in series.every(txn)}
            counted = sum(series.count(txn, name, lo_us, hi_us) for name in names)
            columns = [series.columns(txn, name, lo_us, hi_us) for name in names]
        expected = sorted(
            Position(sample.event_us, *parsed)
            for ident, sample in self.samples.items()
            if ident not in self.hidden
            and (parsed := series.parse_id(ident)) is not None
            and parsed[0] in names
            and (lo_us is None or sample.event_us >= lo_us)
            and (hi_us is None or sample.event_us < hi_us)
        )
        assert counted == len(expected)
        for name, column in zip(names, columns, strict=True):
            own = [(p.event_us, p.number) for p in expected if p.series == name]
            pairs = zip(column["event_time"].tolist(), column["number"].tolist(), strict=True)
            assert list(pairs) == own
        wanted = itertools.islice(reversed(expected) if reverse else expected, limit)
        assert [row.position for row in found] == list(wanted)
        assert all(row.sample == self.samples[row.id] for row in found)
        assert memories == [series.to_memory(known[row.series], row) for row in found]

    @invariant()
    def ids_lead_to_their_samples(self) -> None:
        if not hasattr(self, "env"):
            return
        ids = self.some(20 / (len(self.samples) + 1))
        with self.env.read() as txn:
            found = series.get_many(txn, ids)
            assert series.check(txn) == []
        assert found.keys() == set(ids) - self.hidden
        assert all(found[i].data == self.samples[i].data for i in found)

    def teardown(self) -> None:
        if hasattr(self, "env"):
            self.env.close()
            shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
