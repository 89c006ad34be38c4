"""``python -m bench NAME [options]``: run one benchmark, or list them."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = {
    "recall": "evidence recall of each mode and embedder on question-answer conversations",
    "write": "durable single writes and batches, beside the bare disk",
    "open": "cold open and import times",
    "ann": "the index beside hnswlib, turbovec, faiss and others: recall, speed, memory, disk",
    "forgetting": "what a byte budget keeps, by policy; a year under one; what everything takes",
    "filter": "filter evaluation times and agreement with brute force",
    "time": "is the right memory first when a question is about time?",
    "context": "is a context within its budget, always, and how long does it take?",
    "crash": "what a power failure leaves of a recorded run, at every sync and in random subsets",
    "faults": "SIGKILL under load: acknowledged writes lost, failed opens",
    "serve": "how long the server takes for many agents, and whether it loses anything",
    "grants": "do grants leak, in pairs of a grant and a question; what they and the audit cost",
    "erase": "the canary test, one person erased in a large store, and killed erasures",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHMARKS:
        print("python -m bench NAME [--help]\n")
        for known, about in BENCHMARKS.items():
            print(f"  {known:10} {about}")
        return 0 if name in ("", "-h", "--help") else 2
    return int(import_module(f"bench.{name}").main(sys.argv[2:]))


if __name__ == "__main__":
    raise SystemExit(main())
