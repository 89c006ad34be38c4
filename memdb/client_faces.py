"""The faces of a ``Client``: profile, history, files, spaces, settings, retention, tokens,
audit; and receipts.

Each verb is one request; what it means is in the class of the library that has the same verbs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

import msgspec

from memdb import client_wire as wire
from memdb.client_wire import Wire, segment
from memdb.errors import InvalidArgument, NotFound, ServerUnavailable
from memdb.types import FileStatus, Memory, Space, SyncReport, Written

if TYPE_CHECKING:
    from memdb.access.auditing import AuditPage, AuditVerdict
    from memdb.access.grant import Grant
    from memdb.access.tokens import NewToken, TokenInfo
    from memdb.retention.applying import Applied
    from memdb.retention.planning import Plan
    from memdb.validate import TimeLike

_POLL_S = 0.05
_A_PAGE = 1_000
_SUBJECT = "user"


class ClientProfile:
    """``db.profile`` of a server."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def set(self, key: str, value: Any, *, subject: str = _SUBJECT, **fields: Any) -> Written:
        """``Profile.set``: the fact's value from ``valid_from`` (now) on."""
        if value is None:
            raise InvalidArgument(
                "value must not be None", field="value", hint="profile.delete ends a fact"
            )
        given = {name: one for name, one in fields.items() if one is not None}
        body = {"value": value, **given, "full": True}
        return wire.written(self._wire.ask("PUT", _fact(subject, key), body, writes=True))

    def fact(
        self,
        key: str,
        *,
        subject: str = _SUBJECT,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
    ) -> Memory | None:
        """``Profile.fact``: the memory behind the value, or None."""
        query = {"as_of": as_of, "namespace": namespace}
        try:
            return wire.memory(self._wire.ask("GET", _fact(subject, key), query=query)["memory"])
        except NotFound:
            return None

    def get(self, key: str, *, default: Any = None, **named: Any) -> Any:
        """``Profile.get``: the value, or ``default``."""
        memory = self.fact(key, **named)
        if memory is None:
            return default
        return memory.text if memory.data is None else memory.data

    def __getitem__(self, key: str) -> Any:
        memory = self.fact(key)
        if memory is None:
            raise NotFound(f"the profile has no {key!s:.64}")
        return memory.text if memory.data is None else memory.data

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.fact(key) is not None

    def delete(self, key: str, *, subject: str = _SUBJECT, namespace: str | None = None) -> Memory:
        """``Profile.delete``: end the fact."""
        query = {"namespace": namespace}
        done = self._wire.ask("DELETE", _fact(subject, key), query=query, writes=True)
        return wire.memory(done["memory"])

    def versions(
        self, key: str, *, subject: str = _SUBJECT, namespace: str | None = None
    ) -> list[Memory]:
        """``Profile.versions``: every value it has had."""
        path = _fact(subject, key) + "/versions"
        return wire.memories(self._wire.ask("GET", path, query={"namespace": namespace})["items"])

    def items(
        self, subject: str | None = _SUBJECT, *, namespace: str | None = None
    ) -> dict[str, Any]:
        """``Profile.items``: what is true now."""
        path = "/v1/profile" if subject is None else f"/v1/profile/{segment(subject)}"
        found: dict[str, Any] = self._wire.ask("GET", path, query={"namespace": namespace})["items"]
        return found


def _fact(subject: str, key: str) -> str:
    return f"/v1/profile/{segment(subject)}/{segment(key)}"


