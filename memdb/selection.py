"""The one selector that ``forget``, ``report`` and ``erase`` share: by id, filter or person.

A selector becomes a function of a transaction, so that the rows it names are those of the very
transaction that acts on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pyroaring import BitMap

from memdb import validate
from memdb.errors import InvalidArgument
from memdb.query import filters
from memdb.reader import MemoryReader, is_sample
from memdb.storage import lookups
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory


class Selected(NamedTuple):
    """What a selector names: rows, and samples, which have no rows and are named by id alone."""

    rows: BitMap
    samples: list[Memory]


Select = Callable[[Reader | Writer], Selected]


def selector(
    reader: MemoryReader,
    namespace: str,
    *,
    ids: str | Sequence[str] | None,
    where: Mapping[str, Any] | None,
    about: str | None,
    hidden: bool = False,
) -> Select:
    """What is visible of what is named; several parts narrow each other.

    ``hidden``: what is in the trash or has expired is found as well.

    Raises ``InvalidArgument`` when nothing is named, or when ``where`` names everything.
    """
    if ids is None and where is None and about is None:
        raise InvalidArgument("name ids, where or about", field="ids")
    if where is not None and not where:
        raise InvalidArgument(
            "an empty filter would select everything", field="where", hint="say what you mean"
        )
    raw, sampled = None, []
    if ids is not None:
        listed = [ids] if isinstance(ids, str) else list(ids)
        raw = sorted({require_id(one, "ids") for one in listed if not is_sample(one)})
        sampled = list(dict.fromkeys(one for one in listed if is_sample(one)))
    condition = reader.compile(where)
    person = None if about is None else reader.compile(about_filter(about))

    look = reader.known if hidden else reader.select

    def select(txn: Reader | Writer) -> Selected:
        if raw is None or raw:
            rows = look(txn, namespace, condition)
            if person is not None:
                rows = rows & look(txn, namespace, person)
            if raw is not None:
                rows = rows & BitMap(lookups.rows_of(txn, raw).values())
        else:
            rows = BitMap()
        samples = [
            memory
            for memory in reader.samples(txn, namespace, sampled, hidden=hidden).values()
            if all(filters.matches(one, memory) for one in (condition, person) if one is not None)
        ]
        return Selected(rows, samples)

    return select


def about_filter(person: str) -> dict[str, Any]:
    """What concerns a person or thing: subject of it, or about it."""
    name = validate.string(person, "about")
    return {"$or": [{"about": name}, {"subject": name}]}
