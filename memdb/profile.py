"""``db.profile``: facts as key and value, with their history.

A face on records of kind ``profile``: one live value at a time per (namespace, subject, key). A
read is a key look-up and no search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from memdb import facts, validate
from memdb.errors import InvalidArgument, NotFound
from memdb.storage import lookups
from memdb.storage.store import Reader
from memdb.types import Memory, Written
from memdb.validate import TimeLike

if TYPE_CHECKING:
    from memdb.database import Database

DEFAULT_SUBJECT = "user"


class Profile:
    """Facts about a subject; ``subject="user"`` is the person whose memory it is."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def set(
        self,
        /,
        key: str,
        value: Any,
        *,
        subject: str = DEFAULT_SUBJECT,
        valid_from: TimeLike | None = None,
        valid_to: TimeLike | None = None,
        source: str | None = None,
        namespace: str | None = None,
        **fields: Any,
    ) -> Written:
        """Make ``value`` the fact's value from ``valid_from`` (now) on; the old one stays, closed.

        A value that begins exactly when a stored one began corrects it, as a version of the same
        memory. One that is over (``valid_to``) before the value it interrupts gives way to that
        again. Further ``fields`` are those of ``remember``. Raises ``InvalidArgument``.
        """
        if value is None:
            raise InvalidArgument(
                "value must not be None", field="value", hint="profile.delete ends a fact"
            )
        return self._db.remember(
            data=value,
            kind="profile",
            subject=subject,
            key=key,
            valid_from=valid_from,
            valid_to=valid_to,
            source=source,
            namespace=namespace,
            **fields,
        )

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

    def fact(
        self,
        key: str,
        *,
        subject: str = DEFAULT_SUBJECT,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
    ) -> Memory | None:
        """The memory behind ``get``: the value with its source, validity and time of record."""
        engine = self._db._engine
        where = self._db._one_namespace(namespace)
        moment = engine.now() if as_of is None else validate.instant_of(as_of, "as_of", engine.zone)
        with engine.store.read() as txn:
            fact_key = lookups.profile_key(txn, where, subject, key)
            timeline = lookups.timeline(txn, fact_key)
            live = engine.live(txn)
            for row in reversed(timeline):
                if row not in live:  # a grant does not show it
                    continue
                memory = engine.records.get(txn, row)
                if memory is None or facts.began(memory) > moment:
                    continue
                if memory.valid_to is not None and memory.valid_to <= moment:
                    return None
                if memory.expires_at is not None and facts.expired(memory, engine.now()):
                    return None
                return memory
        return None

    def __getitem__(self, key: str) -> Any:
        memory = self.fact(key)
        if memory is None:
            raise NotFound(f"the profile has no {key!s:.64}")
        return value_of(memory)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.fact(key) is not None

    def delete(
        self, key: str, *, subject: str = DEFAULT_SUBJECT, namespace: str | None = None
    ) -> Memory:
        """End the fact now: it has no value from here on, and keeps its history.

        Raises ``NotFound`` when it has no value. (``forget`` hides values, history included.)
        """
        memory = self.fact(key, subject=subject, namespace=namespace)
        if memory is None:
            raise NotFound(f"the profile has no {key!s:.64}")
        return self._db.update(memory.id, valid_to=self._db._engine.now()).memory

    def versions(
        self, key: str, *, subject: str = DEFAULT_SUBJECT, namespace: str | None = None
    ) -> list[Memory]:
        """Every value the fact has had, oldest first, but for expired ones."""
        engine = self._db._engine
        where = self._db._one_namespace(namespace)
        with engine.store.read() as txn:
            timeline = lookups.timeline(txn, lookups.profile_key(txn, where, subject, key))
            live = engine.live(txn)
            found = engine.records.iterate(txn, [row for row in timeline if row in live])
            now = engine.now()
            return [memory for _, memory in found if not facts.expired(memory, now)]

    def items(
        self, subject: str | None = DEFAULT_SUBJECT, *, namespace: str | None = None
    ) -> dict[str, Any]:
        """The values true now of one subject; of all subjects when ``subject`` is None.

        With ``subject=None`` the keys are ``"subject.key"``.
        """
        return self._by_name(self._current(subject, namespace), subject)

    @staticmethod
    def _by_name(memories: Iterable[Memory], subject: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for memory in memories:
            name = memory.key or ""
            found[name if subject is not None else f"{memory.subject}.{name}"] = value_of(memory)
        return dict(sorted(found.items()))

    def _current(self, subject: str | None, namespace: str | None) -> Iterator[Memory]:
        engine, reader = self._db._engine, self._db._reader
        where: dict[str, Any] = {"key": {"$exists": True}}
        if subject is not None:
            where["subject"] = subject
        condition = reader.compile(where)
        with engine.store.read() as txn:
            rows = self._rows(txn, condition, namespace)
            yield from (memory for _, memory in engine.records.iterate(txn, rows))

    def _rows(self, txn: Reader, condition: Any, namespace: str | None) -> list[int]:
        engine = self._db._engine
        scope = self._db._read_namespace(namespace)
        return list(self._db._reader.select(txn, scope, condition, valid_at=engine.now()))


def value_of(memory: Memory) -> Any:
    """A fact's value: its data, or its text when it was written as text alone."""
    return memory.text if memory.data is None else memory.data
