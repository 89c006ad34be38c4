"""Nodes and filters of LlamaIndex, apart from the tests that use them.

Importing LlamaIndex takes seconds: only who runs a test of it does.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from memdb.adapters.llamaindex import MemdbVectorStore

__all__ = [
    "NODES",
    "FilterCondition",
    "MemdbVectorStore",
    "MetadataFilters",
    "SimpleVectorStore",
    "TextNode",
    "VectorStoreQuery",
    "VectorStoreQueryMode",
    "node",
    "one",
]


def node(id: str, text: str, vector: list[float], document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=id, text=text, embedding=vector, relationships=source, metadata=metadata)


NODES = [
    node("a", "tea in the garden", [1, 0, 0, 0.1], "d1", page=1, who="Ana", tags=["x", "y"]),
    node("b", "the boiler", [0, 1, 0, 0.2], "d1", page=2, who="Bo", tags=["y"], note=""),
    node("c", "rain in Porto", [0.05, 0, 1, 0.1], "d2", page=3, who="ana maria", tags=[]),
    node("d", "tea with cake", [0.8, 0, 0.4, 0.1], "d3", page=2.5, note="long"),
]


def one(key: str, value: Any, operator: str) -> MetadataFilter:
    """A filter; ``operator`` by its name in ``FilterOperator``."""
    return MetadataFilter(key=key, value=value, operator=FilterOperator[operator])
