"""What an embedder is, and what tells two embedders apart.

An embedder turns texts into vectors. Everything above it needs six attributes, so anything that
has them is one: the embedded default, a sentence-transformers model, a local server, or an object
of the caller's. This file must not know any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Role = Literal["document", "query"]
ROLES: tuple[Role, ...] = ("document", "query")

# A revision that begins so was computed from the numbers of the model itself.
CONTENT_REVISION = "content:"


@runtime_checkable
class Embedder(Protocol):
    """Texts in, vectors out.

    ``name``        what a person calls the model.
    ``revision``    which edition of it; "" when nobody knows.
    ``dim``         dimensions of its vectors.
    ``max_tokens``  the most tokens of one text that ``embed`` takes in.

    An embedder may also have ``prompts`` (role -> text it puts before what it embeds; part of its
    identity) and ``count_tokens_many(texts) -> list[int]`` (the same counts, faster).
    """

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    def count_tokens(self, text: str) -> int:
        """Tokens ``embed`` makes of ``text``, with any it adds around it; an estimate errs high."""
        ...

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """(n, dim) float32, finite, one row for each of the n texts, in their order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Whose vectors a space holds. Two identities are equal when their vectors may be compared.

    A revision computed from a model's content ("content:...") settles that by itself, whatever
    name or path the model was loaded by; otherwise the names must agree too.
    """

    name: str
    revision: str
    dim: int
    prompts: tuple[tuple[str, str], ...] = ()

    def _key(self) -> tuple[object, ...]:
        name = "" if self.revision.startswith(CONTENT_REVISION) else self.name
        return (name, self.revision, self.dim, self.prompts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "revision": self.revision,
            "dim": self.dim,
            "prompts": dict(self.prompts),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Identity:
        prompts = stored.get("prompts") or {}
        return cls(
            name=str(stored["name"]),
            revision=str(stored["revision"]),
            dim=int(stored["dim"]),
            prompts=_sorted_prompts(prompts),
        )


def identity_of(embedder: Embedder) -> Identity:
    """The identity to store with the space that ``embedder`` fills."""
    return Identity(
        name=embedder.name,
        revision=embedder.revision,
        dim=embedder.dim,
        prompts=_sorted_prompts(getattr(embedder, "prompts", None) or {}),
    )


def _sorted_prompts(prompts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Prompts in one order; an empty prompt changes nothing, so it is left out."""
    return tuple(sorted((role, text) for role, text in prompts.items() if text))
