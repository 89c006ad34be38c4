"""What somebody may do and see: ``Grant``, and ``Principal``, who has one.

A grant is a value: frozen, checked when it is made, kept in the database as a mapping. It compiles
to one filter, which decides what is seen. What it does not name is refused: no action that is not
listed, no memory that ``where`` does not select, none that ``deny`` selects whatever ``where``
says, none of a higher sensitivity. It knows no rows and no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final

import msgspec

from memdb import settings, validate
from memdb.errors import FilterError, InvalidArgument, PermissionDenied
from memdb.query import filters
from memdb.query.filters.ast import all_of, negated

ACTIONS: Final = (
    "read",
    "add",
    "update",
    "forget",
    "feedback",
    "sync",
    "report",
    "erase",
    "retention",
    "export",
    "audit",
    "admin",
)
DEFAULT_ACTIONS: Final = ("read", "add")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal may do and see; by default read and add in its own namespace.

    ``actions``: of read, add, update, forget, feedback, sync, report, erase, retention, export,
    audit and admin; an empty list is none. ``where``: the filter of what is seen; None: its own
    namespace and what is under it. ``deny``: a filter of what is not, which wins. ``namespace``:
    the one it writes to, by default its name; it forgets and erases there and under it.
    ``source``: what is recorded on all it writes, by default ``agent:<name>``. ``sensitivity``: the
    highest label it may see and give (public, personal, private, secret); None: only what bears
    none. ``purposes``: those it may name, one of which it then must; None: any or none; an empty
    list refuses everything. ``rate_per_minute``: calls; a server keeps to it. ``expires_at``: when
    it ends.

    ``retention``, ``audit`` and ``admin`` are about the whole database, whatever ``where`` says.

    Raises ``InvalidArgument``, ``FilterError`` for a filter that does not compile.
    """

    actions: Sequence[str] = DEFAULT_ACTIONS
    where: Mapping[str, Any] | None = None
    deny: Mapping[str, Any] | None = None
    namespace: str | None = None
    source: str | None = None
    sensitivity: str | None = None
    purposes: Sequence[str] | None = None
    rate_per_minute: int | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        given = self.actions
        if isinstance(given, str) or not set(given) <= set(ACTIONS):
            raise InvalidArgument(f"actions are of {', '.join(ACTIONS)}", field="actions")
        chosen = set(given)
        _set(self, "actions", tuple(one for one in ACTIONS if one in chosen))
        for name in ("where", "deny"):
            value = getattr(self, name)
            if value is not None and not value:
                raise InvalidArgument(
                    f"{name} must not be empty: it would select everything",
                    field=name,
                    hint='everything is {"namespace": {"$exists": true}}',
                )
            _set(self, name, deepcopy(value))
        if self.namespace is not None and not validate.namespace(self.namespace):
            raise InvalidArgument("namespace must name one namespace", field="namespace")
        validate.optional_string(self.source, "source")
        if self.sensitivity is not None and self.sensitivity not in settings.SENSITIVITIES:
            known = ", ".join(settings.SENSITIVITIES)
            raise InvalidArgument(f"sensitivity is one of {known}", field="sensitivity")
        if self.purposes is not None:
            _set(self, "purposes", validate.names(self.purposes, "purposes"))
        if self.rate_per_minute is not None:
            validate.integer(self.rate_per_minute, "rate_per_minute", 1, 1_000_000)
        if self.expires_at is not None:
            if not isinstance(self.expires_at, datetime) or self.expires_at.tzinfo is None:
                raise InvalidArgument("expires_at needs a zone", field="expires_at")
            _set(self, "expires_at", self.expires_at.astimezone(UTC))
        self.compiled("any", UTC)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> bytes:
        """Bytes that are equal for equal grants."""
        return msgspec.msgpack.encode(self.to_dict(), order="deterministic")

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from an empty grant, as JSON knows them."""
        found: dict[str, Any] = {"actions": list(self.actions)}
        for name in ("where", "deny", "namespace", "source", "sensitivity", "rate_per_minute"):
            value = getattr(self, name)
            if value is not None:
                found[name] = dict(value) if isinstance(value, Mapping) else value
        if self.purposes is not None:
            found["purposes"] = list(self.purposes)
        if self.expires_at is not None:
            found["expires_at"] = self.expires_at.isoformat()
        return found

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Grant:
        """The grant that ``to_dict`` gave. Raises ``InvalidArgument`` for a field it does not
        know."""
        if not isinstance(fields, Mapping):
            raise InvalidArgument("a grant is a mapping of its fields", field="grant")
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown:
            name = min(map(str, unknown))
            raise InvalidArgument(f"a grant has no field {name:.64}", field="grant")
        given = dict(fields)
        if isinstance(given.get("expires_at"), str):
            given["expires_at"] = validate.instant_of(given["expires_at"], "expires_at", UTC)
        return cls(**given)

    def compiled(self, own: str, zone: tzinfo) -> filters.Filter:
        """The one filter of what is seen, for a principal whose own namespace is ``own``.

        Raises ``FilterError``; then nothing is seen.
        """
        where = self.where
        if where is None:
            where = {"$or": [{"namespace": own}, {"namespace": {"$prefix": f"{own}/"}}]}
        parts = [filters.parse(where, zone=zone)]
        if self.deny is not None:
            parts.append(negated(filters.parse(self.deny, zone=zone)))
        unmarked: dict[str, Any] = {"sensitivity": {"$exists": False}}
        allowed = list(self.labels)
        ceiling = {"$or": [unmarked, {"sensitivity": {"$in": allowed}}]} if allowed else unmarked
        parts.append(filters.parse(ceiling, zone=zone))
        return all_of(parts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of sensitivity that it may see and give."""
        if self.sensitivity is None:
            return ()
        order = settings.SENSITIVITIES
        return order[: order.index(self.sensitivity) + 1]


