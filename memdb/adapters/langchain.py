"""``MemdbVectorStore``: LangChain's vector store over a memdb directory.

A document is a memory: its id the ``external_id``, its content the text, its metadata the metadata
(and so at most 64 keys, JSON). With an ``embedding`` its vectors are in a space of their own and
searches go by them; without one the database's own embedder and its search by meaning and words
do. ``filter`` is a ``where`` of memdb over the metadata: ``{"page": {"$gt": 3}}``; a filter decides
before ranking, so no search comes back short. Deleting is forgetting: restorable for seven days.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from memdb import Database, Hit, InvalidArgument, Memory, MissingDependency
from memdb.adapters.handles import Place, on_metadata, own_handle, space_for

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise MissingDependency("this adapter needs langchain-core", extra="langchain") from error

SOURCE: Final = "app:langchain"
KIND: Final = "document"


class MemdbVectorStore(VectorStore):
    """A ``VectorStore`` over a memdb database.

    ``place``: a directory, or an open ``Database`` of it. ``namespace``: where its documents are.
    ``space``: the name of the embedding space that ``embedding`` fills.
    """

    def __init__(
        self,
        place: Place,
        embedding: Embeddings | None = None,
        *,
        namespace: str = "langchain",
        space: str = "langchain",
    ) -> None:
        self._db: Database = own_handle(place, namespace, SOURCE)
        self._embedding = embedding
        self._space = space

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        self._db.close()

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embedding

    # --- writing ------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; an id that exists gets a new version. Returns the ids."""
        listed = list(texts)
        for given, name in ((metadatas, "metadatas"), (ids, "ids")):
            if given is not None and len(given) != len(listed):
                raise InvalidArgument(f"{name} must be as many as the texts", field=name)
        named = [id or str(uuid.uuid4()) for id in ids or [""] * len(listed)]
        items: list[dict[str, Any]] = [
            {"text": text, "external_id": id, "metadata": metadata, "kind": KIND}
            for text, id, metadata in zip(listed, named, metadatas or [{}] * len(listed),
                                          strict=True)
        ]  # fmt: skip
        if self._embedding is not None and items:
            vectors = self._embedding.embed_documents(listed)
            space_for(self._db, self._space, len(vectors[0]))
            for item, vector in zip(items, vectors, strict=True):
                item.update(vector=vector, space=self._space)
        self._db.remember_many(items, on_conflict="replace", dedup="off")
        return named

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Store documents under ``ids`` if given, else under their own."""
        ids = kwargs.pop("ids", None) or [document.id for document in documents]
        texts = [document.page_content for document in documents]
        return self.add_texts(texts, [one.metadata for one in documents], ids=ids, **kwargs)

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Forget documents by id; all of them where ``ids`` is None."""
        if ids is None:
            self._db.forget(where={"kind": KIND})
            return True
        held = [memory.id for memory in map(self._held, ids) if memory is not None]
        if held:
            self._db.forget(held)
        return True

    # --- reading ------------------------------------------------------------------------

    def _held(self, id: str) -> Memory | None:
        return self._db.get(external_id=id)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of those ids that are there, in that order."""
        return [_document(one) for one in map(self._held, ids) if one is not None]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [found for found, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Documents with their scores, best first: the cosine of ``embedding``'s vectors, or
        memdb's estimate in [0, 1] that a document is relevant."""
        if self._embedding is not None:
            vector = self._embedding.embed_query(query)
            return self.similarity_search_with_score_by_vector(vector, k, **kwargs)
        hits = self._db.recall(query, k, _where(kwargs))
        return [(_document(hit.memory), hit.score) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        found = self.similarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Documents with the cosine of their vectors to this one, closest first."""
        return [(_document(hit.memory), _cosine(hit)) for hit in self._near(embedding, k, kwargs)]

    def _near(self, vector: Sequence[float], k: int, kwargs: Mapping[str, Any]) -> Sequence[Hit]:
        if not any(space.name == self._space for space in self._db.spaces.list()):
            return ()
        where = _where(kwargs)
        return self._db.recall(k=k, where=where, mode="vector", vector=vector, space=self._space)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        if self._embedding is None:
            raise InvalidArgument("this search needs an embedding", field="embedding")
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the ``fetch_k`` closest the ``k`` that say the most different things."""
        if self._embedding is None:
            raise InvalidArgument("this search needs an embedding", field="embedding")
        documents = self.similarity_search_by_vector(embedding, fetch_k, **kwargs)
        vectors = self._embedding.embed_documents([one.page_content for one in documents])
        chosen = maximal_marginal_relevance(np.array(embedding), vectors, lambda_mult, k)
        return [documents[at] for at in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """A cosine as a share; memdb's own score is one already."""
        if self._embedding is None:
            return lambda score: score
        return lambda cosine: (1 + cosine) / 2

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> MemdbVectorStore:
        """A store of those texts; ``place`` and the rest go to the constructor."""
        store = cls(embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _document(memory: Memory) -> Document:
    return Document(
        id=memory.external_id, page_content=memory.text or "", metadata=dict(memory.metadata)
    )


def _cosine(hit: Hit) -> float:
    return 0.0 if hit.why.cosine is None else hit.why.cosine


def _where(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    given = kwargs.get("filter")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidArgument("filter must be a mapping, as where of memdb", field="filter")
    return {"$and": [{"kind": KIND}, on_metadata(given)]} if given else {"kind": KIND}
