"""The faces of an ``Acting``: profile, history, files, spaces, retention, settings, tokens, audit.

Each has the verbs of the face it stands for, by their names and parameters; what they need is
beside them in one list. Values of a fact are told by the memory they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from memdb.access.auditing import Audit, Told
from memdb.access.calls import ASKED, Verb, verb
from memdb.access.tokens import Tokens
from memdb.errors import InvalidArgument, NotFound
from memdb.files import Files
from memdb.history import History, arrow_table
from memdb.profile import DEFAULT_SUBJECT, Profile, value_of
from memdb.retention.face import Retention
from memdb.space_sample import SpaceSample
from memdb.spaces import Spaces
from memdb.types import Memory
from memdb.validate import TimeLike

if TYPE_CHECKING:
    import pyarrow

    from memdb.access.acting import Acting

_NOTHING: frozenset[str] = frozenset()


def _of_sample(sample: SpaceSample) -> Told:
    return Told([one.id for one in sample.memories])


class _Face:
    """One face; ``of`` is its name on a database."""

    of: ClassVar[str]

    def __init__(self, acting: Acting) -> None:
        self._acting = acting

    def _perform(
        self,
        verb: Verb,
        call: Callable[[Any], Any],
        asked: Mapping[str, Any],
        query: object = None,
        also: str | None = None,
    ) -> Any:
        of = self.of
        return self._acting._perform(
            verb, lambda handle: call(getattr(handle, of)), asked, query, also
        )


class ActingProfile(_Face):
    """Facts, as a principal has them."""

    of = "profile"
    set = verb("add", Profile.set, brings=True, asked=_NOTHING)
    fact = verb("read", Profile.fact)
    versions = verb("read", Profile.versions)
    delete = verb("update", Profile.delete, asked=_NOTHING)

    def get(
        self,
        key: str,
        *,
        subject: str = DEFAULT_SUBJECT,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
        default: Any = None,
    ) -> Any:
        """The value that is true now, or was at ``as_of``; ``default`` when there is none."""
        memory = self.fact(key, subject=subject, as_of=as_of, namespace=namespace)
        return default if memory is None else value_of(memory)

    def items(
        self, subject: str | None = DEFAULT_SUBJECT, *, namespace: str | None = None
    ) -> dict[str, Any]:
        """The values true now of one subject; of all subjects when ``subject`` is None."""
        found: list[Memory] = self._perform(
            Verb("profile.items", "read"),
            lambda profile: list(profile._current(subject, namespace)),
            {"subject": subject, "namespace": namespace},
        )
        return Profile._by_name(found, subject)

    def __getitem__(self, key: str) -> Any:
        memory = self.fact(key)
        if memory is None:
            raise NotFound(f"the profile has no {key!s:.64}")
        return value_of(memory)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.fact(key) is not None


class ActingHistory(_Face):
    """What happened, as a principal has it."""

    of = "history"
    append = verb("add", History.append, brings=True, asked=_NOTHING)
    append_many = verb("add", History.append_many, brings=True, asked=_NOTHING)

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
        """Memories with start <= event_time < end, in order of time (or reversed)."""
        asked = {"kind": kind, "start": start, "end": end, "stream": stream, "where": where}
        return self._acting._iterate(
            Verb("history.range", "read"),
            lambda handle: handle.history.range(
                kind,
                start,
                end,
                stream=stream,
                where=where,
                limit=limit,
                reverse=reverse,
                namespace=namespace,
            ),
            {**asked, "namespace": namespace},
        )

    def to_arrow(
        self,
        kind: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        stream: str | None = None,
        where: Mapping[str, Any] | None = None,
        namespace: str | None = None,
    ) -> pyarrow.Table:
        """The same range as a table; see ``History.to_arrow``."""
        found = self.range(kind, start, end, stream=stream, where=where, namespace=namespace)
        return arrow_table(found)


class ActingFiles(_Face):
    """Folders of documents, as a principal has them."""

    of = "files"
    sync = verb("sync", Files.sync, brings=True)
    status = verb("sync", Files.status)


class ActingSpaces(_Face):
    """Embedding spaces, as a principal has them."""

    of = "spaces"
    list = verb("read", Spaces.list)
    sample = verb("read", Spaces.sample, tell=_of_sample)
    create = verb("admin", Spaces.create, whole=True)
    drop = verb("admin", Spaces.drop, whole=True)
    convert = verb("admin", Spaces.convert, whole=True)


class ActingRetention(_Face):
    """What to forget in the whole database."""

    of = "retention"
    plan = verb("retention", Retention.plan, whole=True)
    apply = verb("retention", Retention.apply, whole=True, asked=_NOTHING)
    undo = verb("retention", Retention.undo, whole=True)
    status = verb("retention", Retention.status, whole=True)


class ActingTokens(_Face):
    """Who may act."""

    of = "tokens"
    create = verb("admin", Tokens.create, whole=True)
    list = verb("admin", Tokens.list, whole=True)
    revoke = verb("admin", Tokens.revoke, whole=True)
    pause = verb("admin", Tokens.pause, whole=True)
    resume = verb("admin", Tokens.resume, whole=True)


class ActingAudit(_Face):
    """What was done."""

    of = "audit"
    rows = verb("audit", Audit.rows, whole=True, asked=ASKED | {"principal", "since", "before"})
    verify = verb("audit", Audit.verify, whole=True)


class ActingSettings:
    """What the owner set; reading and changing it is for who may administer.

    The time zone is everybody's to read: times are written in it.
    """

    __slots__ = ("_acting",)

    def __init__(self, acting: Acting) -> None:
        object.__setattr__(self, "_acting", acting)

    @property
    def time_zone(self) -> str:
        """The zone in which times without an offset are read."""
        return str(self._do(Verb("settings.get", "read"), lambda one: one.time_zone, "time_zone"))

    def to_dict(self) -> dict[str, object]:
        """Every setting by name."""
        verb = Verb("settings.to_dict", "admin", whole=True)
        found: dict[str, object] = self._do(verb, lambda one: one.to_dict(), "*")
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        verb = Verb("settings.get", "admin", whole=True)
        return self._do(verb, lambda one: getattr(one, name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        verb = Verb("settings.set", "admin", whole=True)
        self._do(verb, lambda one: _set(one, name, value), name)

    def _do(self, verb: Verb, call: Callable[[Any], Any], name: str) -> Any:
        return self._acting._perform(verb, lambda handle: call(handle.settings), {"field": name})


def _set(settings: Any, name: str, value: Any) -> None:
    if name not in settings.to_dict():
        raise InvalidArgument(f"there is no setting {name!s:.64}", field="name")
    setattr(settings, name, value)