def _set(grant: Grant, name: str, value: Any) -> None:
    object.__setattr__(grant, name, value)


NOTHING: Final = Grant(actions=())
"""What a token has whose grant cannot be read: no action at all."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who acts on a database: the owner, or an agent with a grant.

    ``token_id``: of the token it is known by; None where the program itself says who it is.
    """

    name: str
    grant: Grant = Grant()
    owner: bool = False
    token_id: str | None = None

    def __post_init__(self) -> None:
        validate.string(self.name, "name", 128)

    @property
    def namespace(self) -> str:
        """The one it writes to."""
        return self.grant.namespace or own_namespace(self.name)

    @property
    def source(self) -> str:
        """What is recorded as the source of what it writes."""
        return self.grant.source or f"agent:{self.name}"

    @property
    def rule(self) -> str:
        """By what it may act, for the audit."""
        who = "owner" if self.owner else "grant"
        return who if self.token_id is None else f"{who} of token {self.token_id}"

    def require(self, action: str, purpose: str | None, now: datetime) -> None:
        """Raise ``PermissionDenied`` unless the action is allowed now, for that purpose."""
        if self.owner:
            return
        grant = self.grant
        if grant.expires_at is not None and grant.expires_at <= now:
            raise PermissionDenied("the grant has expired", hint="ask the owner for a new one")
        if grant.purposes is not None and purpose not in grant.purposes:
            raise PermissionDenied(
                "the grant is for other purposes", hint="name one of those it is for as purpose"
            )
        if action not in grant.actions:
            raise PermissionDenied(
                f"the grant does not allow {action}", hint="ask the owner for a wider grant"
            )

    def sees(self, zone: tzinfo) -> filters.Filter:
        """What it may see. Raises ``PermissionDenied`` where the grant's filter does not compile:
        it refuses everything."""
        try:
            return self.grant.compiled(self.namespace, zone)
        except FilterError as error:
            raise PermissionDenied(
                "the grant's filter does not compile", hint="ask the owner for a new grant"
            ) from error


@lru_cache(256)
def own_namespace(name: str) -> str:
    """The namespace that is a name's own; what a namespace cannot hold is percent-encoded."""
    kept = (c.isprintable() and not c.isspace() and c not in "%/" for c in name)
    safe = "".join(c if keep else f"%{ord(c):02X}" for c, keep in zip(name, kept, strict=True))
    return validate.namespace(safe)
