"""What the adapters share: names that survive any label, and a clear word where a package lacks."""

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memdb
from memdb.adapters.handles import joined, on_metadata, parted

LABELS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)
    | st.text("/% \n\t", min_size=1),
    max_size=4,
)


@given(LABELS)
def test_any_labels_survive_as_a_namespace(labels: list[str]) -> None:
    name = joined("root", labels)
    assert parted("root", name) == tuple(labels)
    assert name.count("/") == len(labels) and all(part.strip() == part for part in name.split("/"))


@given(LABELS, LABELS)
def test_no_two_paths_share_a_namespace(one: list[str], other: list[str]) -> None:
    assert (joined("root", one) == joined("root", other)) == (one == other)


def test_a_filter_over_metadata_names_the_metadata() -> None:
    where = {"$or": [{"a": 1}, {"$not": {"b.c": {"$gt": 2}}}], "d": "x"}
    assert on_metadata(where) == {
        "$or": [{"metadata.a": 1}, {"$not": {"metadata.b.c": {"$gt": 2}}}],
        "metadata.d": "x",
    }


@pytest.mark.parametrize(
    ("adapter", "package", "extra"),
    [
        ("langgraph", "langgraph.store.base", "langgraph"),
        ("langchain", "langchain_core.documents", "langchain"),
        ("llamaindex", "llama_index.core.schema", "llamaindex"),
    ],
)
def test_a_missing_package_names_its_extra(
    adapter: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"memdb.adapters.{adapter}", raising=False)
    with pytest.raises(memdb.MissingDependency) as raised:
        importlib.import_module(f"memdb.adapters.{adapter}")
    assert raised.value.extra == extra and extra in raised.value.hint
