"""What lexical search finds on real dialogues, beside a reference BM25 of thirty lines.

Skipped where the evaluation data is absent; it is not part of the project.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import Stemmer
from pyroaring import BitMap

from memdb.query.analyser import Analyser
from memdb.query.lexical import LexicalQuery
from memdb.query.stopwords import stop_words
from memdb.query.tokenizer import indexed_text
from memdb.storage import postings
from memdb.storage.environment import Environment
from memdb.types import Memory

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "memory-qa" / "locomo-dev.jsonl"

Rankings = list[list[str]]


def reference(texts: list[str], questions: list[str], limit: int) -> list[list[int]]:
    """BM25 with Snowball stems over plain words, exact lengths, Python floats."""
    stemmer, stops = Stemmer.Stemmer("english"), stop_words("english")

    def terms(text: str) -> Counter[str]:
        words = re.findall(r"\w+", text.lower())
        return Counter(stemmer.stemWord(word) for word in words if word not in stops)

    docs = [terms(text) for text in texts]
    mean = sum(doc.total() for doc in docs) / len(docs)
    df = Counter(term for doc in docs for term in doc)
    found = []
    for question in questions:
        scores: Counter[int] = Counter()
        for term, times in terms(question).items():
            idf = math.log(1 + (len(docs) - df[term] + 0.5) / (df[term] + 0.5))
            for row, doc in enumerate(docs):
                if term in doc:
                    norm = 1.2 * (0.25 + 0.75 * doc.total() / mean)
                    scores[row] += times * idf * doc[term] * 2.2 / (doc[term] + norm)
        found.append(sorted(scores, key=lambda row: (-scores[row], row))[:limit])
    return found


def ours(path: Path, memories: list[Memory], questions: list[str], limit: int) -> list[list[int]]:
    analyser, env = Analyser(), Environment(path)
    with env.write() as txn:
        texts = [indexed_text(memory) for memory in memories]
        batch = analyser.analyse_many(texts, txn.digest)
        postings.add_segment(txn, range(len(texts)), batch)
    everything = BitMap(range(len(memories)))
    found = []
    for question in questions:
        with env.read() as txn:
            query = LexicalQuery(txn, analyser.query(question, txn.digest))
            found.append(query.search(everything, limit)[0].tolist())
    env.close()
    return found


def all_at(k: int, found: list[list[int]], evidence: list[set[int]]) -> float:
    pairs = zip(found, evidence, strict=True)
    return sum(wanted <= set(rows[:k]) for rows, wanted in pairs) / len(evidence)


@pytest.mark.skipif(not DATA.exists(), reason="the evaluation data is not on this machine")
def test_lexical_search_finds_as_much_as_the_reference_on_real_dialogues(tmp_path: Path) -> None:
    theirs: list[list[int]] = []
    found: list[list[int]] = []
    evidence: list[set[int]] = []
    for number, line in enumerate(DATA.read_text().splitlines()):
        dialogue = json.loads(line)
        items: list[dict[str, Any]] = dialogue["items"]
        place = {item["id"]: row for row, item in enumerate(items)}
        asked = [
            (query["q"], {place[one] for one in query["evidence"] if one in place})
            for query in dialogue["queries"]
        ]
        asked = [(question, wanted) for question, wanted in asked if wanted]
        questions = [question for question, _ in asked]
        evidence += [wanted for _, wanted in asked]
        plain = [f"{item['time']} {item['speaker']}: {item['text']}" for item in items]
        theirs += reference(plain, questions, 20)
        memories = [
            Memory(
                id=str(row),
                text=item["text"],
                metadata={"speaker": item["speaker"]},
                event_time=datetime.strptime(item["time"], "%I:%M %p on %d %B, %Y").replace(
                    tzinfo=UTC
                ),
            )
            for row, item in enumerate(items)
        ]
        (tmp_path / str(number)).mkdir()
        found += ours(tmp_path / str(number), memories, questions, 20)
    assert len(evidence) > 900
    assert all_at(10, found, evidence) >= all_at(10, theirs, evidence) - 0.01
    assert all_at(20, found, evidence) >= all_at(20, theirs, evidence) - 0.01
    assert all_at(10, found, evidence) >= 0.6
