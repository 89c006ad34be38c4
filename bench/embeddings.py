"""A sentence-transformers model as an embedder that embeds each text once, ever.

What is measured is retrieval: a model that takes 50 ms a text would otherwise be asked again for
every mode, stage and run. Vectors are kept by model and text under the cache folder of the
benchmarks (``XDG_CACHE_HOME``), outside the checkout; delete it to embed anew.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import report

_BATCH = 256


def cache_folder() -> Path:
    """Where benchmarks keep what is slow to make again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "memdb-bench"


class SentenceTransformer:
    """A model of sentence-transformers at ``path``; loaded when a text is new."""

    revision = ""

    def __init__(self, path: str, folder: Path | None = None) -> None:
        from sentence_transformers import SentenceTransformer as Model

        self._model = Model(path, device="cpu")
        self.name = f"bench:{Path(path).parent.name}"
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 256)
        folder = folder or cache_folder() / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{self.name.replace(':', '-')}-{_digest_of(self._model).hex()}.sqlite"
        self._kept = sqlite3.connect(kept, check_same_thread=False)
        self._kept.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, v BLOB)")
        self._known: dict[str, NDArray[np.float32]] = {}

    def count_tokens(self, text: str) -> int:
        return len(self._model.tokenizer.encode(text, truncation=False, verbose=False))

    def embed(self, texts: list[str], role: str = "document") -> NDArray[np.float32]:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        unknown = [text for text in unknown if not self._remembers(text)]
        for start in range(0, len(unknown), _BATCH):
            report.progress(f"embedding {start:,}/{len(unknown):,}")
            batch = unknown[start : start + _BATCH]
            found = self._model.encode(batch, batch_size=32, normalize_embeddings=True)
            vectors = np.asarray(found, dtype=np.float32)
            self._known.update(zip(batch, vectors, strict=True))
            rows = [(_key(text), one.tobytes()) for text, one in zip(batch, vectors, strict=True)]
            with self._kept:
                self._kept.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        return np.stack([self._known[text] for text in texts])

    def _remembers(self, text: str) -> bool:
        row = self._kept.execute("SELECT v FROM vectors WHERE text = ?", (_key(text),)).fetchone()
        if row is not None:
            self._known[text] = np.frombuffer(row[0], np.float32)
        return row is not None


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _digest_of(model: Any) -> bytes:
    """Of the weights: another model of the same name must not be given these vectors."""
    digest = hashlib.blake2b(digest_size=6)
    for weights in model.state_dict().values():
        digest.update(weights.detach().cpu().numpy().tobytes())
    return digest.digest()
