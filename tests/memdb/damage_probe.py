"""Opens damaged copies of a database, each in a process of its own, and says what happened.

    python -m tests.memdb.damage_probe PRISTINE SCRATCH  < damages  > outcomes     (JSON lines)

A damage is [kind, file, argument]. An outcome is "right" (every question answered rightly), "typed"
(some raised a ``MemdbError`` in its place), "missed" (an answer lacks something, and ``check`` says
that the store is damaged) or what must never be: "wrong ...", "foreign ...",
"signal ...", "hang". A crash would take the test run with it: hence the processes. They are forked
from this one, which imports memdb and opens nothing.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import traceback
from pathlib import Path

import memdb
from tests.memdb import full_store

SECONDS = 20


def damage(root: Path, kind: str, file: str, argument: float) -> None:
    """Do it to the one file that the pattern names; ``argument`` in [0, 1) is a seed or a place."""
    (path,) = sorted(root.glob(file))
    content = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
    elif kind == "truncate":
        os.truncate(path, int(len(content) * argument))
    elif kind == "flip":
        at = int(len(content) * argument)
        content[at] ^= 1 << random.Random(argument).randrange(8)
        path.write_bytes(content)
    elif kind == "zero":  # a page that never reached the disk
        at = int(len(content) * argument) // 4096 * 4096
        content[at : at + 4096] = bytes(len(content[at : at + 4096]))
        path.write_bytes(content)
    elif kind == "garbage":  # a page that belongs to another file
        at = int(len(content) * argument) // 4096 * 4096
        content[at : at + 4096] = random.Random(argument).randbytes(len(content[at : at + 4096]))
        path.write_bytes(content)
    elif kind == "append":
        path.write_bytes(bytes(content) + b"\x5a" * 5000)
    else:
        raise ValueError(kind)


def probe(root: Path, *, exact: bool) -> str:
    """Ask everything; a typed error is an answer, as long as ``check`` then tells of damage."""
    typed: list[str] = []

    def note(error: memdb.MemdbError) -> None:
        if isinstance(error, memdb.StoreCorrupt) and not error.path:
            raise AssertionError(f"StoreCorrupt names no file: {error}") from error
        typed.append(f"{type(error).__name__}: {error}")

    clock = full_store.Clock()
    clock.advance(days=41)
    try:
        with memdb.open(root, embedder="none", clock=clock) as db:
            for name, ask, right in full_store.questions(db, exact=exact):
                try:
                    answer = ask()
                except memdb.MemdbError as error:
                    note(error)
                    continue
                if answer != right:
                    found = db.check()
                    kind = "wrong" if found["ok"] else "missed"
                    return f"{kind} {name}: {str(answer)[:100]} {found['problems'][:1]}"
            found = db.check()
            if typed and found["ok"]:
                return f"wrong check: sees nothing, but {typed[0]}"
            try:
                db.remember("after the damage", external_id="after", vector=full_store.vector(9))
                hits = db.recall("damage", mode="lexical")
                if [hit.text for hit in hits] != ["after the damage"]:
                    return "wrong: a write after the damage is not found"
            except memdb.MemdbError as error:
                note(error)
            if typed or not found["ok"]:
                return f"typed {typed[:1] or found['problems'][:1]}"
    except memdb.MemdbError as error:
        note(error)
        return f"typed {typed[-1]}"
    return "right"


def in_child(root: Path, *, exact: bool) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            outcome = probe(root, exact=exact)
        except BaseException as error:  # noqa: BLE001 - reported, whatever it is
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            outcome = f"foreign {type(error).__name__}: {error} at {where}"
        os.write(writing, outcome.encode()[:4000])
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    if not ready:
        os.kill(child, signal.SIGKILL)
    outcome = os.read(reading, 4000).decode() if ready else "hang"
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and ready:
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return outcome


def main() -> None:
    pristine, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        kind, file, argument = json.loads(line)
        root = scratch / "db"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(pristine, root)
        damage(root, kind, file, argument)
        # Codes estimate: damaged ones may cost recall until ``check`` finds them, never exactness.
        outcome = in_child(root, exact=file.endswith("codes.bin"))
        print(json.dumps([kind, file, argument, outcome]), flush=True)


if __name__ == "__main__":
    main()
