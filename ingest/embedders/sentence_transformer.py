"""sentence-transformers models, by name or by folder. Needs the extra [text].

The model is loaded from this device only: a name is looked up among the models downloaded before,
and nothing is fetched, ever. torch and sentence-transformers are imported when a model is loaded,
not before.

Its identity is computed from the model's numbers, so one model is the same whether it was loaded
by name, from a folder or from a copy of that folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import EmbedderUnavailable, MissingDependency
from memdb.ingest.embedders.protocol import CONTENT_REVISION, ROLES, Role

_SAMPLES = 4096  # numbers of each tensor that go into the revision
_BATCH = 32
_DEFAULT_TOKENS = 512
_OWNER = "sentence-transformers/"  # of a name without an owner
_LONGEST_TOKENS = 1 << 20  # tokenizers say "no limit" with numbers far above


class SentenceTransformerEmbedder:
    """One sentence-transformers model; thread-safe.

    ``model``: a folder, or a name such as ``all-MiniLM-L6-v2``. Raises ``MissingDependency``
    without the extra [text], ``EmbedderUnavailable`` when the model is not on this device or does
    not load.
    """

    def __init__(self, model: str) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingDependency("st: embedders need sentence-transformers", extra="text")
        is_folder = looks_like_path(model)
        path = Path(model).expanduser()
        if is_folder and not path.is_dir():
            raise EmbedderUnavailable(
                f"there is no folder {path}", hint="name the folder that holds modules.json"
            )
        self._guard = threading.Lock()
        self._model = _load(str(path) if is_folder else folder_of(model))
        self.name = path.resolve().name if is_folder else model.removeprefix(_OWNER)
        self.prompts = _role_prompts(self._model)
        self.max_tokens = _max_tokens(self._model)
        self.revision = CONTENT_REVISION + _content_digest(self._model, self.max_tokens)
        self.dim = int(self.embed(["dimension"]).shape[1])
        self._longest_prompt = max(self.prompts.values(), key=len, default="")

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its prompt and the special tokens around it."""
        return self.count_tokens_many([text])[0]

    def count_tokens_many(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        with self._guard:
            encoded = self._model.tokenizer(
                [self._longest_prompt + text for text in texts],
                add_special_tokens=True,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                verbose=False,
            )
        return [len(ids) for ids in encoded["input_ids"]]

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """(n, dim) float32 unit vectors."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        # The tokenizer keeps its padding in itself, so one batch runs at a time.
        with self._guard:
            vectors = self._model.encode(
                list(texts),
                prompt=self.prompts.get(role),
                batch_size=_BATCH,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def looks_like_path(model: str) -> bool:
    """Whether ``model`` means a folder: it says so by how it begins, or it is one."""
    return (
        model.startswith((".", "~", "/", os.sep))
        or Path(model).is_absolute()
        or os.path.isdir(model)
    )


def folder_of(name: str) -> str:
    """The folder of a model that was downloaded before, by its name on the hub.

    Looked up here, because given a bare name sentence-transformers asks the hub about it even
    when it is told to stay local.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    full = name if "/" in name else _OWNER + name
    try:
        return str(snapshot_download(full, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise EmbedderUnavailable(
            f"the model {name} is not on this device",
            hint=f"download it once with `hf download {full}`, or name its folder: st:/path",
        ) from error


def _load(folder: str) -> Any:
    """The model in a folder, without the progress bars that the libraries draw."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    drew = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return SentenceTransformer(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise EmbedderUnavailable(
            f"the model in {folder} does not load: {type(error).__name__}",
            hint="name a folder saved by sentence-transformers; it holds modules.json",
        ) from error
    finally:
        if drew:
            logging.enable_progress_bar()


def _role_prompts(model: Any) -> dict[str, str]:
    """The model's own prompt for each role; "" is left out."""
    known: dict[str, str] = dict(model.prompts or {})
    fallback = known.get(model.default_prompt_name or "", "")
    names = {"document": ("document", "passage"), "query": ("query",)}
    prompts = {
        role: next((known[name] for name in names[role] if known.get(name)), fallback)
        for role in ROLES
    }
    return {role: prompt for role, prompt in prompts.items() if prompt}


def _max_tokens(model: Any) -> int:
    limits = [model.max_seq_length, getattr(model.tokenizer, "model_max_length", None)]
    known = [int(limit) for limit in limits if limit and limit <= _LONGEST_TOKENS]
    return min(known, default=_DEFAULT_TOKENS)


def _content_digest(model: Any, max_tokens: int) -> str:
    """16 hexadecimal digits of what decides the vectors: weights, vocabulary, pooling, window.

    Tensors are hashed one by one and their digests sorted, because their names differ between
    versions of the libraries that load them; of each, evenly spaced numbers are taken, because
    two trainings differ everywhere and a large model has a billion of them.
    """
    digests = []
    for parameter in model.parameters():
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLES)
        sample = flat[::step].float().cpu().numpy().astype("<f4").tobytes()
        digests.append(hashlib.blake2b(sample + repr(tuple(parameter.shape)).encode()).digest())
    whole = hashlib.blake2b(b"".join(sorted(digests)), digest_size=8)
    for token, number in sorted(model.tokenizer.get_vocab().items()):
        whole.update(f"{token}\0{number}\0".encode())
    whole.update(f"{max_tokens}\0{_pooling(model)}".encode())
    return whole.hexdigest()


def _pooling(model: Any) -> str:
    """How token vectors become one: the names of the modules and of the pooling's modes."""
    parts = []
    for module in model:
        mode = getattr(module, "get_pooling_mode_str", None)
        parts.append(type(module).__name__ + (f":{mode()}" if mode else ""))
    return ",".join(parts)
