"""What the owner wants forgotten, as tables of settings: ``retention.toml``, or
``db.settings.policies``.

    clock = "active"             # days on which nothing happened do not count; or "calendar"
    curve = "exponential"        # or "fsrs", "actr"
    floor = 0.3
    [classes]                    # strength at first, in days; false: does not decay
    note = 180
    [superseded]
    keep_versions = 5
    keep_days = 365
    [duplicates]
    exact = true
    near = 0.98
    [budget]
    disk = "200MB"               # instead of db.settings.disk_budget
    [decay]
    below = 0.32
    action = "archive"           # or "forget"
    kinds = ["event"]

A table of the file replaces the stored one of the same name. Expiry and pins always hold. This file
reads settings; it decides nothing.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from memdb.errors import InvalidArgument
from memdb.retention import policies, value
from memdb.sizes import parse_bytes

FILE: Final = "retention.toml"
CLOCKS: Final = ("calendar", "active")
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "classes": tuple(value.CLASS_DAYS),
    "superseded": ("keep_versions", "keep_days"),
    "duplicates": ("exact", "near"),
    "budget": ("disk",),
    "decay": ("below", "action", "kinds"),
}
_PLAIN: Final = ("clock", "curve", "floor")

PolicyLike = (
    policies.Policy | Sequence[policies.Policy] | Mapping[str, Any] | str | os.PathLike[str] | None
)


@dataclass(frozen=True, slots=True)
class Options:
    """How value is computed."""

    curve: value.Curve = "exponential"
    floor: float = value.FLOOR
    active_days: bool = False
    classes: Mapping[str, float | None] = field(default_factory=lambda: dict(value.CLASS_DAYS))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Policies and options. ``asked`` says whether the owner set anything to be forgotten."""

    policies: tuple[policies.Policy, ...]
    options: Options
    disk_budget: int | None = None
    asked: bool = False


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ``InvalidArgument`` naming it when it is none."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InvalidArgument(f"there is no policy file {path.name}", field="policy") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidArgument(f"{path.name} cannot be read: {error}", field="policy") from error


def wanted(
    policy: PolicyLike, stored: Mapping[str, Any], directory: Path, disk_budget: int | None
) -> Wanted:
    """What a ``policy`` argument means; None is what is stored and in the directory's file.

    ``disk_budget`` is the stored setting; policies given as objects do not look at it.
    """
    if isinstance(policy, str | os.PathLike):
        return parse(read_file(Path(policy).expanduser()), disk_budget)
    if isinstance(policy, Mapping):
        return parse(policy, disk_budget)
    if policy is not None:
        given: tuple[Any, ...] = tuple(policy) if isinstance(policy, Sequence) else (policy,)
        always = (policies.Expired(), policies.Pinned())
        return Wanted(tuple(policies.in_order([*always, *given])), Options(), None, bool(given))
    path = directory / FILE
    own = read_file(path) if path.exists() else {}
    return parse({**stored, **own}, disk_budget)


def parse(tables: Mapping[str, Any], disk_budget: int | None = None) -> Wanted:
    """Raises ``InvalidArgument`` naming the setting that is not one, or out of its range."""
    for name in tables:
        _known(name, name, (*_TABLES, *_PLAIN))
    parts = {name: _table(tables, name) for name in _TABLES}
    budget = parts["budget"].get("disk", disk_budget)
    if budget is not None:
        budget = parse_bytes(budget, "policy.budget.disk")
    found: list[policies.Policy] = [policies.Expired(), policies.Pinned()]
    asked: list[policies.Policy] = []
    if parts["superseded"]:
        asked.append(_superseded(parts["superseded"]))
    if parts["duplicates"]:
        asked.append(_duplicates(parts["duplicates"]))
    if budget is not None:
        asked.append(policies.Budget(budget))
    if parts["decay"]:
        asked.append(_decay(parts["decay"]))
    return Wanted((*found, *asked), _options(tables, parts["classes"]), budget, bool(asked))


def _known(name: str, path: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise InvalidArgument(
            f"there is no policy setting {path:.64}",
            field=f"policy.{path:.64}",
            hint=f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}",
        )


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name, {})
    if not isinstance(found, Mapping):
        raise InvalidArgument(f"{name} must be a table", field=f"policy.{name}")
    for key in found:
        _known(key, f"{name}.{key}", _TABLES[name])
    return found


def _number(table: Mapping[str, Any], path: str, least: float, most: float) -> float | None:
    given = table.get(path.rpartition(".")[2])
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most:
        raise InvalidArgument(
            f"{path} must be a number in {least:g} ... {most:g}", field=f"policy.{path}"
        )
    return float(given)


def _choice(table: Mapping[str, Any], path: str, choices: Sequence[str], default: str) -> str:
    given = table.get(path.rpartition(".")[2], default)
    if given not in choices:
        raise InvalidArgument(f"{path} must be one of {', '.join(choices)}", field=f"policy.{path}")
    return str(given)


def _superseded(table: Mapping[str, Any]) -> policies.Policy:
    versions = _number(table, "superseded.keep_versions", 0, 1_000_000)
    return policies.Superseded(
        None if versions is None else int(versions),
        _number(table, "superseded.keep_days", 0, 1_000_000),
    )


def _duplicates(table: Mapping[str, Any]) -> policies.Policy:
    exact = table.get("exact", True)
    if not isinstance(exact, bool):
        raise InvalidArgument(
            "duplicates.exact must be true or false", field="policy.duplicates.exact"
        )
    return policies.Duplicates(exact, _number(table, "duplicates.near", 0.5, 1.0))


def _decay(table: Mapping[str, Any]) -> policies.Policy:
    below = _number(table, "decay.below", 0.0, 1.0)
    if below is None:
        raise InvalidArgument("decay needs below", field="policy.decay.below")
    kinds = table.get("kinds")
    if kinds is not None and (
        not isinstance(kinds, list | tuple) or not all(isinstance(kind, str) for kind in kinds)
    ):
        raise InvalidArgument("decay.kinds must be a list of kinds", field="policy.decay.kinds")
    action = _choice(table, "decay.action", ("archive", "forget"), "archive")
    return policies.Decay(below, cast(Any, action), None if kinds is None else tuple(kinds))


def _options(tables: Mapping[str, Any], classes: Mapping[str, Any]) -> Options:
    floor = _number(tables, "floor", 0.0, 1.0)
    days: dict[str, float | None] = dict(value.CLASS_DAYS)
    for name, given in classes.items():
        days[name] = None
        if given is not False:
            days[name] = _number(classes, f"classes.{name}", 0.01, value.STRENGTH_MAX_DAYS)
    return Options(
        curve=cast(value.Curve, _choice(tables, "curve", value.CURVES, "exponential")),
        floor=value.FLOOR if floor is None else floor,
        active_days=_choice(tables, "clock", CLOCKS, "calendar") == "active",
        classes=days,
    )
