"""Embedders: who turns texts into vectors, chosen by a string or given as an object.

``load`` is the one way to get one. What is heavy is imported by the loader of the embedder that
needs it, so importing this package costs nothing but numpy.
"""

from __future__ import annotations

from typing import Any

from memdb.errors import EmbedderUnavailable, InvalidArgument
from memdb.ingest.embedders.protocol import Embedder, Identity, Role, identity_of
from memdb.ingest.embedders.spec import check_spec, parse_server
from memdb.ingest.embedders.windows import (
    check_vectors,
    embed_documents,
    embed_queries,
    embed_query,
)
from memdb.settings import DEFAULT_EMBEDDER, MAX_DIM

__all__ = [
    "Embedder",
    "Identity",
    "Role",
    "check_spec",
    "embed_documents",
    "embed_queries",
    "embed_query",
    "identity_of",
    "load",
]

_LEAST_TOKENS = 8


def load(spec: Embedder | str | None = None) -> Embedder | None:
    """The embedder that ``spec`` names, ready to embed; None for "none".

    ``spec``: None (the embedded default), a string as ``spec.py`` defines, or an object with the
    attributes of ``Embedder``, which is tried on one short text.

    Raises ``InvalidArgument`` (no such form; an object that breaks the protocol),
    ``EmbedderUnavailable`` (a model that is not there, damaged or does not answer) and
    ``MissingDependency`` (the extra it needs is not installed).
    """
    if spec is None:
        spec = DEFAULT_EMBEDDER
    if not isinstance(spec, str):
        return _checked(spec)
    check_spec(spec)
    scheme, _, rest = spec.partition(":")
    if scheme == "st":
        from memdb.ingest.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(rest.strip())
    if scheme == "openai":
        from memdb.ingest.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder(parse_server(rest))
    if scheme == "static":
        from memdb.ingest.embedders.static import StaticEmbedder

        return StaticEmbedder()
    return None


def _checked(embedder: Any) -> Embedder:
    """An object of the caller's, once it has shown that it keeps to the protocol."""
    if not isinstance(embedder, Embedder):
        names = ("name", "revision", "dim", "max_tokens", "count_tokens", "embed")
        missing = [name for name in names if not hasattr(embedder, name)]
        raise InvalidArgument(
            f"the embedder ({type(embedder).__name__}) has no {', '.join(missing)}",
            field="embedder",
        )
    if not isinstance(embedder.name, str) or not embedder.name:
        raise _wrong("name is not a string that names it")
    if not isinstance(embedder.revision, str):
        raise _wrong("revision is not a string")
    if type(embedder.dim) is not int or not 1 <= embedder.dim <= MAX_DIM:
        raise _wrong(f"dim is not an int of 1 to {MAX_DIM}")
    if type(embedder.max_tokens) is not int or embedder.max_tokens < _LEAST_TOKENS:
        raise _wrong(f"max_tokens is not an int of at least {_LEAST_TOKENS}")
    prompts = getattr(embedder, "prompts", None) or {}
    if not isinstance(prompts, dict) or not all(
        isinstance(part, str) for item in prompts.items() for part in item
    ):
        raise _wrong("prompts is not a mapping of roles to strings")
    try:
        tokens = embedder.count_tokens("text")
        vectors = embedder.embed(["text"], role="document")
    except Exception as error:
        raise EmbedderUnavailable(
            f"the embedder {embedder.name!r} failed on a short text: {type(error).__name__}",
            hint="count_tokens(text) and embed([text], role='document') must work",
        ) from error
    if not isinstance(tokens, int) or not 0 <= tokens <= embedder.max_tokens:
        raise _wrong("count_tokens('text') is not an int of 0 to max_tokens")
    check_vectors(embedder, vectors, 1)
    return embedder


def _wrong(problem: str) -> InvalidArgument:
    return InvalidArgument(f"the embedder's {problem}", field="embedder")
