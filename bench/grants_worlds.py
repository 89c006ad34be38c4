"""What ``bench grants`` asks about: made-up lives, grants, filters and questions.

All of it follows from a random generator that is handed in. It compares nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import memdb

NOW: Final = datetime(2025, 3, 1, 12, tzinfo=UTC)
_WORDS: Final = (
    "ana trip rome dinner peanuts doctor garden meeting budget birthday train hotel call work"
    " swim piano school letter visit house winter market river coffee concert allergy city plan dog"
).split()
_NAMESPACES: Final = ("home", "home/planner", "work", "work/mail/inbox", "homeward")
_LABELS: Final = (None, None, None, "public", "personal", "private", "secret", "eyes only")
_TAGS: Final = ("a", "b", "diary", "shared")
_KINDS: Final = ("note", "event", "message")
_STREAMS: Final = (None, "chat/ana", "chat/ben")
_SOURCES: Final = ("app:mail", "app:chat", "agent:planner")
_TIME_WORDS: Final = (
    "yesterday",
    "last week",
    "in January",
    "before the trip",
    "after the concert",
    "when did I last",
    "the first",
    "this year",
)


class WordVectors:
    """An embedder whose vectors are sums of one for each word: near texts share words."""

    name = "words"
    revision = "1"
    dim = 16
    max_tokens = 256

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: list[str], role: str = "document") -> NDArray[np.float32]:
        found = np.zeros((len(texts), self.dim), np.float32)
        for place, text in enumerate(texts):
            for word in text.lower().split():
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
                found[place] += np.random.default_rng(seed).standard_normal(self.dim)
        return found


def live(db: memdb.Database, rng: random.Random, memories: int) -> list[str]:
    """Fill ``db``; the ids of all that was written, forgotten ones too.

    Facts come first and are not updated: an import writes them so, and where nothing else is said
    the order written is the order told.
    """
    ids: list[str] = []
    for _ in range(memories // 8):
        namespace, subject = rng.choice(_NAMESPACES), rng.choice(("user", "Ana"))
        written = db.profile.set(
            rng.choice(("city", "diet", "phone")),
            rng.choice(_WORDS),
            subject=subject,
            namespace=namespace,
            valid_from=NOW - timedelta(days=rng.randrange(1, 400)),
            sensitivity=rng.choice(_LABELS),
            source="form",
        )
        ids.append(written.id)
    facts = len(ids)
    for number in range(memories):
        written = db.remember(**_memory(rng, ids, number))
        ids.append(written.id)
    for hour in rng.sample(range(500), memories // 6):  # samples of one time have no order
        db.history.append(
            "pulse",
            data={"bpm": rng.randrange(50, 90)},
            event_time=NOW - timedelta(hours=hour),
            stream=rng.choice(("watch", "band")),
            namespace=rng.choice(_NAMESPACES),
            source="app:watch",
        )
    for id in rng.sample(ids[facts:], memories // 12):
        if db.get(id) is not None:
            db.update(id, tags=[rng.choice(_TAGS)], text=said(rng), sensitivity=None)
    db.forget(rng.sample(ids, memories // 15))
    return ids


def said(rng: random.Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(2, 9)))


def _memory(rng: random.Random, ids: list[str], number: int) -> dict[str, Any]:
    kind = rng.choice(_KINDS)
    happened = rng.random() < 0.6
    fields: dict[str, Any] = {
        "text": said(rng),
        "kind": kind,
        "namespace": rng.choice(_NAMESPACES),
        "tags": rng.sample(_TAGS, rng.randrange(3)),
        "metadata": {"room": rng.choice(("kitchen", "hall")), "n": rng.randrange(20)},
        "source": rng.choice(_SOURCES),
        "stream": rng.choice(_STREAMS),
        "about": rng.sample(("Ana", "Ben"), rng.randrange(3)),
        "sensitivity": rng.choice(_LABELS),
        "external_id": f"x-{number}" if rng.random() < 0.2 else None,
        "dedup": rng.choice(("exact", "near")),
    }
    if happened:
        at = NOW - timedelta(minutes=rng.randrange(60 * 24 * 90))
        fields["event_time"] = at
        if kind == "event" and rng.random() < 0.5:
            fields["event_end"] = at + timedelta(hours=2)
    if rng.random() < 0.1:
        fields["expires_at"] = NOW + timedelta(days=rng.choice((-5, 5)))
    if ids and rng.random() < 0.2:
        fields["derived_from"] = rng.sample(ids, min(len(ids), 2))
    return fields


def condition(rng: random.Random, depth: int = 0, *, ties: bool = True) -> dict[str, Any]:
    """A filter, of a grant or of a question. ``ties``: it may ask what a memory was derived from,
    of which an export through a grant says less."""
    inner = partial(condition, rng, depth + 1, ties=ties)
    choices: list[Callable[[], dict[str, Any]]] = [
        lambda: {"namespace": {"$prefix": rng.choice(("home", "work", "home/"))}},
        lambda: {"namespace": {"$in": rng.sample(_NAMESPACES, rng.randrange(3))}},
        lambda: {"kind": rng.choice(_KINDS)},
        lambda: {"tags": {"$contains": rng.choice(_TAGS)}},
        lambda: {"tags": {"$nin": rng.sample(_TAGS, 2)}},
        lambda: {"source": {"$prefix": "app:"}},
        lambda: {"metadata.room": rng.choice(("kitchen", "hall"))},
        lambda: {"metadata.n": {"$gte": rng.randrange(20)}},
        lambda: {"event_time": {"$gte": str((NOW - timedelta(days=rng.randrange(90))).date())}},
        lambda: {"about": rng.choice(("Ana", "Ben"))},
        lambda: {"stream": {"$exists": rng.random() < 0.5}},
        lambda: {"namespace": {"$exists": True}},
    ]
    if ties:
        choices.append(lambda: {"derived_from": {"$exists": rng.random() < 0.5}})
    if depth < 2:
        choices += [
            lambda: {"$not": inner()},
            lambda: {"$or": [inner(), inner()]},
            lambda: {"$and": [inner(), inner()]},
        ]
    return rng.choice(choices)()


def grant(rng: random.Random) -> memdb.Grant:
    """What somebody may see; a tenth of them next to nothing."""
    return memdb.Grant(
        actions=("read", "export"),
        where=None if rng.random() < 0.15 else condition(rng, ties=False),
        deny=condition(rng, ties=False) if rng.random() < 0.4 else None,
        namespace=rng.choice(_NAMESPACES),
        sensitivity=rng.choice((None, "public", "personal", "private", "secret")),
    )


@dataclass(frozen=True)
class Ask:
    """One question: a verb by its dotted name and its arguments. ``plain``: whether a plain handle
    answers it alike."""

    verb: str
    arguments: dict[str, Any]
    plain: bool = True


def question(rng: random.Random, ids: list[str]) -> Ask:
    """One of everything that can be asked."""
    where = condition(rng) if rng.random() < 0.4 else None
    words = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 5)))
    timed = f"{rng.choice(_TIME_WORDS)} {words}"
    namespace = rng.choice((None, "", "home", "work/mail", "nowhere"))
    id = rng.choice(ids)
    choices: list[Callable[[], Ask]] = [
        lambda: _recall(rng, words, where, namespace),
        lambda: _recall(rng, timed, where, namespace),
        lambda: Ask("recall_within", {"radius": rng.random(), "query": words, "where": where}),
        lambda: Ask(
            "context", {"query": rng.choice((words, timed)), "tokens": 400, "where": where}
        ),
        lambda: Ask("timeline", {"query": timed, "limit": 12, "where": where}),
        lambda: Ask("timeline", {"limit": 7, "where": where, "namespace": namespace}, plain=False),
        lambda: Ask("list", {"where": where, "limit": rng.randrange(1, 9)}, plain=False),
        lambda: Ask("count", {"where": where}),
        lambda: Ask("iter", {"where": where}),
        lambda: Ask("values", {"field": rng.choice(_FIELDS), "where": where}),
        lambda: Ask("namespaces", {}),
        lambda: Ask("stats", {}, plain=False),
        lambda: Ask("get", {"id": id}),
        lambda: Ask("get_many", {"ids": rng.sample(ids, 3)}),
        lambda: Ask("get", {"external_id": f"x-{rng.randrange(40)}", "namespace": "home"}),
        lambda: Ask("profile.get", {"key": "city", "namespace": rng.choice(_NAMESPACES)}),
        lambda: Ask("profile.versions", {"key": "diet", "namespace": rng.choice(_NAMESPACES)}),
        lambda: Ask("profile.items", {"subject": rng.choice(("user", None)), "namespace": ""}),
        lambda: Ask("history.range", {"where": where, "reverse": rng.random() < 0.5}),
        lambda: Ask("history.range", {"kind": "pulse", "limit": 5, "namespace": namespace}),
    ]
    weighted = [*choices, *choices[:2], *choices[:2], *choices[:2]]
    return rng.choice(weighted)()


_FIELDS: Final = "tags kind source sensitivity metadata.room metadata.n derived_from about".split()


def _recall(
    rng: random.Random, words: str, where: dict[str, Any] | None, namespace: str | None
) -> Ask:
    return Ask(
        "recall",
        {
            "query": words,
            "k": rng.choice((1, 3, 10, 50)),
            "where": where,
            "namespace": namespace,
            "mode": rng.choice(("hybrid", "hybrid", "lexical", "vector")),
            "time": rng.choice(("boost", "boost", "filter", "off")),
            "as_of": rng.choice((None, None, NOW - timedelta(days=50))),
            "min_score": rng.choice((None, None, 0.2)),
            "exact": True,
            "explain": rng.random() < 0.3,
        },
    )
