"""Which space the vector of a memory to be written goes to, and where that vector comes from.

A text is embedded for the default space, and while another is about to take that one's place for
both; a vector that was brought goes where its draft says. Nothing here is in a transaction: what
was embedded says for which space, and ``rows`` refuses it where that is not the default one any
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memdb.embedded_text import embedded_text
from memdb.embedding import default_space
from memdb.engine import Engine
from memdb.errors import (
    Conflict,
    DimensionMismatch,
    EmbedderUnavailable,
    MissingDependency,
)
from memdb.rows import Placed
from memdb.storage import spaces
from memdb.storage.spaces import SpaceRecord
from memdb.types import Memory
from memdb.validate import Draft


def place(engine: Engine, drafts: Sequence[Draft], memories: Sequence[Memory]) -> list[Placed]:
    """The vector of each; texts without one are embedded, in one batch."""
    to_embed = [
        at
        for at, (draft, memory) in enumerate(zip(drafts, memories, strict=True))
        if draft.vector is None and memory.text is not None and memory.space is None
    ]
    found = [Placed()] * len(drafts)
    texts = [drafts[at].says or embedded_text(memories[at]) or "" for at in to_embed]
    if texts:  # where every vector was brought, a model that cannot be loaded is not asked for
        for at, placed in zip(to_embed, _embedded(engine, texts), strict=True):
            found[at] = placed
    known: dict[str | None, SpaceRecord] = {}
    for at, draft in enumerate(drafts):
        if draft.vector is not None:
            name = draft.memory.space
            space = known.get(name) or known.setdefault(name, _space_for(engine, draft))
            if len(draft.vector) != space.dim:
                raise DimensionMismatch(
                    f"vector has {len(draft.vector)} numbers, the space {space.dim}",
                    field="vector",
                )
            found[at] = Placed(space.number, draft.vector)
    return found


def _embedded(engine: Engine, texts: list[str]) -> list[Placed]:
    """The vectors of texts, those of the space that is about to be the default one among them."""
    embedding = engine.embedding
    try:
        made = embedding.embed_documents(texts)
    except (EmbedderUnavailable, MissingDependency):
        if not embedding.is_replaced:
            raise
        made = None  # the model that is to come will embed them
    following = embedding.embed_next(texts)
    nexts: list[tuple[int, Any]] = [(spaces.NO_VECTOR, None)] * len(texts)
    if following is not None:
        nexts = [(following[0].number, vector) for vector in following[1]]
    if made is None:
        return [Placed(following=one) for one in nexts]
    space, matrix = made
    return [
        Placed(space.number, vector, True, one) for vector, one in zip(matrix, nexts, strict=True)
    ]


def _space_for(engine: Engine, draft: Draft) -> SpaceRecord:
    if draft.memory.space is None:
        return default_space(engine.store, len(draft.vector), None)
    with engine.store.read() as txn:
        space = engine.require_space(txn, draft.memory.space)
    if space.filling:
        raise Conflict(
            "that space is being filled with the texts of another",
            hint="write without naming a space; a vector of yours needs a space of your own",
        )
    return space
