"""A run of a ``VectorIndex`` for ``bench crash``, and what must hold of it afterwards.

The run adds, replaces and removes vectors of 1,500 ids in batches of 1 to 200, waits now and then
for linking and zeroing, closes and opens the index, and converts it to smaller profiles twice,
while the thread in the background links, takes out and reuses slots all the time. Each operation is
told as it begins and when it is acknowledged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench.ann import sharing
from bench.ann.sharing import IDS, PROFILES, K, Placed, applied, vector_of, vectors_of

_ASKED = 100  # vectors that are asked for again
_EXACTLY = 8  # of an exact search
_NEW_ID = 10 * IDS  # of what is added after a crash

Operation = tuple[str, list[int]]


def script(seed: int, count: int) -> list[Operation]:
    """What the run does, the same for the same seed."""
    rng = random.Random(seed)
    made: list[Operation] = [("open", [])]
    while len(made) < count:
        turn, third = len(made), max(2, count // 3)
        if turn in (third, 2 * third):
            made.append(("convert", [turn // third]))
        elif turn % 25 == 24:
            made.append(("reopen", []))
        elif turn % 10 == 9:
            made.append(("wait", []))
        else:
            ids = rng.sample(range(IDS), rng.choice((1, 7, 60, 200)))
            made.append(("add" if rng.random() < 0.7 else "remove", ids))
    return made


def drive(root: Path, seed: int, count: int, begun: Any, done: Any) -> None:
    """Do it, in ``root``; ``begun`` and ``done`` are called around each operation."""
    sharing.work_in_small_steps()
    path, index = root / "index", None
    try:
        for number, (kind, ids) in enumerate(script(seed, count)):
            begun()
            if kind in ("open", "reopen"):
                if index is not None:
                    index.close()
                index = sharing.opened(path, profile="exact" if kind == "open" else None)
            elif index is not None:
                _do(index, number, kind, ids)
            done()
    finally:
        if index is not None:
            index.close()


def _do(index: memdb.VectorIndex, number: int, kind: str, ids: list[int]) -> None:
    if kind == "add":
        index.add(np.array(ids), vectors_of(number, len(ids)))
    elif kind == "remove":
        index.remove(np.array(ids))
    elif kind == "convert":
        index.convert(PROFILES[ids[0]])
    else:
        index.wait()


@dataclass
class Judge:
    """What an index must hold after so many operations of one run."""

    seed: int
    count: int
    _script: list[Operation] = field(init=False)
    _held: dict[int, Placed] = field(init=False, default_factory=dict)
    _done: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._script = script(self.seed, self.count)

    def judge(self, root: Path, done: int, flying: bool, *, deep: bool) -> list[str]:
        """Open what a crash left when ``done`` operations were acknowledged and, if ``flying``,
        one more begun; what is wrong. ``deep``: goes on writing, waits, and looks again."""
        before = self._after(done)
        states = [before]
        levels = {sum(kind == "convert" for kind, _ in self._script[:done])}
        if flying:
            kind, ids = self._script[done]
            if kind in ("add", "remove"):
                states.insert(0, applied(before, done, kind, ids))
            elif kind == "convert":
                levels.add(ids[0])
        sharing.work_in_small_steps()
        new = "exact" if done == 0 else None
        try:
            with sharing.opened(root / "index", profile=new) as index:
                problems, held = _compared(index, states, {PROFILES[one] for one in levels})
                if held is not None and deep:
                    problems += _lives_on(index, held)
            if deep and held is not None:
                with sharing.opened(root / "index") as index:
                    problems += _is_sound(index)
        except memdb.MemdbError as error:
            return [f"{type(error).__name__}: {error}"]
        return problems

    def _after(self, done: int) -> dict[int, Placed]:
        if done < self._done:
            self._held, self._done = {}, 0
        for number in range(self._done, done):
            kind, ids = self._script[number]
            if kind in ("add", "remove"):
                self._held = applied(self._held, number, kind, ids)
        self._done = done
        return self._held


def _compared(
    index: memdb.VectorIndex, states: list[dict[int, Placed]], profiles: set[str]
) -> tuple[list[str], dict[int, Placed] | None]:
    """What is wrong, and which of the states the index is in."""
    problems = [
        problem for problem in index.check()["problems"] if not problem.startswith("graph.bin")
    ]
    profile = index.stats()["profile"]
    if profile not in profiles:
        problems.append(f"the profile is {profile}")
    held = next((state for state in states if _holds(index, state)), None)
    if held is None:
        problems.append("the index holds neither what was there nor what was being written")
        return problems, None
    return problems + _answers(index, held), held


def _holds(index: memdb.VectorIndex, state: dict[int, Placed]) -> bool:
    ids = sorted(state)
    if len(index) != len(ids):
        return False
    try:
        found = index.get(np.array(ids, np.uint64))
    except memdb.NotFound:
        return False
    wanted = np.array([vector_of(state[number]) for number in ids], np.float32)
    return not ids or sharing.alike(found, wanted, index.stats()["profile"])


def _answers(index: memdb.VectorIndex, state: dict[int, Placed]) -> list[str]:
    """Some of the vectors are asked for; a few beside the truth."""
    if not state:
        found, _ = index.search(np.zeros(sharing.DIM, np.float32), K)
        return ["an empty index has answers"] if (found != sharing.NOBODY).any() else []
    ids = np.array(sorted(state), np.uint64)
    vectors = np.array([vector_of(state[int(number)]) for number in ids])
    count, step = min(K, len(ids)), max(1, len(ids) // _ASKED)
    asked = vectors[::step]
    found, distances = index.search(asked, K)
    if (found[:, :count] == sharing.NOBODY).any() or (found[:, count:] != sharing.NOBODY).any():
        return ["not as many as there are"]
    found, distances = found[:, :count], distances[:, :count]
    at = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
    if (ids[at] != found).any():
        return ["an id that is not in the index is found"]
    problems, profile = [], index.stats()["profile"]
    right = ((asked[:, None] - vectors[at]) ** 2).sum(axis=2)
    if not sharing.near(distances, right, profile):
        problems.append("an id is not at its distance")
    if (np.diff(np.sort(found, axis=1), axis=1) == 0).any():
        problems.append("an id is found twice")
    missed = asked[found[:, 0] != ids[::step]]  # a walk may miss; a look at all may not
    asked = np.concatenate((missed, asked))[:_EXACTLY]
    _, nearest = index.search(asked, K, exact=True)
    truth = np.sort(((asked[:, None] - vectors[None]) ** 2).sum(axis=2), axis=1)[:, :count]
    if not sharing.near(nearest[:, :count], truth, profile):
        problems.append("an exact search does not find the nearest")
    return problems


def _lives_on(index: memdb.VectorIndex, held: dict[int, Placed]) -> list[str]:
    """More is written and removed, all is linked, and everything is looked at."""
    operation, ids = 1 << 40, list(range(_NEW_ID, _NEW_ID + 40))
    index.add(np.array(ids), vectors_of(operation, len(ids)))
    state = applied(held, operation, "add", ids)
    going = sorted(held)[::7]
    index.remove(np.array(going, np.uint64))
    state = applied(state, operation, "remove", going)
    index.wait()
    problems = _is_sound(index)
    if not _holds(index, state):
        return [*problems, "after more was written the index holds something else"]
    return problems + _answers(index, state)


def _is_sound(index: memdb.VectorIndex) -> list[str]:
    return [f"later: {problem}" for problem in index.check()["problems"]]
