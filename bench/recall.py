"""How often is the evidence for a question among what recall returns?

    python -m bench recall [--data DIR] [--embedder static --embedder st:PATH] [--json FILE]

Every conversation of every file becomes a database of its own; each question is asked in each mode;
a question counts if it has evidence that exists. any@k: at least one piece of evidence among the
first k; all@k: all of it. Beside the modes stands a reference: BM25 in plain Python over the same
texts with the same stems, but float lengths and no index, so that a fault of ours cannot hide.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import Stemmer

import memdb
from bench import report
from bench.embeddings import SentenceTransformer

DEPTHS = (5, 10, 20)
MODES = ("lexical", "vector", "hybrid")
DEFAULT_DATA = Path("../shared/data/memory-qa")


@dataclass
class Tally:
    """Counts of one (file, method, question type)."""

    questions: int = 0
    any_at: Counter[int] = field(default_factory=Counter)
    all_at: Counter[int] = field(default_factory=Counter)
    fraction_at: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    milliseconds: list[float] = field(default_factory=list)

    def add(self, found: list[str], evidence: set[str], milliseconds: float) -> None:
        self.questions += 1
        self.milliseconds.append(milliseconds)
        for k in DEPTHS:
            hit = len(evidence & set(found[:k]))
            self.any_at[k] += hit > 0
            self.all_at[k] += hit == len(evidence)
            self.fraction_at[k] += hit / len(evidence)

    def row(self) -> dict[str, Any]:
        n = max(1, self.questions)
        figures: dict[str, Any] = {"questions": self.questions}
        for k in DEPTHS:
            figures[f"any@{k}"] = self.any_at[k] / n
            figures[f"all@{k}"] = self.all_at[k] / n
            figures[f"mean@{k}"] = self.fraction_at[k] / n
        figures["p50_ms"] = statistics.median(self.milliseconds) if self.milliseconds else 0.0
        return figures


def conversations(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def indexed(item: dict[str, Any]) -> str:
    """What stands in for the memory: who said it, and what."""
    speaker = item.get("speaker")
    return f"{speaker}: {item['text']}" if speaker else str(item["text"])


def memory_of(conversation: dict[str, Any], item: dict[str, Any], position: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "text": indexed(item),
        "external_id": str(item["id"]),
        "event_time": said_at(item),
    }
    if item.get("session"):
        fields["stream"] = f"{conversation['id']}/{item['session']}"
        fields["position"] = position
    return fields


def said_at(item: dict[str, Any]) -> datetime | None:
    """When it was said, of the forms the files use; None for others."""
    for form in ("%I:%M %p on %d %B, %Y", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        try:
            return datetime.strptime(str(item.get("time")), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def questions_of(conversation: dict[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    known = {str(item["id"]) for item in conversation["items"]}
    for query in conversation["queries"]:
        evidence = {str(piece) for piece in query["evidence"]} & known
        if evidence:
            yield query["q"], str(query.get("type", "")), evidence


def run_file(
    path: Path, embedders: dict[str, Any], limit: int | None
) -> dict[tuple[str, str], Tally]:
    """{(method, type): tally} over the conversations of one file."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    everything = list(conversations(path))[:limit]
    for number, conversation in enumerate(everything):
        report.progress(f"{path.stem} {number + 1}/{len(everything)}")
        asked = list(questions_of(conversation))
        if not asked:
            continue
        _reference(conversation, asked, tallies)
        for place, (name, embedder) in enumerate(embedders.items()):
            _ours(conversation, asked, name, embedder, place == 0, tallies)
    return tallies


def _ours(
    conversation: dict[str, Any],
    asked: list[tuple[str, str, set[str]]],
    name: str,
    embedder: Any,
    once: bool,
    tallies: dict[tuple[str, str], Tally],
) -> None:
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder, embedder=embedder) as db:
        items = [memory_of(conversation, i, n) for n, i in enumerate(conversation["items"])]
        db.remember_many(items)
        if isinstance(embedder, SentenceTransformer):
            embedder.embed([query for query, _, _ in asked])
        for query, kind, evidence in asked:
            for mode in MODES:
                if mode == "lexical" and not once:
                    continue
                started = time.perf_counter()
                hits = db.recall(query, k=max(DEPTHS), mode=mode)  # type: ignore[arg-type]
                elapsed = (time.perf_counter() - started) * 1e3
                found = [hit.memory.external_id or "" for hit in hits]
                method = mode if mode == "lexical" else f"{mode} {name}"
                tallies[method, "all"].add(found, evidence, elapsed)
                tallies[method, kind].add(found, evidence, elapsed)


