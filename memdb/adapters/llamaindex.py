"""``MemdbVectorStore``: LlamaIndex's vector store over a memdb directory.

A node is a memory: its id the ``external_id``, its content the text, the whole node the ``data``;
its metadata (up to 60 keys that are not empty) is what filters see, and the document it is of is
under ``ref_doc_id``. LlamaIndex embeds; vectors are in a space of their own, made at the first
``add``. Every filter but ``TEXT_MATCH`` is memdb's own and decides before ranking; a text match is
first turned into the values that match, so that holds for it too. Deleting is forgetting:
restorable for seven days.

Modes: DEFAULT by vector; HYBRID by vector and words together; SPARSE and TEXT_SEARCH by words;
others are ``InvalidArgument``. Similarities are the cosine in DEFAULT, else memdb's estimate of
relevance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from memdb import Database, InvalidArgument, Memory, MissingDependency
from memdb.adapters.handles import Place, own_handle, space_for

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise MissingDependency("this adapter needs llama-index-core", extra="llamaindex") from error

SOURCE: Final = "app:llamaindex"
KIND: Final = "node"
_KEYS: Final = 60  # of a node's metadata that filters see
_INTERNAL: Final = ("_node_content", "_node_type", "document_id", "doc_id")
_MODES: Final[dict[VectorStoreQueryMode, Literal["vector", "hybrid", "lexical"]]] = {
    VectorStoreQueryMode.DEFAULT: "vector",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
    VectorStoreQueryMode.SPARSE: "lexical",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
}
_OPERATORS: Final = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.ALL: "$all",
    FilterOperator.CONTAINS: "$contains",
}


class MemdbVectorStore(BasePydanticVectorStore):
    """A ``BasePydanticVectorStore`` over a memdb database.

    ``place``: a directory, or an open ``Database`` of it. ``namespace``: where its nodes are.
    ``space``: the name of the embedding space that LlamaIndex's embeddings fill.
    """

    stores_text: bool = True
    flat_metadata: bool = False

    _db: Database = PrivateAttr()
    _space: str = PrivateAttr()

    def __init__(
        self, place: Place, *, namespace: str = "llamaindex", space: str = "llamaindex"
    ) -> None:
        super().__init__(stores_text=True)
        self._db = own_handle(place, namespace, SOURCE)
        self._space = space

    @classmethod
    def class_name(cls) -> str:
        return "MemdbVectorStore"

    @property
    def client(self) -> Database:
        """The handle on the database."""
        return self._db

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        self._db.close()

    # --- writing ------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings; an id that exists gets a new version."""
        items = []
        for node in nodes:
            vector = node.get_embedding()
            space_for(self._db, self._space, len(vector))
            whole = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
            seen = {name: value for name, value in node.metadata.items()
                    if value not in (None, "", [], {})}  # fmt: skip
            text = node.get_content(metadata_mode=MetadataMode.NONE)
            items.append(
                {
                    **({"text": text} if text else {}),
                    "data": {name: whole[name] for name in ("_node_content", "_node_type")},
                    "external_id": node.node_id,
                    "metadata": {**dict(list(seen.items())[:_KEYS]),
                                 "ref_doc_id": node.ref_doc_id or "None"},
                    "kind": KIND,
                    "vector": vector,
                    "space": self._space,
                }
            )  # fmt: skip
        self._db.remember_many(items, on_conflict="replace", dedup="off")
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Forget the nodes of a document."""
        self._db.forget(where={"kind": KIND, "metadata.ref_doc_id": ref_doc_id})

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Forget nodes by id, by filter, or by both together; nothing where neither is given."""
        if node_ids is not None or filters is not None:
            self._db.forget(where=self._where(filters, node_ids))

    def clear(self) -> None:
        """Forget every node."""
        self._db.forget(where={"kind": KIND})

    # --- reading ------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes of those ids that pass the filter, in the order written."""
        return [_node(memory) for memory in self._db.iter(self._where(filters, node_ids))]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The ``similarity_top_k`` best nodes (``hybrid_top_k`` in HYBRID, if given)."""
        mode = _MODES.get(query.mode)
        if mode is None:
            raise InvalidArgument(f"mode {query.mode} is not offered", field="mode")
        vector = None if mode == "lexical" else query.query_embedding
        words = None if mode == "vector" else query.query_str
        if (mode == "vector" and vector is None) or (mode != "vector" and words is None):
            raise InvalidArgument(f"mode {query.mode} needs what it searches by", field="query")
        k = query.similarity_top_k
        if mode == "hybrid" and query.hybrid_top_k is not None:
            k = query.hybrid_top_k
        if not any(space.name == self._space for space in self._db.spaces.list()):
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        where = self._where(query.filters, query.node_ids or None, query.doc_ids)
        hits = self._db.recall(words, k, where, mode, vector=vector, space=self._space, time="off")
        cosine = mode == "vector"
        return VectorStoreQueryResult(
            nodes=[_node(hit.memory) for hit in hits],
            similarities=[(hit.why.cosine or 0.0) if cosine else hit.score for hit in hits],
            ids=[hit.memory.external_id or "" for hit in hits],
        )

    # --- filters ------------------------------------------------------------------------

    def _where(
        self,
        filters: MetadataFilters | None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        every: list[dict[str, Any]] = [{"kind": KIND}]
        if node_ids is not None:
            every.append({"external_id": {"$in": list(node_ids)}})
        if doc_ids:
            every.append({"metadata.ref_doc_id": {"$in": list(doc_ids)}})
        if filters is not None and filters.filters:
            every.append(self._condition(filters))
        return {"$and": every}

    def _condition(self, filters: MetadataFilters) -> dict[str, Any]:
        parts = [
            self._condition(one) if isinstance(one, MetadataFilters) else self._comparison(one)
            for one in filters.filters
        ]
        if filters.condition == FilterCondition.NOT:
            return {"$not": {"$or": parts}}
        return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}

    def _comparison(self, one: MetadataFilter) -> dict[str, Any]:
        field = f"metadata.{one.key}"
        if one.operator == FilterOperator.IS_EMPTY:
            return {field: {"$exists": False}}
        if one.operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
            return {field: {"$in": self._containing(one)}}
        if one.value is None:
            raise InvalidArgument(f"the filter on {one.key} has no value", field="filters")
        return {field: {_OPERATORS[one.operator]: one.value}}

    def _containing(self, one: MetadataFilter) -> list[str]:
        """The values of a key that hold the text, among those that are stored."""
        wanted = str(one.value)
        fold = str.casefold if one.operator == FilterOperator.TEXT_MATCH_INSENSITIVE else str
        values = self._db.values(f"metadata.{one.key}", {"kind": KIND})
        return [value for value, _ in values
                if isinstance(value, str) and fold(wanted) in fold(value)]  # fmt: skip


def _node(memory: Memory) -> BaseNode:
    return metadata_dict_to_node(dict(memory.data), text=memory.text)
