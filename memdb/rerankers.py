"""Cross-encoders for ``recall(..., rerank=)``: which model, loaded once, and what it is asked.

A spec (``"st:NAME"``, ``"st:/path"``) names a model of sentence-transformers on this device; an
object with ``predict(pairs)`` is one. Nothing is fetched, and torch is imported when a model is
loaded. This file does not know ranking.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.embedded_text import embedded_text
from memdb.errors import EmbedderUnavailable, InvalidArgument, MissingDependency
from memdb.ingest.embedders.sentence_transformer import folder_of, looks_like_path
from memdb.types import Memory

_FORMS = 'rerank is "st:NAME", "st:/path" or an object with predict(pairs)'


class Judge:
    """A model that reads a question and a text together."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def text_of(memory: Memory) -> str | None:
        """What the model reads of a memory."""
        return embedded_text(memory)

    def scores(self, question: str, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) log-odds that each text answers. Raises ``EmbedderUnavailable``."""
        pairs = [(question, text) for text in texts]
        try:
            found = self._model.predict(pairs, **_without_activation(self._model))
            scores = np.asarray(found, np.float64).reshape(len(found), -1)
        except Exception as error:  # an object of the caller's may raise anything
            raise EmbedderUnavailable(
                f"the re-ranking model failed: {type(error).__name__}: {error}",
                hint="recall without rerank= works",
            ) from error
        if scores.shape != (len(pairs), 1) or not np.isfinite(scores).all():
            raise EmbedderUnavailable(
                "the re-ranking model does not give one finite number a pair",
                hint="predict(pairs) must return (n,) numbers; a model with one label does",
            )
        column: NDArray[np.float64] = scores[:, 0]
        return column


def load(given: Any) -> Judge | None:
    """The judge that ``rerank`` means; None for None.

    Raises ``InvalidArgument``, ``MissingDependency`` without the extra [text], and
    ``EmbedderUnavailable`` for a model that is not on this device or does not load.
    """
    if given is None:
        return None
    if not isinstance(given, str):
        if not callable(getattr(given, "predict", None)):
            raise InvalidArgument(_FORMS, field="rerank")
        return Judge(given)
    scheme, _, name = given.partition(":")
    if scheme != "st" or not name.strip():
        raise InvalidArgument(_FORMS, field="rerank")
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingDependency("re-ranking needs sentence-transformers", extra="text")
    if not looks_like_path(name.strip()):
        return _loaded(folder_of(name.strip()))
    folder = Path(name.strip()).expanduser()
    if not folder.is_dir():
        raise EmbedderUnavailable(f"there is no folder {folder}", hint=_FORMS)
    return _loaded(str(folder.resolve()))


@lru_cache(maxsize=2)
def _loaded(folder: str) -> Judge:
    from sentence_transformers import CrossEncoder

    try:
        return Judge(CrossEncoder(folder, local_files_only=True, trust_remote_code=False))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise EmbedderUnavailable(
            f"the model in {folder} does not load: {type(error).__name__}",
            hint="name a folder that a CrossEncoder of sentence-transformers was saved to",
        ) from error


def _without_activation(model: Any) -> dict[str, Any]:
    """For a CrossEncoder, to give its numbers as they are: log-odds, not probabilities."""
    library = sys.modules.get("sentence_transformers")
    if library is None or not isinstance(model, library.CrossEncoder):
        return {}
    from torch.nn import Identity

    return {"activation_fn": Identity(), "show_progress_bar": False}