def embedder_of(spec: str) -> Any:
    return SentenceTransformer(spec.removeprefix("st:")) if spec.startswith("st:") else spec


def _reference(
    conversation: dict[str, Any],
    asked: list[tuple[str, str, set[str]]],
    tallies: dict[tuple[str, str], Tally],
) -> None:
    bm25 = ReferenceBm25([(str(i["id"]), reference_text(i)) for i in conversation["items"]])
    for query, kind, evidence in asked:
        started = time.perf_counter()
        found = bm25.search(query, max(DEPTHS))
        elapsed = (time.perf_counter() - started) * 1e3
        tallies["reference BM25", "all"].add(found, evidence, elapsed)
        tallies["reference BM25", kind].add(found, evidence, elapsed)


def reference_text(item: dict[str, Any]) -> str:
    """The reference indexes the date as well: the design's settings."""
    return f"{indexed(item)} {item.get('time') or ''}"


_STEMMER = Stemmer.Stemmer("english")
_WORD = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]+")
_STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be been before but by can could d did do does
    for from had has have he her him his how i if in into is it its just ll m me my no not of on or
    our re s she so some t than that the their them then there these they this to too up us ve very
    was we were what when where which who whom whose why will with would you your""".split()
)


def reference_terms(text: str) -> list[str]:
    """Lower-case words without stop and question words, stemmed; Chinese in pairs of signs."""
    terms: list[str] = []
    for word in _WORD.findall(text.lower()):
        if word[0] > "z":
            terms.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in _STOP_WORDS:
            terms.append(_STEMMER.stemWord(word))
    return terms


class ReferenceBm25:
    """Okapi BM25 over a list of (id, text): k1 = 1.2, b = .75, nothing clever."""

    def __init__(self, texts: list[tuple[str, str]]) -> None:
        self._ids = [id for id, _ in texts]
        self._counts = [Counter(reference_terms(text)) for _, text in texts]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean = sum(self._lengths) / max(1, len(self._lengths))
        self._df = Counter(term for counts in self._counts for term in counts)

    def search(self, query: str, k: int) -> list[str]:
        scores: dict[int, float] = defaultdict(float)
        n = len(self._ids)
        for term, times in Counter(reference_terms(query)).items():
            df = self._df.get(term, 0)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            for place, counts in enumerate(self._counts):
                tf = counts.get(term, 0)
                if tf:
                    norm = 1.2 * (0.25 + 0.75 * self._lengths[place] / self._mean)
                    scores[place] += times * idf * tf * 2.2 / (tf + norm)
        best = sorted(scores, key=lambda place: (-scores[place], place))[:k]
        return [self._ids[place] for place in best]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench recall", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of *.jsonl files")
    parser.add_argument("--file", action="append", help="only files whose name contains this")
    parser.add_argument("--embedder", action="append", metavar="[NAME=]SPEC")
    parser.add_argument("--limit", type=int, help="conversations of each file")
    parser.add_argument("--types", action="store_true", help="a row for each question type")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    files = [
        f
        for f in sorted(options.data.glob("*.jsonl"))
        if not options.file or any(part in f.name for part in options.file)
    ]
    if not files:
        print(f"no *.jsonl in {options.data}; name a folder with --data", file=sys.stderr)
        return 2
    named = [spec.rpartition("=") for spec in options.embedder or ["static"]]
    embedders = {name or spec: embedder_of(spec) for name, _, spec in named}
    results = []
    for path in files:
        tallies = run_file(path, embedders, options.limit)
        for (method, kind), tally in tallies.items():
            if kind == "all" or options.types:
                results.append({"file": path.stem, "method": method, "type": kind, **tally.row()})
    report.table(results)
    report.save(options.json, "recall", arguments, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