class ClientHistory:
    """``db.history`` of a server."""

    def __init__(self, connection: Wire, remember: Callable[..., Written]) -> None:
        self._wire = connection
        self._remember = remember

    def append(
        self,
        kind: str,
        text: str | None = None,
        *,
        data: Any = None,
        event_time: TimeLike | None = None,
        stream: str | None = None,
        source: str | None = None,
        namespace: str | None = None,
        **fields: Any,
    ) -> Written:
        """``History.append``: record that something happened."""
        place = {"stream": stream, "source": source, "namespace": namespace}
        if fields:
            when = datetime.now(UTC) if event_time is None else event_time
            return self._remember(text, kind=kind, data=data, event_time=when, **place, **fields)
        body = {"kind": kind, "text": text, "data": data, "event_time": event_time, **place}
        done = self._wire.ask("POST", "/v1/history", {**body, "full": True}, writes=True)
        return wire.written(done["item"])

    def append_many(
        self,
        kind: str,
        samples: Iterable[tuple[TimeLike, Any]],
        *,
        stream: str | None = None,
        source: str | None = None,
        namespace: str | None = None,
        batch: int = 8192,
    ) -> int:
        """``History.append_many``: samples of one series; how many."""
        count = 0
        iterator = iter(samples)
        while some := list(islice(iterator, batch)):
            body = {"kind": kind, "samples": some, "stream": stream, "source": source}
            body["namespace"] = namespace
            count += self._wire.ask("POST", "/v1/history", body, writes=True)["count"]
        return count

    def range(
        self,
        kind: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        stream: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        namespace: str | None = None,
    ) -> Iterator[Memory]:
        """``History.range``: in order of time, page by page."""
        query = {
            "kind": kind,
            "start": start,
            "end": end,
            "stream": stream,
            "where": where,
            "reverse": reverse,
            "namespace": namespace,
        }
        left = limit
        cursor = None
        while left is None or left > 0:
            size = _A_PAGE if left is None else min(_A_PAGE, left)
            asked = {**query, "limit": size, "cursor": cursor}
            page = wire.page(self._wire.ask("GET", "/v1/history", query=asked))
            yield from page
            cursor = page.next_cursor
            if cursor is None:
                return
            left = None if left is None else left - len(page)


class ClientFiles:
    """``db.files`` of a server, which reads its own disk."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def sync(
        self,
        path: str | PathLike[str],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        *,
        allow_empty: bool = False,
    ) -> SyncReport:
        """``Files.sync``, of a folder that the server may read."""
        body = {
            "path": fspath(path),
            "include": include,
            "exclude": exclude,
            "allow_empty": allow_empty,
        }
        done = self._wire.ask("POST", "/v1/files/sync", body, writes=True)
        return msgspec.convert(done["report"], SyncReport)

    def status(self, path: str | PathLike[str] | None = None) -> list[FileStatus]:
        """``Files.status``: every file with its state."""
        query = {"path": None if path is None else fspath(path)}
        found = self._wire.ask("GET", "/v1/files", query=query)["items"]
        return msgspec.convert(found, list[FileStatus])


class ClientSpaces:
    """``db.spaces`` of a server: what there are."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def list(self) -> list[Space]:
        """``Spaces.list``."""
        return msgspec.convert(self._wire.ask("GET", "/v1/spaces")["items"], list[Space])


class ClientSettings:
    """``db.settings`` of a server, to read."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name."""
        found: dict[str, Any] = self._wire.ask("GET", "/v1/settings")["settings"]
        return found

    @property
    def time_zone(self) -> str:
        """The zone in which times without an offset are read."""
        return str(self.to_dict()["time_zone"])


class ClientRetention:
    """``db.retention`` of a server."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def plan(
        self,
        policy: Mapping[str, Any] | None = None,
        disk_budget: int | str | None = None,
        now: TimeLike | None = None,
    ) -> Plan:
        """``Retention.plan``; a policy is a mapping of settings."""
        from memdb.retention.planning import Plan

        body = {"policy": policy, "disk_budget": disk_budget, "now": now}
        return Plan.from_dict(self._wire.ask("POST", "/v1/retention/plan", body)["plan"])

    def apply(self, plan: Plan | Mapping[str, Any], *, changed: str = "error") -> Applied:
        """``Retention.apply``."""
        from memdb.retention.applying import Applied
        from memdb.retention.planning import Plan

        given = plan.to_dict() if isinstance(plan, Plan) else plan
        body = {"plan": given, "changed": changed}
        done = self._wire.ask("POST", "/v1/retention/apply", body, writes=True)
        return msgspec.convert(done["applied"], Applied)

    def undo(self, batch: str) -> list[str]:
        """``Retention.undo``."""
        body = {"batch": batch}
        return list(self._wire.ask("POST", "/v1/retention/undo", body, writes=True)["ids"])

    def status(self) -> dict[str, Any]:
        """``Retention.status``."""
        found: dict[str, Any] = self._wire.ask("GET", "/v1/retention")["status"]
        return found


class ClientTokens:
    """``db.tokens`` of a server."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def create(
        self, name: str, grant: Grant | None = None, *, owner: bool = False, expires_in: Any = None
    ) -> NewToken:
        """``Tokens.create``: the secret is in the result and nowhere else."""
        from memdb.access.tokens import NewToken

        given = None if grant is None else grant.to_dict()
        body = {"name": name, "grant": given, "owner": owner, "expires_in": expires_in}
        return NewToken(**self._wire.ask("POST", "/v1/tokens", body))

    def list(self) -> list[TokenInfo]:
        """``Tokens.list``: every token, revoked and expired ones too."""
        return [_token(one) for one in self._wire.ask("GET", "/v1/tokens")["items"]]

    def revoke(self, name: str) -> TokenInfo:
        """``Tokens.revoke``: end a token for good."""
        return _token(self._wire.ask("DELETE", f"/v1/tokens/{segment(name)}"))

    def pause(self, name: str) -> TokenInfo:
        """``Tokens.pause``: refuse a token until it is resumed."""
        return _token(self._wire.ask("POST", f"/v1/tokens/{segment(name)}/pause"))

    def resume(self, name: str) -> TokenInfo:
        """``Tokens.resume``: accept a paused token again."""
        return _token(self._wire.ask("POST", f"/v1/tokens/{segment(name)}/resume"))


