"""A run of a database for ``bench crash``, and what must hold of it afterwards.

The run remembers, replaces, forgets and erases memories of forty external ids, one at a time and in
batches, with vectors, compacts, and closes and opens the database, while its maintenance folds,
merges and encodes in small steps. Each operation is told as it begins and when it is acknowledged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import memdb
from bench import faults

_KEYS = 40
_BATCH = 12
_ERASED = ""  # of a key: what is remembered under it again is refused

Operation = tuple[str, list[int]]
Texts = dict[str, str]


def script(seed: int, count: int) -> list[Operation]:
    """What the run does, the same for the same seed."""
    rng = random.Random(seed)
    made: list[Operation] = [("open", [])]
    while len(made) < count:
        turn, choice = len(made), rng.random()
        if turn % 20 == 19:
            made.append((rng.choice(("reopen", "compact")), []))
        elif choice < 0.15:
            made.append(("batch", rng.sample(range(_KEYS), _BATCH)))
        else:
            kind = "remember" if choice < 0.7 else "forget" if choice < 0.95 else "erase"
            made.append((kind, [rng.randrange(_KEYS)]))
    return made


def _key(number: int) -> str:
    return f"key {number}"


def _text(operation: int, number: int) -> str:
    return f"number {number} as operation {operation} has it"


def applied(held: Texts, operation: int, kind: str, numbers: list[int]) -> Texts:
    new = dict(held)
    for key, number in zip(map(_key, numbers), numbers, strict=True):
        if new.get(key) == _ERASED:
            continue
        if kind in ("remember", "batch"):
            new[key] = _text(operation, number)
        elif kind == "forget":
            new.pop(key, None)
        elif key in new:
            new[key] = _ERASED
    return new


def _opened(root: Path) -> memdb.Database:
    faults.work_in_small_steps()
    return memdb.open(root / "database", embedder="none", source="bench")


def drive(root: Path, seed: int, count: int, begun: Any, done: Any) -> None:
    """Do it, in ``root``; ``begun`` and ``done`` are called around each operation."""
    db: memdb.Database | None = None
    try:
        for number, (kind, numbers) in enumerate(script(seed, count)):
            begun()
            if kind in ("open", "reopen"):
                if db is not None:
                    db.close()
                db = _opened(root)
            elif db is not None:
                _do(db, number, kind, numbers)
            done()
    finally:
        if db is not None:
            db.close()


def _do(db: memdb.Database, operation: int, kind: str, numbers: list[int]) -> None:
    if kind in ("remember", "batch"):
        texts = [(number, _text(operation, number)) for number in numbers]
        items = [
            {"text": text, "external_id": _key(number), "vector": faults.vector_of(text)}
            for number, text in texts
        ]
        db.remember_many(items, on_conflict="replace")
    elif kind == "compact":
        db.compact()
    else:
        memory = db.get(external_id=_key(numbers[0]))
        if memory is not None:
            (db.forget if kind == "forget" else db.erase)(ids=memory.id)


@dataclass
class Judge:
    """What a database must hold after so many operations of one run."""

    seed: int
    count: int
    _script: list[Operation] = field(init=False)

    def __post_init__(self) -> None:
        self._script = script(self.seed, self.count)

    def judge(self, root: Path, done: int, flying: bool, *, deep: bool) -> list[str]:
        """As ``of_index.Judge.judge``."""
        states: list[Texts] = [{}]
        for number, (kind, numbers) in enumerate(self._script[: done + flying]):
            states.append(applied(states[-1], number, kind, numbers))
        states = states[done : done + 1 + flying]
        try:
            with _opened(root) as db:
                problems = _compared(db, states)
                if deep:
                    text = "written after the crash"
                    db.remember(text, external_id="new", vector=faults.vector_of(text))
            if deep:
                with _opened(root) as db:
                    memory = db.get(external_id="new")
                    if memory is None or memory.text != text:
                        problems.append("what was written after the crash is not there")
                    problems += db.check()["problems"]
        except memdb.MemdbError as error:
            return [f"{type(error).__name__}: {error}"]
        return problems


def _compared(db: memdb.Database, states: list[Texts]) -> list[str]:
    problems = list(db.check()["problems"])
    found: Texts = {}
    for key in map(_key, range(_KEYS)):
        memory = db.get(external_id=key)
        if memory is not None and memory.text is not None:
            found[key] = memory.text
    states = [{key: text for key, text in state.items() if text} for state in states]
    if found not in states:
        lost = {key for key, text in states[0].items() if found.get(key) != text}
        return [*problems, f"the database holds neither state; {len(lost)} differ from the first"]
    for key, text in list(found.items())[::4]:
        hits = db.recall(vector=faults.vector_of(text), mode="vector", k=1)
        same = [other for other in found.values() if sum(other.encode()) == sum(text.encode())]
        if not hits or hits[0].text not in same:
            problems.append(f"{key} is not found by its vector")
    return problems
