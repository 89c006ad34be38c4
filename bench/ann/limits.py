"""What a graph in a file is held to, and whether rows of one run meet it.

Limits of speed, memory and build are relative to hnswlib, and to our own scan, in the same run;
those of the disk are bytes: so many for a vector with its code, its edges, its record and its
place, and beside them at most ``ID_BYTES`` for the caller's own 64-bit ids, which a VectorIndex
adds. A limit that is stated for a number of vectors holds from there on. It knows rows, and neither
measures nor prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.ann import against

Row = dict[str, Any]
MILLION: Final = 1_000_000
AT_98: Final = {"exact": 1.0, "standard": 0.8}
DISK_BYTES: Final = {"standard": 600, "compact": 430}
ID_BYTES: Final = 40
_OF_VECTORS: Final = ("codes_disk_bytes", "records_disk_bytes", "graph_disk_bytes")
BUILD_TIMES: Final = 1.5
TOUCHED_TIMES: Final = 10
RECALL: Final = 0.95


def memory_share(vectors: int) -> int:
    """One part in so many of hnswlib's memory: private, and mapped codes."""
    return 12 if vectors >= MILLION else 6


def table(rows: Sequence[Row]) -> list[Row]:
    """One line a limit, of every graph that was measured beside its peer or its scan."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        if "part" not in row and "about" in row:
            groups.setdefault((row["vectors"], row["label"]), []).append(row)
    lines = []
    for (vectors, label), mine in groups.items():
        if mine[0]["engine"] != "memdb" or mine[0]["about"].get("kind") != "ssd":
            continue
        profile = str(mine[0]["about"].get("profile"))
        peer = _named(groups, vectors, lambda row: row["engine"] == against.PEER)
        scan = _named(
            groups,
            vectors,
            lambda row, profile=profile: (
                row["engine"] == "memdb"
                and (row["about"].get("kind"), row["about"].get("profile")) == ("flat", profile)
            ),
        )
        held = [*_beside(mine, peer, vectors, profile), *_beside_scan(mine, scan, vectors),
                *_own(mine, vectors, profile)]  # fmt: skip
        lines += [
            {
                "engine": label,
                "vectors": vectors,
                "held to": what,
                "limit": limit,
                "found": "not reached" if found is None else f"{found:.2f}",
                "verdict": "met" if found is not None and holds(found) else "not met",
            }
            for what, limit, found, holds in held
        ]
    return lines


def _named(groups: dict[tuple[int, str], list[Row]], vectors: int, is_it: Any) -> list[Row]:
    return next((g for (n, _), g in groups.items() if n == vectors and is_it(g[0])), [])


Held = tuple[str, str, float | None, Any]


def _at_least(limit: float) -> Any:
    return lambda found: found >= limit


def _at_most(limit: float) -> Any:
    return lambda found: found <= limit


def _times(ours: float | None, theirs: float | None) -> float | None:
    return None if not ours or not theirs else ours / theirs


def _beside(mine: list[Row], peer: list[Row], vectors: int, profile: str) -> Iterator[Held]:
    if not peer:
        return
    wanted = {RECALL: 1.0, 0.98: AT_98.get(profile)}
    for recall, limit in wanted.items():
        if limit is not None:
            found = _times(against.qps_at(mine, recall), against.qps_at(peer, recall))
            yield f"QPS at {recall:.2f}, of hnswlib's", f">= {limit}", found, _at_least(limit)
    share = memory_share(vectors)
    found = against.share(mine, peer, "kept_per_vector")
    yield "hnswlib's memory, of private and codes", f">= {share}", found, _at_least(share)
    found = _times(peer[0]["build_s"], mine[0]["build_s"])
    yield "hnswlib's time to build, of ours", f">= {BUILD_TIMES}", found, _at_least(BUILD_TIMES)


def _beside_scan(mine: list[Row], scan: list[Row], vectors: int) -> Iterator[Held]:
    if not scan or vectors < MILLION:
        return
    found = _times(against.qps_at(mine, RECALL), against.qps_at(scan, RECALL))
    yield "QPS at 0.95, of our scan's", "> 1", found, lambda times: times > 1
    touched = [
        min((row["touched_bytes"] or 0 for row in group if row["recall"] >= RECALL), default=0)
        for group in (scan, mine)
    ]
    yield (
        "bytes our scan touches, of ours", f">= {TOUCHED_TIMES}", _times(*touched),
        _at_least(TOUCHED_TIMES),
    )  # fmt: skip


def _own(mine: list[Row], vectors: int, profile: str) -> Iterator[Held]:
    limit, about = DISK_BYTES.get(profile), mine[0]["about"]
    if limit is not None and all(name in about for name in _OF_VECTORS):
        each = sum(about[name] for name in _OF_VECTORS) / vectors
        ids = mine[0]["disk_bytes_per_vector"] - each
        yield "bytes a vector on disk, without ids", f"<= {limit}", each, _at_most(limit)
        yield "bytes a vector on disk, of ids", f"<= {ID_BYTES}", ids, _at_most(ID_BYTES)
    peak = mine[0].get("build_peak_bytes")
    if vectors >= MILLION and peak is not None:
        yield "GB to build, beyond the input", "<= 1", peak / 1e9, _at_most(1.0)
