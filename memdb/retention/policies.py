"""Policies: small rules, each of which may say what becomes of some memories, and why.

A policy looks at the candidates that no policy before it has decided and returns a ``Decision`` for
those it cares about. ``precedence`` is its place in the order; the first that matches explains the
decision:

    expiry 10 > pin 20 > superseded 30 > duplicates 40 > budget 50 > decay 60 > consolidation 70

Erasure stands before all of them and is not a policy: it is done when it is asked for. Anything
with
``precedence`` and ``decide`` is a policy; a user's own needs no base class. This file knows
memories and what they are worth; it does not know the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.retention import ladder
from memdb.types import Memory

Action = Literal["keep", "forget", "prune", "demote", "archive", "evict", "consolidate"]
UNDOABLE: Final = frozenset({"forget", "consolidate"})
"""Actions that the trash undoes for seven days; the others are final, or lose nothing."""

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One memory as a policy sees it.

    ``current`` is False for an earlier version, which only versions' rules and the budget may
    touch. ``size`` are the bytes that its eviction frees of the budget, an estimate.
    ``re_readable`` says that it is a chunk whose file is still there.
    """

    row: int
    memory: Memory
    value: float
    weight: float
    kept: float
    size: int
    level: int = 0
    current: bool = True
    re_readable: bool = False

    @property
    def protected(self) -> bool:
        """Never lost for a budget: what is pinned, and what is true of a person."""
        return self.memory.pinned or (self.current and self.memory.kind == "profile")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one memory. ``linked`` is the memory that stands for it from then on."""

    action: Action
    rule: str
    level: int | None = None
    linked: str | None = None


Vectors = Callable[[Sequence[int]], Mapping[int, NDArray[np.float32]]]


@dataclass(slots=True)
class Situation:
    """What policies know beside the candidates; ``steps`` and ``derived`` collect what they ask
    for that concerns no single memory."""

    now: datetime
    usage: ladder.Usage
    vectors: Vectors = field(default=lambda rows: {})
    steps: list[ladder.Step] = field(default_factory=list)
    derived: list[dict[str, Any]] = field(default_factory=list)
    shortfall: int = 0


class Policy(Protocol):
    """What ``plan`` asks of a policy."""

    @property
    def precedence(self) -> int: ...

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        """Decisions by row, for the candidates the policy cares about."""
        ...


@dataclass(frozen=True, slots=True)
class Expired:
    """What has expired goes to the trash."""

    precedence: int = 10

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        return {
            one.row: Decision("forget", "expired")
            for one in candidates
            if one.current
            and one.memory.expires_at is not None
            and one.memory.expires_at <= situation.now
        }


@dataclass(frozen=True, slots=True)
class Pinned:
    """What is pinned stays, whatever comes below."""

    precedence: int = 20

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        return {
            one.row: Decision("keep", "pinned")
            for one in candidates
            if one.current and one.memory.pinned
        }


@dataclass(frozen=True, slots=True)
class Superseded:
    """Earlier versions, and values of a fact that are over, beyond a number and an age.

    Kept are the newest ``keep_versions`` of each memory or fact, and whatever was replaced or ended
    within ``keep_days``. None keeps all. Versions are pruned for good; facts go to the trash.
    """

    keep_versions: int | None = None
    keep_days: float | None = None
    precedence: int = 30

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        if self.keep_versions is None and self.keep_days is None:
            return {}
        groups: dict[tuple[str, ...], list[Candidate]] = {}
        for one in candidates:
            memory = one.memory
            if not one.current:
                groups.setdefault(("version", memory.id), []).append(one)
            elif memory.key is not None and _is_over(memory, situation.now):
                named = ("fact", memory.namespace, memory.subject or "", memory.key)
                groups.setdefault(named, []).append(one)
        found = {}
        for members in groups.values():
            members.sort(key=lambda one: (_ended(one.memory), one.row), reverse=True)
            for one in members[self.keep_versions or 0 :]:
                if self._is_old(one.memory, situation.now):
                    action: Action = "forget" if one.current else "prune"
                    found[one.row] = Decision(action, "superseded")
        return found

    def _is_old(self, memory: Memory, now: datetime) -> bool:
        if self.keep_days is None:
            return True
        return _ended(memory) <= now - timedelta(days=self.keep_days)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Of equal memories of a namespace the newest stays; the others go to the trash, linked to it.

    ``exact``: the same kind, stream, text and data. ``near``: cosine of the vectors of at least
    that, for memories with a text. Facts are never duplicates: they have timelines.
    """

    exact: bool = True
    near: float | None = None
    precedence: int = 40

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        plain = [one for one in candidates if one.current and one.memory.key is None]
        newest_first = sorted(plain, key=_age_order, reverse=True)
        found: dict[int, Decision] = {}
        if self.exact:
            seen: dict[bytes, str] = {}
            for one in newest_first:
                mark = _content(one.memory)
                if mark in seen:
                    found[one.row] = Decision("forget", "duplicate", linked=seen[mark])
                else:
                    seen[mark] = one.memory.id
        if self.near is not None:
            left = [one for one in newest_first if one.row not in found and one.memory.text]
            found.update(_near(left, self.near, situation))
        return found


