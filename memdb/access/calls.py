"""How a verb of the database becomes one that is checked and told: the wrapper, once for all.

``verb`` takes a method of ``Database`` or of a face of it and gives one of the same name and
parameters that asks the principal first and leaves a row in the audit before it returns. What a row
tells is taken from the arguments by their names, and from the result by its type. It knows no
single verb; ``acting`` and ``faces`` list them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import wraps
from inspect import signature
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from memdb.access.auditing import Told
from memdb.file_writer import Filed
from memdb.types import (
    Context,
    Feedback,
    FileStatus,
    Forgotten,
    Hits,
    Memory,
    Page,
    Report,
    SyncReport,
    Trashed,
    Written,
)

P = ParamSpec("P")
R = TypeVar("R")

FACES: Final = frozenset("Profile History Files Spaces Retention Tokens Audit".split())
CHUNK: Final = 256  # memories of an iteration that one row is of
# What is told of a call where it is there. A write's content is none of it, nor is an erasure's
# selector: it names what is to be forgotten.
ASKED: Final = frozenset(
    "where about key subject kind stream namespace start end as_of field batch path mode space"
    " radius name format".split()
)
UNTOLD: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Verb:
    """What is known of a verb before it is called.

    ``whole``: it is about the whole database, so that no filter limits it. ``brings``: it brings
    new memories. ``tell`` says what a row tells of its result, ``tell_written`` of what one of its
    transactions returned, and None where that is not what was asked for.
    """

    name: str
    action: str
    whole: bool = False
    brings: bool = False
    tell: Callable[[Any], Told] = lambda result: told_of(result)
    tell_written: Callable[[Any], Told | None] = lambda result: told_of_written(result)


class Performer(Protocol):
    """What carries out a call: checks, does, tells."""

    def _perform(
        self,
        verb: Verb,
        call: Callable[[Any], Any],
        asked: Mapping[str, Any],
        query: object = None,
        also: str | None = None,
    ) -> Any:
        """``also``: a second action that has to be allowed."""
        ...


def verb(
    action: str,
    method: Callable[Concatenate[Any, P], R],
    *,
    whole: bool = False,
    brings: bool = False,
    tell: Callable[[Any], Told] | None = None,
    tell_written: Callable[[Any], Told | None] | None = None,
    asked: frozenset[str] = ASKED,
    also: Callable[[Mapping[str, Any]], str | None] | None = None,
) -> Callable[Concatenate[Any, P], R]:
    """``method`` as an action of a principal. ``also``: a second action that some arguments
    need."""
    names = tuple(signature(method).parameters)[1:]
    known = Verb(
        called(method),
        action,
        whole,
        brings,
        told_of if tell is None else tell,
        told_of_written if tell_written is None else tell_written,
    )

    @wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        given = dict(zip(names, args, strict=False), **kwargs)
        shown = {one: given[one] for one in given.keys() & asked}
        result: R = self._perform(
            known,
            lambda target: method(target, *args, **kwargs),
            shown,
            given.get("query"),
            None if also is None else also(given),
        )
        return result

    return run


def called(method: Callable[..., Any]) -> str:
    """What a user calls a method below a database: ``recall``, ``profile.set``."""
    owner, _, name = method.__qualname__.rpartition(".")
    return f"{owner.lower()}.{name}" if owner in FACES else name


def told_of(result: Any) -> Told:
    """The ids and the number of what a verb returned."""
    if result is None:
        return Told()
    if isinstance(result, Memory | Written):
        return Told([result.id])
    if isinstance(result, Hits):
        return Told(ids_of_hits(result), len(result))
    if isinstance(result, Page):
        return Told([one.id for one in result.items])
    if isinstance(result, Context):
        return Told([one.id for one in (*result.items, *result.dropped)], len(result.items))
    if isinstance(result, Forgotten):
        return Told(result.ids)
    if isinstance(result, Feedback):
        return Told((*result.counted, *result.unchanged), len(result.counted))
    if isinstance(result, Report):
        parts = (result.items, result.derived, result.mentions, result.hidden)
        return Told([one.id for part in parts for one in part])
    if isinstance(result, SyncReport):
        return Told(count=len(result.added) + len(result.updated) + len(result.removed))
    if isinstance(result, bool | str) or is_dataclass(result):
        return Told(count=1)
    if isinstance(result, int):
        return Told(count=result)
    if isinstance(result, Mapping):
        return Told(count=len(result))
    if isinstance(result, Iterable):
        return _told_of_many(list(result))
    return Told(count=1)


def ids_of_hits(hits: Hits) -> list[str]:
    """Of the hits and of the earlier values that came with them."""
    return [one.id for hit in hits for one in (hit.memory, *hit.history)]


def _told_of_many(results: list[Any]) -> Told:
    ids: list[str] = []
    for one in results:
        if isinstance(one, Memory | Written):
            ids.append(one.id)
        elif isinstance(one, Trashed):
            ids += [memory.id for memory in one.items]
    if ids or not results or isinstance(results[0], Memory | Written | Trashed | type(None)):
        return Told(ids)
    return Told(count=sum(not isinstance(one, FileStatus) or one.chunks > 0 for one in results))


def told_of_written(result: Any) -> Told | None:
    """The same of what a transaction returned; None for one that wrote something else."""
    if isinstance(result, Written | Forgotten | Feedback):
        return told_of(result)
    if isinstance(result, Filed):
        return Told(result.ids) if result.ids else None
    if isinstance(result, list) and all(isinstance(one, Written) for one in result):
        return _told_of_many(result)
    if isinstance(result, list) and all(isinstance(one, str) for one in result):
        return Told(result)
    return None


def in_chunks(found: Iterator[Memory], tell: Callable[[Told], None]) -> Iterator[Memory]:
    """What an iteration gives, told a chunk at a time before the chunk is given."""
    while chunk := list(islice(found, CHUNK)):
        tell(Told([memory.id for memory in chunk]))
        yield from chunk
