"""What the adapters share: a handle of their own, and names that another framework gives.

An adapter keeps its memories under a namespace of its own, so it opens its own handle on the
directory; handles of one process share one engine. This file knows no framework.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import memdb
from memdb import Conflict, Database, DimensionMismatch

Place = Database | str | os.PathLike[str]
_SPECIAL = re.compile(r"[%/\s]")


def own_handle(place: Place, namespace: str, source: str) -> Database:
    """A handle on the same directory, which writes to ``namespace`` and reads below it.

    Of a directory it takes the recorded embedder, like ``memdb.open``.
    """
    path = place.path if isinstance(place, Database) else place
    return memdb.open(path, namespace=namespace, source=source)


def joined(root: str, labels: Sequence[str]) -> str:
    """A namespace of memdb: labels below ``root``, whatever they contain."""
    return "/".join([root, *(_SPECIAL.sub(_escape, label) for label in labels)])


def _escape(found: re.Match[str]) -> str:
    return quote(found[0], safe="")


def parted(root: str, namespace: str) -> tuple[str, ...]:
    """The labels of a namespace that ``joined`` made."""
    below = namespace[len(root) + 1 :]
    return tuple(unquote(label) for label in below.split("/")) if below else ()


def on_metadata(where: Mapping[str, Any]) -> dict[str, Any]:
    """A filter over the keys of a document's metadata as one over memories."""
    found: dict[str, Any] = {}
    for name, value in where.items():
        if name in ("$and", "$or") and isinstance(value, Sequence):
            found[name] = [on_metadata(one) for one in value]
        elif name == "$not" and isinstance(value, Mapping):
            found[name] = on_metadata(value)
        else:
            found[f"metadata.{name}" if not name.startswith("$") else name] = value
    return found


def space_for(db: Database, name: str, dim: int) -> None:
    """Make the space if there is none. Raises ``DimensionMismatch`` if it has another length."""
    known = {space.name: space.dim for space in db.spaces.list()}
    if name not in known:
        try:
            db.spaces.create(name, dim=dim)
        except Conflict:  # another made it meanwhile
            return space_for(db, name, dim)
    elif known[name] != dim:
        raise DimensionMismatch(
            f"space {name} has {known[name]} dimensions, the embedding {dim}", field="embedding"
        )
    return None
