"""How often is the evidence for a question among what recall returns?

    python -m bench recall [--data DIR] [--embedder static] [--embedder st:PATH] [--quick]

Every conversation of every file becomes a database of its own, and each question is asked in each
mode; a question counts if it has evidence that exists. Beside the modes stand

* a reference: BM25 in plain Python over the same texts; ``gain`` and ``p`` are against it;
* ``hybrid, exact``: the same with every vector compared;
* ``hybrid - STAGE``: the same with one stage of the ranking switched off;
* ``hybrid, day after``: asked on the day after the last of the conversation, when what is recent
  is so; ``+ prior`` with recency and importance, which are off by default;
* ``hybrid + rerank``: with ``--rerank MODEL``, a cross-encoder;
* ``hybrid, shared``: all conversations of a file in one database, asked with a filter;
* ``no answer``: questions whose evidence the filter leaves out (``recall_unanswerable.py``).

any@k: at least one piece of evidence among the first k; all@k: all of it; mean@k: how much of it.
``--quick`` leaves all but the reference and the modes out, ``--only unanswerable`` all but the
last, ``--only verdicts`` all but the modes and the shared store: what the limits are about, which
every run ends with (``recall_verdicts.py``). A folder ``scifact`` beside DIR is read too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import memdb
from bench import recall_unanswerable, recall_verdicts, report
from bench.embeddings import SentenceTransformer
from bench.recall_data import (
    Asked,
    Conversation,
    conversations,
    day_after,
    memories_of,
    questions_of,
)
from bench.recall_reference import ReferenceBm25, reference_text
from bench.recall_tally import DEPTHS, Tally

DEFAULT_DATA = Path("../shared/data/memory-qa")
REFERENCE = "reference BM25"
_ABLATED_AT_MOST = 1_000  # memories a store: above, ablations and shared stores are left out

Tallies = dict[tuple[str, str], Tally]


class Run:
    """The methods of one file, by name, with what each found."""

    def __init__(
        self,
        embedders: dict[str, Any],
        *,
        quick: bool,
        rerank: str | None = None,
        only: str | None = None,
    ) -> None:
        self._embedders = embedders
        self._quick = quick
        self._rerank = rerank
        self._only = only
        self.tallies: Tallies = defaultdict(Tally)
        self.pairs: dict[str, list[recall_unanswerable.Pair]] = defaultdict(list)

    def ask(
        self, db: memdb.Database, name: str, asked: Sequence[Asked], prefix: str = "", **how: Any
    ) -> None:
        """Ask every question one way, and count what was found under ``name``."""
        for one in asked:
            started, cpu = time.perf_counter(), time.process_time()
            hits = db.recall(one.query, k=max(DEPTHS), **how)
            cpu_ms = (time.process_time() - cpu) * 1e3
            elapsed = (time.perf_counter() - started) * 1e3
            found = [(hit.memory.external_id or "").removeprefix(prefix) for hit in hits]
            for kind in ("all", one.kind):
                self.tallies[name, kind].add(found, one.evidence, elapsed, cpu_ms)

    def alone(self, conversation: Conversation) -> None:
        """One conversation in a database of its own."""
        asked = questions_of(conversation)
        if not asked:
            return
        if self._only is None:
            self._reference(conversation, asked)
        for place, (name, embedder) in enumerate(self._embedders.items()):
            with (
                tempfile.TemporaryDirectory() as folder,
                memdb.open(folder, embedder=embedder) as db,
            ):
                db.remember_many(memories_of(conversation))
                if isinstance(embedder, SentenceTransformer):
                    embedder.embed([one.query for one in asked])
                if self._only == "unanswerable":
                    self._unanswerable(db, name, asked)
                    continue
                if place == 0:
                    self.ask(db, "lexical", asked, mode="lexical")
                self.ask(db, f"vector {name}", asked, mode="vector")
                self.ask(db, f"hybrid {name}", asked)
                self.tallies[f"hybrid {name}", "all"].stored(_bytes_in(folder), db.count())
                if not self._quick and self._only is None:
                    self._further(db, name, conversation)

    def _further(self, db: memdb.Database, name: str, conversation: Conversation) -> None:
        asked = questions_of(conversation)
        self.ask(db, f"hybrid {name}, exact", asked, exact=True)
        if db.count() > _ABLATED_AT_MOST:
            return
        stages = db.recall(asked[0].query, explain=True).plan["stages"]
        if self._rerank is not None:
            self.ask(db, f"hybrid {name} + rerank", asked, rerank=self._rerank)
        for stage, log in stages.items():
            if log["on"] and stage not in ("rerank", "confidence"):  # no model; adds to no score
                self.ask(db, f"hybrid {name} - {stage}", asked, stages={stage: False})
        later = day_after(conversation)
        for mark, switched in (("", {}), (" + prior", {"prior": True})):
            self.ask(db, f"hybrid {name}, day after{mark}", asked, as_of=later, stages=switched)
        self._unanswerable(db, name, asked)

    def _unanswerable(self, db: memdb.Database, name: str, asked: Sequence[Asked]) -> None:
        self.pairs[name].extend(recall_unanswerable.pair(db, one) for one in asked)

    def shared(self, everything: Sequence[Conversation]) -> None:
        """All conversations in one database, each question asked with a filter."""
        if self._quick or self._only == "unanswerable" or len(everything) < 2:
            return
        for name, embedder in self._embedders.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                memdb.open(folder, embedder=embedder) as db,
            ):
                for conversation in everything:
                    db.remember_many(memories_of(conversation, f"{conversation['id']}/"))
                for conversation in everything:
                    prefix = f"{conversation['id']}/"
                    self.ask(
                        db,
                        f"hybrid {name}, shared",
                        questions_of(conversation),
                        prefix,
                        where={"metadata.conversation": prefix},
                    )

    def _reference(self, conversation: Conversation, asked: Sequence[Asked]) -> None:
        bm25 = ReferenceBm25([(str(i["id"]), reference_text(i)) for i in conversation["items"]])
        for one in asked:
            started, cpu = time.perf_counter(), time.process_time()
            found = bm25.search(one.query, max(DEPTHS))
            cpu_ms = (time.process_time() - cpu) * 1e3
            elapsed = (time.perf_counter() - started) * 1e3
            for kind in ("all", one.kind):
                self.tallies[REFERENCE, kind].add(found, one.evidence, elapsed, cpu_ms)


def _bytes_in(folder: str) -> int:
    """What the files of a store take on the disk; they are sparse."""
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def embedder_of(spec: str) -> Any:
    return SentenceTransformer(spec.removeprefix("st:")) if spec.startswith("st:") else spec


def _files(data: Path, parts: Sequence[str] | None) -> list[Path]:
    found = sorted(data.glob("*.jsonl"))
    beside = data.parent / "scifact"
    if (beside / "corpus.jsonl").exists():
        found.append(beside)
    return [file for file in found if not parts or any(part in file.name for part in parts)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench recall", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of *.jsonl files")
    parser.add_argument("--file", action="append", help="only files whose name contains this")
    parser.add_argument("--embedder", action="append", metavar="[NAME=]SPEC")
    parser.add_argument("--limit", type=int, help="conversations of each file")
    parser.add_argument("--types", action="store_true", help="a row for each question type")
    parser.add_argument("--rerank", metavar="SPEC", help="a cross-encoder, such as st:PATH")
    parser.add_argument("--quick", action="store_true", help="the reference and the modes only")
    parser.add_argument("--only", choices=("unanswerable", "verdicts"))
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    files = _files(options.data, options.file)
    if not files:
        print(f"no *.jsonl in {options.data}; name a folder with --data", file=sys.stderr)
        return 2
    named = [spec.rpartition("=") for spec in options.embedder or ["static"]]
    embedders = {name or spec: embedder_of(spec) for name, _, spec in named}
    results: list[dict[str, Any]] = []
    unknown: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for path in files:
        run = Run(embedders, quick=options.quick, rerank=options.rerank, only=options.only)
        everything = list(conversations(path))[: options.limit]
        for number, conversation in enumerate(everything):
            report.progress(f"{path.stem} {number + 1}/{len(everything)}")
            run.alone(conversation)
        run.shared(everything)
        for (method, kind), tally in run.tallies.items():
            if kind == "all" or options.types:
                row = tally.row(run.tallies.get((REFERENCE, kind)))
                results.append({"file": path.stem, "method": method, "type": kind, **row})
        for name, pairs in run.pairs.items():
            judged = recall_unanswerable.rows(pairs)
            unknown.extend({"file": path.stem, "no answer": name, **row} for row in judged)
        verdicts += recall_verdicts.rows(path.stem, run.tallies, list(embedders))
    for table in (results, unknown, verdicts):
        if table:
            report.table(table)
            print()
    report.save(options.json, "recall", arguments, [*results, *unknown, *verdicts])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
