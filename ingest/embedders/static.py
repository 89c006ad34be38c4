"""The embedded default: one vector a token, added up. No torch, no download, no network.

``static_model/`` holds a table of 8-bit vectors distilled from all-MiniLM-L6-v2 by
``distil_static.py``, whose docstring says how its weights come about (model2vec's recipe, with
the common component of SIF removed: Arora, Liang, Ma, "A Simple but Tough-to-Beat Baseline for
Sentence Embeddings", ICLR 2017, section 3). A text's vector is the sum of its tokens' rows, made
unit length. Queries and documents are embedded alike.

The table is mapped, not read: its pages are shared by all processes and count as page cache.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import zstandard
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from memdb.errors import EmbedderUnavailable
from memdb.ingest.embedders.protocol import Role

MODEL = Path(__file__).parent / "static_model"
CONFIG_FILE = "model.json"
ROWS_FILE = "rows.npy"
SCALES_FILE = "scales.npy"
VOCABULARY_FILE = "vocabulary.txt.zst"
UNKNOWN = "[UNK]"

_TOKENS_TOGETHER = 1 << 13  # rows widened to float32 at once: 8 MiB
_TEXTS_TOGETHER = 1 << 12
# Below this many texts the tokenizer's thread pool costs more than it saves.
_TEXTS_IN_PARALLEL = 32


class StaticEmbedder:
    """A table of token vectors: ``rows`` (v, dim) int8, ``scales`` (v,) float32, v tokens.

    ``counts_add_up``: no token reaches over white space, so texts that are joined by it have as
    many tokens as they have one by one.

    Raises ``EmbedderUnavailable`` when the model's files are absent or damaged.
    """

    counts_add_up = True

    def __init__(self, folder: Path = MODEL) -> None:
        try:
            config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
            for name, expected in config["crc32c"].items():
                if checksum(folder / name) != expected:
                    raise ValueError(f"{name} does not match its checksum")
            self.rows: NDArray[np.int8] = np.load(folder / ROWS_FILE, mmap_mode="r")
            self.scales: NDArray[np.float32] = np.load(folder / SCALES_FILE)
            packed = (folder / VOCABULARY_FILE).read_bytes()
            vocabulary = zstandard.decompress(packed).decode("utf-8").split("\n")[:-1]
            self.name: str = config["name"]
            self.revision: str = config["revision"]
            self.max_tokens: int = config["max_tokens"]
        except (OSError, ValueError, KeyError, zstandard.ZstdError) as error:
            raise EmbedderUnavailable(
                f"the embedded model in {folder} cannot be read: {error}",
                hint="install personal-memdb again; mode='lexical' works without it",
            ) from error
        self.dim = int(self.rows.shape[1])
        self._tokenizer = make_tokenizer(vocabulary)
        self._guard = threading.Lock()

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_tokens_many(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._tokenize(texts)]

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """(n, dim) float32 unit vectors; a text without a known token is the zero vector."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_TOGETHER):
            part = texts[start : start + _TEXTS_TOGETHER]
            self._sum_rows(self._tokenize(part), vectors[start : start + len(part)])
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        np.divide(vectors, norms, out=vectors, where=norms > 0)
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) < _TEXTS_IN_PARALLEL:
            return [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def _sum_rows(self, ids: list[list[int]], out: NDArray[np.float32]) -> None:
        """Add each text's rows into ``out`` (n, dim), in blocks of bounded memory.

        Rows are added one by one in the order of the text, so that a text has the same vector to
        the last bit whatever it is embedded together with.
        """
        first = 0
        while first < len(ids):
            stop, tokens = first + 1, len(ids[first])
            while stop < len(ids) and tokens + len(ids[stop]) <= _TOKENS_TOGETHER:
                tokens += len(ids[stop])
                stop += 1
            lengths = np.array([len(text) for text in ids[first:stop]])
            filled = np.flatnonzero(lengths)
            if len(filled):
                flat = np.fromiter((t for text in ids[first:stop] for t in text), np.int64, tokens)
                block = self.rows[flat] * self.scales[flat, None]
                starts = (np.cumsum(lengths) - lengths)[filled]
                out[first + filled] = np.add.reduceat(block, starts, axis=0)
            first = stop


def make_tokenizer(vocabulary: Sequence[str]) -> Tokenizer:
    """BERT's uncased WordPiece over ``vocabulary``; a token's id is its place in it.

    No token is special: a text that says "[PAD]" is embedded as what it says.
    """
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def checksum(path: Path) -> int:
    """crc32c of a file's bytes."""
    return int(google_crc32c.value(path.read_bytes()))
