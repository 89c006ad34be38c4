"""Makes ``static_model/`` from a copy of all-MiniLM-L6-v2. Run from a checkout, about a minute::

    python -m pip install "model2vec[distill]>=0.6"
    python -m memdb.ingest.embedders.distil_static PATH_OF_ALL_MINILM_L6_V2

model2vec passes every token of the model's vocabulary through the model alone and keeps the mean
of what comes out: (v, 384). From there, differing from model2vec's own finish in two steps:

1. Centre on the token one meets on average, not on the average token: token r of a vocabulary
   in order of frequency has probability p(r) ~ 1/(r + 2) (Zipf), and sum p(r) x(r) is the part
   that all sentences share. SIF (Arora, Liang, Ma, ICLR 2017) removes it from each sentence;
   it is linear, so it can be removed from the table.
2. PCA to 256 dimensions, each divided by the fourth root of its variance: half of a whitening,
   so that a few wide directions do not decide every comparison.
3. Weight of SIF: a / (a + p(r)) with a = 1e-4 (model2vec's default).
4. Eight bits a number, one scale a row. [PAD] and [UNK] become zero: they say nothing.

README.md, section Embedders, has what each step gains and the command that measures it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from memdb.ingest.embedders import static
from memdb.ingest.embedders.protocol import CONTENT_REVISION

DIM = 256
MAX_TOKENS = 256
SIF_COEFFICIENT = 1e-4
SILENT = ("[PAD]", static.UNKNOWN)


def token_vectors(model: str) -> tuple[list[str], NDArray[np.float64]]:
    """The vocabulary of the model at ``model`` and (v, hidden) what each token alone becomes."""
    from model2vec.distill import distill

    distilled = distill(model, pca_dims=None, sif_coefficient=None, quantize_to="float32")
    ids: dict[str, int] = distilled.tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__), np.asarray(distilled.embedding, dtype=np.float64)


def finish(vocabulary: list[str], vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """(v, DIM) float32: centred, half whitened, weighted. Steps 1 to 3 of the module's text."""
    probability = 1 / np.arange(2, len(vectors) + 2)
    probability /= probability.sum()
    centred = vectors - probability @ vectors
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances[::-1][:DIM], axes[:, ::-1][:, :DIM]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(DIM)])  # one sign for all
    finished = centred @ axes / variances**0.25
    finished *= (SIF_COEFFICIENT / (SIF_COEFFICIENT + probability))[:, None]
    finished[[vocabulary.index(token) for token in SILENT]] = 0
    table: NDArray[np.float32] = finished.astype(np.float32)
    return table


def quantise(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(v, d) float32 -> (v, d) int8 and (v,) float32 with rows * scales close to the table."""
    scales = (np.abs(table).max(axis=1) / 127).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1)[:, None]
    return np.rint(table / divisors).astype(np.int8), scales


def write(folder: Path, vocabulary: list[str], table: NDArray[np.float32]) -> None:
    """The files that ``StaticEmbedder`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, scales = quantise(table)
    np.save(folder / static.ROWS_FILE, rows)
    np.save(folder / static.SCALES_FILE, scales)
    text = "".join(token + "\n" for token in vocabulary)
    (folder / static.VOCABULARY_FILE).write_bytes(zstandard.compress(text.encode("utf-8"), 19))
    files = (static.ROWS_FILE, static.SCALES_FILE, static.VOCABULARY_FILE)
    digest = hashlib.blake2b(digest_size=8)
    for content in (rows.tobytes(), scales.tobytes(), text.encode("utf-8")):
        digest.update(content)
    config = {
        "name": "static-minilm-256",
        "revision": CONTENT_REVISION + digest.hexdigest(),
        "distilled_from": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)",
        "max_tokens": MAX_TOKENS,
        "crc32c": {name: static.checksum(folder / name) for name in files},
    }
    (folder / static.CONFIG_FILE).write_bytes((json.dumps(config, indent=2) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="distil the embedded model")
    parser.add_argument("model", help="folder of all-MiniLM-L6-v2, or its name on the hub")
    parser.add_argument("--to", type=Path, default=static.MODEL, help="folder to write")
    arguments = parser.parse_args()
    vocabulary, vectors = token_vectors(arguments.model)
    write(arguments.to, vocabulary, finish(vocabulary, vectors))
    size = sum(path.stat().st_size for path in arguments.to.iterdir())
    print(f"{len(vocabulary)} tokens x {DIM}, {size / 1e6:.2f} MB in {arguments.to}")


if __name__ == "__main__":
    main()
