"""What other stores keep of what was deleted, by the same canaries that ``bench.erase`` plants.

    python -m bench erase --only peers [--peers chromadb zvec] [--install] [--canaries 1000]

Each store is given texts with a string that occurs nowhere else, and vectors; half are deleted by
id, the store's own compaction is run, and before and after it every file is searched: for any 12
bytes of a string, raw or inside what decompresses as zstd or DEFLATE, and for runs of four
components of a vector, as float32 (as given and at unit length) and float64. What is not found
before the deletion is stored in a form that this search does not know, and nothing is said of it.
The numbers are therefore lower bounds; what was found before says how far they can be relied on.

Stores run in environments of their own (``bench.ann.peers``), in processes that end before their
files are read.
"""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from bench import report
from bench.ann.engines import Engine
from bench.ann.peers import Unavailable, cache_folder, python_of
from bench.canaries import words

DIM = 128
_ADAPTERS = Path(__file__).parent / "erasers"
_LIMIT_S = 600
_PIECE = 12
_RUN = 4
_PLACES = (0, DIM // 2, DIM - _RUN)
_MOST_BYTES = 64 << 20  # of one frame

PEERS = {
    name: Engine(name, packages, (), about)
    for name, packages, about in (
        ("chromadb", ("chromadb==1.5.9",), "VACUUM"),
        ("lancedb", ("lancedb==0.40.0", "pyarrow==26.0.1"), "optimize, old versions removed"),
        ("qdrant", ("qdrant-client==1.20.0",), "VACUUM"),
        ("sqlite-vec", ("sqlite-vec==0.1.9", "apsw==3.54.1.0"), "VACUUM"),
        ("zvec", ("zvec==0.8.0", "numpy==2.4.6"), "optimize"),
    )
}


def trial(
    root: Path, count: int, names: Sequence[str], *, seed: int, install: bool
) -> list[dict[str, Any]]:
    """A row for each store: canaries found before, and of the erased half what is left."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    strings = words(count, rng)
    ids = [str(number) for number in range(1, count + 1)]
    plan = {
        "ids": ids,
        "texts": [f"the {word} of the day" for word in strings],
        "vectors": vectors.tolist(),
        "erased": ids[::2],
    }
    path = root / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return [_one(PEERS[name], root, path, strings, vectors, install=install) for name in names]


def _one(
    peer: Engine,
    root: Path,
    plan: Path,
    strings: list[str],
    vectors: NDArray[np.float32],
    *,
    install: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {"store": " ".join(peer.packages[:1]), "compaction": peer.about}
    try:
        python = python_of(peer, cache_folder(None), install=install)
    except Unavailable as error:
        return {**row, "unavailable": str(error)}
    folder = root / peer.name

    def step(name: str) -> str:
        report.progress(f"{peer.name}: {name}")
        adapter = _ADAPTERS / f"with_{peer.name.replace('-', '_')}.py"
        done = subprocess.run(
            [python, _ADAPTERS / "harness.py", adapter, folder, name, plan],
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"{peer.name}, {name}: {done.stderr.strip()[-400:]}")
        return done.stdout

    step("plant")
    texts, shapes = search(folder, strings, vectors)
    step("erase")
    texts_kept, shapes_kept = search(folder, strings, vectors)
    step("tidy")
    texts_left, shapes_left = search(folder, strings, vectors)
    answered = json.loads(step("ask").splitlines()[-1])
    erased = set(range(0, len(strings), 2))
    return {
        **row,
        "planted": len(strings),
        "texts_found_before": len(texts),
        "vectors_found_before": len(shapes),
        "erased": len(erased),
        "texts_left_by_delete": len(texts_kept & erased),
        "vectors_left_by_delete": len(shapes_kept & erased),
        "texts_left_by_compaction": len(texts_left & erased),
        "vectors_left_by_compaction": len(shapes_left & erased),
        "still_answered": answered["erased"],
        "kept_answered": answered["kept"],
        "kept": len(strings) - len(erased),
    }


def search(
    folder: Path, strings: Sequence[str], vectors: NDArray[np.float32]
) -> tuple[set[int], set[int]]:
    """Numbers of the strings, and of the vectors, of which a piece is in some file."""
    needles: dict[bytes, tuple[str, int]] = {}
    for number, word in enumerate(strings):
        text = word.encode()
        for at in range(len(text) - _PIECE + 1):
            needles[text[at : at + _PIECE]] = ("text", number)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for form in (vectors, unit, vectors.astype("<f8"), vectors.astype(">f8")):
        for number, vector in enumerate(form):
            for at in _PLACES:
                needles[vector[at : at + _RUN].tobytes()] = ("vector", number)
    found: dict[str, set[int]] = {"text": set(), "vector": set()}
    index = _by_first_word(needles)
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        content = file.read_bytes()
        for part in (content, *_inflated(content)):
            for kind, number in _occurring(part, index):
                found[kind].add(number)
    return found["text"], found["vector"]


_Index = tuple[NDArray[np.uint64], list[list[tuple[bytes, tuple[str, int]]]]]


def _by_first_word(needles: dict[bytes, tuple[str, int]]) -> _Index:
    """Needles by their first eight bytes, which are sorted."""
    groups: dict[int, list[tuple[bytes, tuple[str, int]]]] = {}
    for needle, named in needles.items():
        groups.setdefault(int.from_bytes(needle[:8], "little"), []).append((needle, named))
    first = sorted(groups)
    return np.array(first, np.uint64), [groups[word] for word in first]


def _occurring(content: bytes, index: _Index) -> Iterator[tuple[str, int]]:
    first, groups = index
    for shift in range(8):
        whole = (len(content) - shift) // 8
        if whole <= 0:
            return
        words_here = np.frombuffer(content, "<u8", whole, shift)
        places = np.minimum(np.searchsorted(first, words_here), len(first) - 1)
        for at in np.flatnonzero(first[places] == words_here).tolist():
            offset = shift + at * 8
            for needle, named in groups[places[at]]:
                if content.startswith(needle, offset):
                    yield named


def _inflated(content: bytes) -> Iterator[bytes]:
    """What zstd frames and zlib streams in a file hold; broken ones as far as they go."""
    at = content.find(b"\x28\xb5\x2f\xfd")
    while at >= 0:
        stream = zstandard.ZstdDecompressor().decompressobj()
        with suppress(zstandard.ZstdError):  # four bytes that look like a frame
            yield stream.decompress(content[at : at + _MOST_BYTES])
        at = content.find(b"\x28\xb5\x2f\xfd", at + 1)
    for magic in (b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        at = content.find(magic)
        while at >= 0:
            with suppress(zlib.error):  # two bytes that look like a stream
                yield zlib.decompressobj().decompress(content[at:], _MOST_BYTES)
            at = content.find(magic, at + 1)
