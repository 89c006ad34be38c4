"""One step of a trial with one store, in a process of its own:

    python harness.py ADAPTER FOLDER STEP PLAN

STEP is "plant", "erase", "tidy" or "ask"; PLAN a JSON file with ``ids``, ``texts``, ``vectors`` and
the ``erased`` ids. "ask" prints how many of the erased, and of the others, are
still answered. The store is closed, and the process ends, before anybody looks at its files.

Runs in the store's environment: only the standard library and the adapter are imported.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def adapter(path: str) -> Any:
    """The module of an adapter, which has ``Store``."""
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: str, folder: str, step: str, plan_path: str) -> None:
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    store = adapter(path).Store(Path(folder), len(plan["vectors"][0]), new=step == "plant")
    try:
        if step == "plant":
            store.add(plan["ids"], plan["texts"], plan["vectors"])
        elif step == "erase":
            store.delete(plan["erased"])
        elif step == "tidy":
            store.tidy()
        else:
            there = set(store.present(plan["ids"]))
            erased = set(plan["erased"])
            answer = {"erased": len(there & erased), "kept": len(there - erased)}
            print(json.dumps(answer))
    finally:
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
