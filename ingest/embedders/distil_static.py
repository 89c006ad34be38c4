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

What steps 1 and 2 gain is measured on files of questions with evidence, one conversation a line::

    python -m memdb.ingest.embedders.distil_static PATH --compare locomo-dev.jsonl madial-en.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

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


def finish(
    vocabulary: list[str],
    vectors: NDArray[np.float64],
    *,
    centre: Literal["expected", "mean"] = "expected",
    whitening: float = 0.5,
) -> NDArray[np.float32]:
    """(v, DIM) float32: centred, whitened in part, weighted; steps 1 to 3 of the module's text.

    ``centre="mean", whitening=0`` is how model2vec finishes.
    """
    probability = 1 / np.arange(2, len(vectors) + 2)
    probability /= probability.sum()
    centred = vectors - (probability @ vectors if centre == "expected" else vectors.mean(axis=0))
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances[::-1][:DIM], axes[:, ::-1][:, :DIM]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(DIM)])  # one sign for all
    finished = centred @ axes / variances ** (whitening / 2)
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


def evidence_recall(
    embedder: static.StaticEmbedder, file: Path, k: int = 10
) -> tuple[float, float]:
    """(any@k, all@k): the share of questions with one, with all pieces of evidence among the k
    nearest items of their conversation. Items are embedded with their time and speaker."""
    found: list[tuple[bool, bool]] = []
    for line in file.read_text("utf-8").splitlines():
        talk = json.loads(line)
        places = {item["id"]: place for place, item in enumerate(talk["items"])}
        items = embedder.embed(
            [
                " ".join(str(item[field]) for field in ("time", "speaker", "text") if field in item)
                for item in talk["items"]
            ]
        )
        for query in talk["queries"]:
            evidence = {places[each] for each in query["evidence"] if each in places}
            if evidence:
                scores = items @ embedder.embed([query["q"]], role="query")[0]
                near = evidence & set(np.argsort(-scores, kind="stable")[:k].tolist())
                found.append((bool(near), near == evidence))
    either, every = np.mean(found, axis=0)
    return float(either), float(every)


def compare(vocabulary: list[str], vectors: NDArray[np.float64], files: list[Path]) -> None:
    """Print what each step of ``finish`` gains, each through the files and the code that ship."""
    finishes: dict[str, NDArray[np.float32]] = {
        "model2vec": finish(vocabulary, vectors, centre="mean", whitening=0.0),
        "+ centre on the expected token": finish(vocabulary, vectors, whitening=0.0),
        "+ half whitening (shipped)": finish(vocabulary, vectors),
    }
    for name, table in finishes.items():
        with TemporaryDirectory() as folder:
            write(Path(folder), vocabulary, table)
            results = [evidence_recall(static.StaticEmbedder(Path(folder)), file) for file in files]
        numbers = "  ".join(
            f"{file.stem}: any@10 {either:.3f} all@10 {every:.3f}"
            for file, (either, every) in zip(files, results, strict=True)
        )
        print(f"{name:32}{numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="distil the embedded model")
    parser.add_argument("model", help="folder of all-MiniLM-L6-v2, or its name on the hub")
    parser.add_argument("--to", type=Path, default=static.MODEL, help="folder to write")
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="FILE", help="measure, not write"
    )
    arguments = parser.parse_args()
    vocabulary, vectors = token_vectors(arguments.model)
    if arguments.compare:
        compare(vocabulary, vectors, arguments.compare)
        return
    write(arguments.to, vocabulary, finish(vocabulary, vectors))
    size = sum(path.stat().st_size for path in arguments.to.iterdir())
    print(f"{len(vocabulary)} tokens x {DIM}, {size / 1e6:.2f} MB in {arguments.to}")


if __name__ == "__main__":
    main()
