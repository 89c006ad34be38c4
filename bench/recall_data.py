"""Questions with known evidence, from files: conversations, and the BEIR layout of SciFact.

Everything becomes one shape: ``{"id", "items": [{"id", "text", ...}], "queries": [{"q", "type",
"evidence": [item ids]}]}``. Nothing here asks or judges.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

Conversation = dict[str, Any]


class Asked(NamedTuple):
    """One question, its type, and the ids of what answers it."""

    query: str
    kind: str
    evidence: frozenset[str]


def conversations(path: Path) -> Iterator[Conversation]:
    """Of a file of one conversation a line, or of a folder in the BEIR layout."""
    if path.is_dir():
        yield _beir(path)
        return
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _beir(folder: Path) -> Conversation:
    relevant: dict[str, list[str]] = defaultdict(list)
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant[query].append(document)
    with open(folder / "corpus.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    with open(folder / "queries.jsonl", encoding="utf-8") as lines:
        queries = [json.loads(line) for line in lines]
    return {
        "id": folder.name,
        "items": [{"id": d["_id"], "text": f"{d['title']}\n{d['text']}"} for d in documents],
        "queries": [
            {"q": q["text"], "type": "", "evidence": relevant[q["_id"]]}
            for q in queries
            if q["_id"] in relevant
        ],
    }


def questions_of(conversation: Conversation) -> list[Asked]:
    """Those that have evidence which exists."""
    known = {str(item["id"]) for item in conversation["items"]}
    found = []
    for query in conversation["queries"]:
        evidence = frozenset({str(piece) for piece in query["evidence"]} & known)
        if evidence:
            found.append(Asked(query["q"], str(query.get("type", "")), evidence))
    return found


def text_of(item: dict[str, Any]) -> str:
    """What stands in for the memory: who said it, and what."""
    speaker = item.get("speaker")
    return f"{speaker}: {item['text']}" if speaker else str(item["text"])


def memory_of(conversation: Conversation, item: dict[str, Any], position: int) -> dict[str, Any]:
    """Arguments of ``remember``. A session is a stream, and a meeting without sessions is one."""
    fields: dict[str, Any] = {
        "text": text_of(item),
        "external_id": str(item["id"]),
        "event_time": said_at(item),
    }
    if item.get("session") or item.get("speaker"):
        fields["stream"] = f"{conversation['id']}/{item.get('session') or ''}"
        fields["position"] = position
    return fields


def memories_of(conversation: Conversation, mark: str = "") -> list[dict[str, Any]]:
    """All of a conversation; ``mark`` goes before their ids and into ``metadata.conversation``."""
    found = [memory_of(conversation, item, at) for at, item in enumerate(conversation["items"])]
    if mark:
        for fields in found:
            fields["external_id"] = mark + fields["external_id"]
            fields["metadata"] = {"conversation": mark}
    return found


def said_at(item: dict[str, Any]) -> datetime | None:
    """When it was said, of the forms the files use; None for others."""
    for form in ("%I:%M %p on %d %B, %Y", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        try:
            return datetime.strptime(str(item.get("time")), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def day_after(conversation: Conversation) -> datetime | None:
    """A day after the last that was said in it; None where nothing has a time."""
    said = [at for item in conversation["items"] if (at := said_at(item)) is not None]
    return max(said) + timedelta(days=1) if said else None