def _token(given: Mapping[str, Any]) -> TokenInfo:
    from memdb.access.grant import Grant
    from memdb.access.tokens import TokenInfo

    times = ("created_at", "expires_at", "revoked_at", "last_used")
    moments = {name: msgspec.convert(given[name], datetime | None) for name in times}
    return TokenInfo(**{**given, **moments, "grant": Grant.from_dict(given["grant"])})


class ClientAudit:
    """``db.audit`` of a server."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection

    def rows(self, **asked: Any) -> AuditPage:
        """``Audit.rows``: the latest first; parameters as there."""
        from memdb.access.auditing import AuditPage, AuditRow

        found = self._wire.ask("GET", "/v1/audit", query=asked)
        return AuditPage(
            tuple(msgspec.convert(one, AuditRow) for one in found["items"]), found["next_cursor"]
        )

    def verify(self) -> AuditVerdict:
        """``Audit.verify``: whether anybody changed what is written."""
        from memdb.access.auditing import AuditVerdict

        found = self._wire.ask("GET", "/v1/audit/verify")["verdict"]
        return msgspec.convert(found, AuditVerdict)


class ClientReceipt:
    """``Receipt`` of a server's erasure: the same properties, asked again until it is scrubbed."""

    __slots__ = ("_fields", "_wire")

    def __init__(self, connection: Wire, fields: Mapping[str, Any]) -> None:
        self._wire = connection
        self._fields = fields

    @property
    def id(self) -> str:
        return str(self._fields["id"])

    @property
    def state(self) -> str:
        return str(self._last()["state"])

    @property
    def erased_at(self) -> datetime:
        return msgspec.convert(self._fields["erased_at"], datetime)

    @property
    def scrubbed_at(self) -> datetime | None:
        return msgspec.convert(self._last()["scrubbed_at"], datetime | None)

    @property
    def counts(self) -> Mapping[str, int]:
        found: dict[str, int] = self._fields["counts"]
        return found

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        return tuple(self._last()["out_of_reach"])

    @property
    def previous(self) -> str:
        return str(self._fields["previous"])

    @property
    def hash(self) -> str:
        return str(self._last()["hash"])

    def wait(self, timeout: float = 60.0) -> Self:
        """Return once it is scrubbed; ``ServerUnavailable`` after ``timeout`` seconds."""
        stop = time.monotonic() + timeout
        while self.state != "scrubbed":
            if time.monotonic() > stop:
                raise ServerUnavailable(
                    "the erasure has not finished", hint="it goes on; ask again later"
                )
            time.sleep(_POLL_S)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Every property by name."""
        names = (
            *("id", "state", "erased_at", "scrubbed_at", "counts", "out_of_reach"),
            *("previous", "hash"),
        )
        return {name: getattr(self, name) for name in names}

    def _last(self) -> Mapping[str, Any]:
        if self._fields["state"] != "scrubbed":
            self._fields = self._wire.ask("GET", f"/v1/receipts/{segment(self.id)}")
        return self._fields
