"""Choosing an embedder: by a string, or as an object that must keep to the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from memdb.errors import EmbedderUnavailable, InvalidArgument
from memdb.ingest.embedders import Embedder, Identity, check_spec, identity_of, load
from memdb.ingest.embedders.protocol import Role
from memdb.settings import MAX_DIM


class Lengths:
    """A complete embedder: a text's length, one-hot."""

    name: Any = "lengths"
    revision: Any = "1"
    dim: Any = 8
    max_tokens: Any = 100

    def count_tokens(self, text: str) -> Any:
        return len(text)

    def embed(self, texts: Sequence[str], role: Role = "document") -> Any:
        vectors: NDArray[np.float32] = np.zeros((len(texts), 8), dtype=np.float32)
        vectors[np.arange(len(texts)), [len(text) % 8 for text in texts]] = 1
        return vectors


def test_none_stands_for_no_embedder() -> None:
    assert load("none") is None


def test_an_object_that_keeps_to_the_protocol_is_taken_as_it_is() -> None:
    embedder = Lengths()
    assert load(embedder) is embedder
    assert isinstance(embedder, Embedder)


@pytest.mark.parametrize("missing", ["name", "dim", "max_tokens", "count_tokens", "embed"])
def test_an_object_that_lacks_something_is_told_what(missing: str) -> None:
    members = {
        name: value
        for name, value in vars(Lengths).items()
        if not name.startswith("__") and name != missing
    }
    with pytest.raises(InvalidArgument, match=missing):
        load(type("Partial", (), members)())


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("name", ""),
        ("name", 5),
        ("revision", None),
        ("dim", 0),
        ("dim", "8"),
        ("dim", True),
        ("dim", MAX_DIM + 1),
        ("dim", 9),
        ("max_tokens", 0),
        ("max_tokens", 512.0),
        ("prompts", ["query"]),
        ("prompts", {"query": 5}),
        ("count_tokens", lambda text: "5"),
        ("count_tokens", lambda text: -1),
        ("count_tokens", lambda text: 1000),
        ("embed", lambda texts, role: [[0.0] * 8]),
        ("embed", lambda texts, role: np.zeros((1, 8))),
        ("embed", lambda texts, role: np.zeros((2, 8), dtype=np.float32)),
        ("embed", lambda texts, role: np.full((1, 8), np.nan, dtype=np.float32)),
    ],
)
def test_an_object_that_breaks_the_protocol_is_refused(attribute: str, value: object) -> None:
    embedder = Lengths()
    setattr(embedder, attribute, value)
    with pytest.raises(InvalidArgument) as raised:
        load(embedder)
    assert raised.value.field == "embedder"


def test_an_object_that_fails_is_unavailable_and_its_error_is_kept() -> None:
    class Failing(Lengths):
        def embed(self, texts: Sequence[str], role: Role = "document") -> Any:
            raise ConnectionError("refused")

    with pytest.raises(EmbedderUnavailable, match="ConnectionError") as raised:
        load(Failing())
    assert isinstance(raised.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    "spec", ["", "Static", "bert", "st:", "st: ", "static:x", "none:", ":", "5"]
)
def test_a_string_of_no_known_form_is_refused_with_the_forms(spec: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        load(spec)
    assert raised.value.field == "embedder"
    assert "st:NAME" in raised.value.hint


@pytest.mark.parametrize(
    "spec", ["static", "none", "st:all-MiniLM-L6-v2", "st:/no/such", "openai:https://host/v1#m"]
)
def test_a_spec_is_checked_without_loading_it(spec: str) -> None:
    check_spec(spec)
    with pytest.raises(InvalidArgument):
        check_spec(spec.replace(":", ";").upper())


def test_an_identity_survives_being_stored() -> None:
    identity = Identity("mini", "3", 384, (("document", "d: "), ("query", "q: ")))
    assert Identity.from_dict(identity.to_dict()) == identity
    assert Identity.from_dict({**identity.to_dict(), "prompts": None}) != identity


def test_identities_are_equal_when_their_vectors_may_be_compared() -> None:
    by_name = Identity("all-MiniLM-L6-v2", "content:ab12", 384)
    by_path = Identity("model", "content:ab12", 384)
    assert by_name == by_path
    assert hash(by_name) == hash(by_path)
    others = [
        Identity("model", "content:ab13", 384),
        Identity("model", "content:ab12", 256),
        Identity("model", "content:ab12", 384, (("query", "q: "),)),
        Identity("model", "", 384),
    ]
    assert by_path not in others
    assert Identity("a", "1", 8) != Identity("b", "1", 8)
    assert Identity("a", "1", 8) != "a"


def test_an_empty_prompt_is_no_prompt() -> None:
    embedder = Lengths()
    embedder.prompts = {"query": "", "document": ""}  # type: ignore[attr-defined]
    assert identity_of(embedder) == identity_of(Lengths())
