"""Everything compressed and nothing forgotten: what it takes, and what recall loses by it.

All memories of all files go into one database, a namespace a conversation, and every question is
asked of it as it was written. Then all is made as small as it goes: records cold, vectors at the
profile, the next generation packed. Its bytes are counted, file by file, and the same questions are
asked again, through ``recall`` both times. It knows data and the library's public names.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.forgetting.library import disk_bytes, take
from bench.forgetting.statistics import compare
from bench.recall import embedder_of
from bench.recall_data import Conversation, conversations, memory_of, questions_of

SIZE_LIMIT = 0.15
LOSS_LIMIT = 0.03
PROFILES = ("pico", "nano")
_VECTORS = Path("../vectors/minilm384-100k-base.f16.npy")
_TOP = 10
_BATCH = 4096

Conversations = dict[str, list[Conversation]]
Found = dict[str, list[tuple[float, float]]]
"""By file and question: whether all of the evidence was among the first ten, and how much."""


def read(folder: Path, wanted: Sequence[str] | None) -> Conversations:
    """Conversations by file. ``wanted`` names files, each ``PART`` of a name or ``PART:N`` for the
    first N conversations; all where it is None."""
    found: Conversations = {}
    for path in sorted(folder.glob("*.jsonl")):
        for one in wanted or [""]:
            part, _, count = one.partition(":")
            if part in path.name:
                found[path.stem] = list(conversations(path))[: int(count) if count else None]
    return found


def measure(
    everything: Conversations,
    embedder: str | None,
    profiles: Sequence[str],
    again: int,
    vectors: Path,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of bytes, and rows of recall; these once more with the closest ``again`` embedded again.

    With the embedded default where ``embedder`` is None; then, and alone where it is "none", bytes
    with ``vectors`` of other sentences, which take the same as these texts' own of that model.
    """
    sizes: list[dict[str, Any]] = []
    recalled: list[dict[str, Any]] = []
    if embedder != "none":
        _with(everything, embedder or "static", profiles, again, sizes, recalled)
    if embedder in (None, "none") and vectors.exists():
        for profile in profiles:
            with tempfile.TemporaryDirectory() as folder, _opened(folder, "none") as db:
                text = _write(db, everything, np.load(vectors, mmap_mode="r"))
                sizes += _pack(db, folder, f"MiniLM of others, {profile}", profile, text)
    return sizes, recalled


def _with(
    everything: Conversations,
    embedder: str,
    profiles: Sequence[str],
    again: int,
    sizes: list[dict[str, Any]],
    recalled: list[dict[str, Any]],
) -> None:
    model, named = embedder_of(embedder.rpartition("=")[2]), embedder.partition("=")[0]
    written: Found = {}
    for profile in profiles:
        with tempfile.TemporaryDirectory() as folder, _opened(folder, model) as db:
            text = _write(db, everything, None)
            if not written:
                written = _ask(db, everything, model, "as written")
            sizes += _pack(db, folder, f"{named}, {profile}", profile, text)
            packed = _ask(db, everything, model, f"{profile}, packed")
            recalled += _judged(f"{named}, {profile}", written, packed)
            if again:
                db.settings.reembed_top = again
                packed = _ask(db, everything, model, f"{profile}, {again} again")
                recalled += _judged(f"{named}, {profile}, {again} again", written, packed)


def vectors_beside(folder: Path) -> Path:
    """Where vectors of other sentences are, beside a folder of conversations."""
    return folder / _VECTORS


def _opened(folder: str, embedder: Any) -> memdb.Database:
    return memdb.open(folder, embedder=embedder, namespace="")


def _namespace(file: str, conversation: Conversation) -> str:
    return f"{file}/{conversation['id']}".replace("#", "-")