def _near(
    newest_first: Sequence[Candidate], least: float, situation: Situation
) -> dict[int, Decision]:
    groups: dict[tuple[str, str, str | None], list[Candidate]] = {}
    for one in newest_first:
        memory = one.memory
        groups.setdefault((memory.namespace, memory.kind, memory.space), []).append(one)
    found: dict[int, Decision] = {}
    for members in groups.values():
        vectors = situation.vectors([one.row for one in members])
        kept: list[Candidate] = []
        matrix: list[NDArray[np.float32]] = []
        for one in members:
            vector = vectors.get(one.row)
            length = 0.0 if vector is None else float(np.linalg.norm(vector))
            if vector is None or not length:
                continue
            unit = vector / length
            if matrix:
                cosines = np.stack(matrix) @ unit
                best = int(cosines.argmax())
                if cosines[best] >= least:
                    linked = kept[best].memory.id
                    found[one.row] = Decision("forget", "near duplicate", linked=linked)
                    continue
            kept.append(one)
            matrix.append(unit)
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that the directory may take: down the ladder of fidelity, then eviction by value."""

    disk_bytes: int
    losses: Mapping[int, float] = field(default_factory=lambda: dict(ladder.LOSS))
    trigger: float = 1.0
    precedence: int = 50

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        open_to_it = [one for one in candidates if not one.protected]
        chosen = ladder.choose(
            [
                ladder.Weighed(one.row, one.value, one.size, one.level, one.re_readable)
                for one in open_to_it
            ],
            situation.usage,
            self.disk_bytes,
            self.losses,
            trigger=self.trigger,
        )
        situation.steps += chosen.steps
        situation.shortfall = chosen.shortfall
        found = {row: Decision("evict", "budget", level=ladder.GONE) for row in chosen.evicted}
        for row in chosen.pointers:
            found[row] = Decision("demote", "budget", level=ladder.POINTER)
        return found


@dataclass(frozen=True, slots=True)
class Decay:
    """What has faded: R below ``below`` is archived (into cold blocks, losing nothing), or
    forgotten.

    ``kinds`` narrows it; facts do not fade.
    """

    below: float
    action: Literal["archive", "forget"] = "archive"
    kinds: tuple[str, ...] | None = None
    precedence: int = 60

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        level = ladder.COLD if self.action == "archive" else None
        return {
            one.row: Decision(self.action, "decayed", level=level)
            for one in candidates
            if one.current
            and not one.protected
            and one.kept < self.below
            and (self.kinds is None or one.memory.kind in self.kinds)
            and not (self.action == "archive" and one.level >= ladder.COLD)
        }


@dataclass(frozen=True, slots=True)
class Consolidate:
    """A function of the user's makes one memory of several, which then go to the trash.

    ``function`` is given the memories that nothing else decided and returns mappings of arguments
    for ``remember``, each with ``derived_from``: the ids it stands for. It must be deterministic.
    """

    function: Callable[[Sequence[Memory]], Sequence[Mapping[str, Any]]]
    precedence: int = 70

    def decide(
        self, candidates: Sequence[Candidate], situation: Situation
    ) -> Mapping[int, Decision]:
        current = {one.memory.id: one for one in candidates if one.current and not one.protected}
        found: dict[int, Decision] = {}
        for made in self.function([one.memory for one in current.values()]):
            sources = list(made.get("derived_from", ()))
            if not sources or any(source not in current for source in sources):
                raise InvalidArgument(
                    "a consolidated memory must name in derived_from memories it was given",
                    field="derived_from",
                )
            situation.derived.append(dict(made))
            for source in sources:
                found[current[source].row] = Decision("consolidate", "consolidated")
        return found


def describe(policy: Policy) -> dict[str, Any]:
    """A policy by name, with its settings where it is one of these."""
    names = getattr(policy, "__dataclass_fields__", ())
    shown = {
        name: getattr(policy, name)
        for name in names
        if name != "precedence" and isinstance(getattr(policy, name), str | int | float | tuple)
    }
    return {"policy": type(policy).__name__, "precedence": policy.precedence, **shown}


def in_order(policies: Sequence[Policy]) -> list[Policy]:
    """By precedence; those of one precedence in the order given."""
    for one in policies:
        if not hasattr(one, "decide") or not isinstance(getattr(one, "precedence", None), int):
            raise InvalidArgument("a policy has a precedence and decides", field="policy")
    return sorted(policies, key=lambda one: one.precedence)


def decide(
    policies: Sequence[Policy], candidates: Sequence[Candidate], situation: Situation
) -> dict[int, Decision]:
    """The first decision about each memory that any policy makes."""
    decided: dict[int, Decision] = {}
    for policy in in_order(policies):
        left = [one for one in candidates if one.row not in decided]
        rows = {one.row for one in left}
        found = policy.decide(left, situation)
        decided.update((row, what) for row, what in found.items() if row in rows)
    return decided


def _is_over(memory: Memory, now: datetime) -> bool:
    return memory.valid_to is not None and memory.valid_to <= now


def _ended(memory: Memory) -> datetime:
    return memory.retired_at or memory.valid_to or memory.recorded_at or _BEGINNING


def _age_order(one: Candidate) -> tuple[datetime, int]:
    return one.memory.recorded_at or _BEGINNING, one.row


def _content(memory: Memory) -> bytes:
    named = (memory.namespace, memory.kind, memory.stream, memory.text, memory.data)
    return msgspec.msgpack.encode((*named, memory.space) if memory.text is None else named)
