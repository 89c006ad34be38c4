"""The ladder of fidelity, and the choice of what goes down it or off it for a budget.

    0  as written                    3  vector of 2 bits a coordinate (profile nano)
    1  text in cold blocks           4  words, time and pointer to the source (chunks)
    2  vector of 5 bits (compact)    5  gone

What is minimised is the sum of V times the loss of the level. Steps 1 to 3 are of the whole store
or of a whole space: how vectors are kept is a space's. A step is taken where it costs less than
evicting, by rising V, what would free as much. Step 1 loses nothing and comes first. Level 4 is for
chunks whose file is there, which go before anything is evicted: they can be read again.

Eviction is by V alone. By V per byte is worse than random: it throws out what says most.
This file knows numbers; it does not know memories or the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

AS_WRITTEN: Final = 0
COLD: Final = 1
COMPACT: Final = 2
NANO: Final = 3
POINTER: Final = 4
GONE: Final = 5

LEVEL_OF_PROFILE: Final = {
    "exact": 0,
    "standard": 0,
    "compact": COMPACT,
    "nano": NANO,
    "pico": NANO,
}

PROFILES: Final = tuple(LEVEL_OF_PROFILE)
"""The most precise first. A budget goes down to "nano"; to "pico" only the owner's word does."""

LOSS: Final[Mapping[int, float]] = {
    AS_WRITTEN: 0.0,
    COLD: 0.0,
    COMPACT: 0.002,
    NANO: 0.007,
    POINTER: 0.5,
    GONE: 1.0,
}
"""Share of recall@10 that a level loses; measured by ``python -m bench forgetting levels``."""

AIM: Final = 0.85
"""Share of the budget that is left filled: the distance between being full and being full again."""

POINTER_FREES: Final = 0.6
"""Share of a chunk's bytes that its text and vector are."""


@dataclass(frozen=True, slots=True)
class SpaceUse:
    """One space: what a vector takes at its profile, and how many there are.

    ``smallest`` is the least precise profile it may have; ``loss_value`` the sum of the V of its
    memories.
    """

    name: str
    profile: str
    vectors: int
    bytes_at: Mapping[str, int]
    smallest: str
    loss_value: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the bytes of a directory are. ``bound`` is what must not exceed a budget."""

    files: int = 0
    live: int = 0
    trash: int = 0
    freezable: int = 0
    encodable: int = 0
    spaces: tuple[SpaceUse, ...] = field(default_factory=tuple)

    @property
    def bound(self) -> int:
        """Files, and the store twice: a compacting copy must always find room."""
        return self.files + 2 * self.live


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the choice needs of one memory."""

    row: int
    value: float
    size: int
    level: int = 0
    re_readable: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the whole store or of a space. ``frees`` is an estimate."""

    what: str  # "trash" | "encode" | "cold" | "space"
    level: int
    frees: int
    space: str | None = None
    profile: str | None = None


@dataclass(slots=True)
class Choice:
    """What the budget asks for; ``shortfall`` are bytes that nothing evictable would free."""

    steps: list[Step] = field(default_factory=list)
    pointers: list[int] = field(default_factory=list)
    evicted: list[int] = field(default_factory=list)
    shortfall: int = 0


def choose(
    candidates: Sequence[Weighed],
    usage: Usage,
    budget: int,
    losses: Mapping[int, float] = LOSS,
    *,
    trigger: float = 1.0,
) -> Choice:
    """What to do so that the directory takes ``AIM`` of ``budget``; nothing while it takes no more
    than ``trigger`` of it.

    ``shortfall`` is how far the budget itself, not ``AIM`` of it, is missed.
    """
    chosen = Choice()
    if usage.bound <= trigger * budget:
        return chosen
    excess = usage.bound - int(AIM * budget)
    reserve = budget - int(AIM * budget)
    for what, level, frees in (
        ("trash", GONE, usage.trash),
        ("encode", AS_WRITTEN, usage.encodable),
        ("cold", COLD, usage.freezable),
    ):
        if excess > 0 and frees > 0:
            chosen.steps.append(Step(what, level, frees))
            excess -= frees
    by_value = sorted(candidates, key=lambda one: (one.value, one.row))
    excess = _convert(chosen, by_value, usage.spaces, excess, losses)
    for one in by_value:
        if excess <= 0:
            break
        if one.re_readable and one.level < POINTER:
            chosen.pointers.append(one.row)
            excess -= int(POINTER_FREES * one.size)
    lowered = set(chosen.pointers)
    for one in by_value:
        if excess <= 0:
            break
        chosen.evicted.append(one.row)
        share = 1 - POINTER_FREES if one.row in lowered else 1.0
        excess -= int(share * one.size)
    gone = set(chosen.evicted)
    chosen.pointers = [row for row in chosen.pointers if row not in gone]
    chosen.shortfall = max(0, excess - reserve)
    return chosen


def _convert(
    chosen: Choice,
    by_value: Sequence[Weighed],
    spaces: Sequence[SpaceUse],
    excess: int,
    losses: Mapping[int, float],
) -> int:
    """Take the steps of spaces that cost less than eviction; returns what is still to be freed."""
    left = list(spaces)
    while excess > 0:
        options = [(space, step) for space in left if (step := _next_step(space)) is not None]
        if not options:
            break

        prices = [
            _lost(space, step, losses) / max(1, min(step.frees, excess)) for space, step in options
        ]
        space, step = options[prices.index(min(prices))]
        useful = min(step.frees, excess)
        if _lost(space, step, losses) > _cost_of_evicting(by_value, useful):
            break
        chosen.steps.append(step)
        excess -= step.frees
        left[left.index(space)] = replace(space, profile=step.profile or space.profile)
    return excess


def _lost(space: SpaceUse, step: Step, losses: Mapping[int, float]) -> float:
    """What a space's step costs: V times what the new level loses more than the present one."""
    return space.loss_value * (losses[step.level] - losses[LEVEL_OF_PROFILE[space.profile]])


def _next_step(space: SpaceUse) -> Step | None:
    order = [name for name in PROFILES if name in space.bytes_at]
    place = order.index(space.profile)
    if space.profile == space.smallest or place + 1 >= len(order) or not space.vectors:
        return None
    target = order[place + 1]
    frees = space.vectors * (space.bytes_at[space.profile] - space.bytes_at[target])
    return Step("space", LEVEL_OF_PROFILE[target], frees, space.name, target)


def _cost_of_evicting(by_value: Sequence[Weighed], size: int) -> float:
    """The V lost by evicting, least first, what frees ``size``; infinite where that is not
    there.
    """
    lost = 0.0
    for one in by_value:
        if size <= 0:
            return lost
        lost += one.value
        size -= one.size
    return lost if size <= 0 else float("inf")