def _memories(everything: Conversations) -> Iterator[dict[str, Any]]:
    for file, several in everything.items():
        for conversation in several:
            for number, item in enumerate(conversation["items"]):
                fields = memory_of(conversation, item, number)
                yield {**fields, "namespace": _namespace(file, conversation), "kind": "event"}


def _write(db: memdb.Database, everything: Conversations, vectors: Any) -> int:
    """All memories; returns the UTF-8 bytes of their texts."""
    text = 0
    batch: list[dict[str, Any]] = []
    for count, item in enumerate(_memories(everything)):
        if vectors is not None:
            item["vector"] = np.asarray(vectors[count % len(vectors)], np.float32)
        text += len(item["text"].encode())
        batch.append(item)
        if len(batch) == _BATCH:
            report.progress(f"size: {count} memories")
            db.remember_many(batch)
            batch = []
    db.remember_many(batch)
    return text


def _pack(
    db: memdb.Database, folder: str, named: str, profile: str, text: int
) -> list[dict[str, Any]]:
    """Make it as small as it goes; rows of bytes, beside ``text`` and float32 vectors."""
    (space,) = db.spaces.list()
    take(db, "encode")
    take(db, "cold")
    take(db, "space", space=space.name, profile=profile)
    db.compact()
    parts = disk_bytes(Path(folder))
    stored = db.count()
    naive = text + 4 * space.dim * stored
    tables = db.stats()["bytes"]["tables"]
    shown = {f"kv/{name}": size for name, size in tables.items() if size > naive / 2000} | parts
    total = sum(parts.values())
    rows: list[dict[str, Any]] = [
        {"vectors": named, "part": name, "bytes": size, "a memory": size / stored,
         "of naive": size / naive, "limit": None, "verdict": None}
        for name, size in shown.items()
    ]  # fmt: skip
    rows.append(
        {"vectors": named, "part": "directory", "bytes": total, "a memory": total / stored,
         "of naive": total / naive, "limit": f"<= {SIZE_LIMIT}",
         "verdict": "met" if total <= SIZE_LIMIT * naive else "not met"}
    )  # fmt: skip
    return rows


def _ask(db: memdb.Database, everything: Conversations, model: Any, label: str) -> Found:
    found: Found = defaultdict(list)
    for file, several in everything.items():
        for number, conversation in enumerate(several):
            report.progress(f"size: {label}, {file} {number + 1}/{len(several)}")
            asked = questions_of(conversation)
            if not isinstance(model, str) and asked:
                model.embed([one.query for one in asked])
            for one in asked:
                hits = db.recall(one.query, k=_TOP, namespace=_namespace(file, conversation))
                reached = one.evidence & {hit.memory.external_id for hit in hits}
                whole = float(len(reached) == len(one.evidence))
                found[file].append((whole, len(reached) / len(one.evidence)))
    return found


def _judged(named: str, written: Found, packed: Found) -> list[dict[str, Any]]:
    """A row a file and one of all: all@10 before and after, what share of it is lost, and the
    95 % interval of that by a bootstrap of questions, paired."""
    rows = []
    together = {"all": [pair for several in written.values() for pair in several], **written}
    now = {"all": [pair for several in packed.values() for pair in several], **packed}
    for file, pairs in together.items():
        before, after = np.array(pairs), np.array(now[file])
        whole = float(before[:, 0].mean())
        change = compare(after[:, 0], before[:, 0])
        lost = -change.difference / whole if whole else 0.0
        rows.append(
            {"vectors": named, "file": file, "questions": len(before),
             "as written": whole, "all@10": float(after[:, 0].mean()), "lost": lost,
             "lost, 95 %": f"{-change.high / whole:.3f} ... {-change.low / whole:.3f}"
             if whole else None,
             "mean@10 as written": float(before[:, 1].mean()), "mean@10": float(after[:, 1].mean()),
             "limit": f"<= {LOSS_LIMIT}", "verdict": "met" if lost <= LOSS_LIMIT else "not met"}
        )  # fmt: skip
    return rows
