"""How long does the server take to answer many agents, and does it lose anything?

    python -m bench serve [--records 100000] [--only offered] [--folder DIR] [--seconds 30]

Clients are processes of their own, with vectors given (and four words, with --words): those of
real texts in --vectors where there are enough, else made up, which take a search several times
longer. Parts, each to be had alone with --only:

* offered    8 clients offer 80 requests a second together, four recalls to an add; rounds with and
             without the audit take turns
* saturated  the same clients as fast as answers come
* soak       8 writers and 8 readers for --minutes: no error, no lost write
* kill       SIGKILL under load: all that was acknowledged is there, the audit verifies, restart
* fuzz       schemathesis over the OpenAPI document for --minutes (not part of a plain run)
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import memdb
from bench import makers, report
from bench.measure import judged, load, percentile, settle

Rows = list[dict[str, Any]]
CLIENTS = 8
OFFERED = 80.0
ADDS_SHARE = 0.2
_VECTORS = 200  # distinct questions
SCHEMATHESIS = "from schemathesis.cli import schemathesis; schemathesis()"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection"
)


@dataclass
class Run:
    """What the parts share."""

    folder: Path
    records: int
    seconds: float
    minutes: float
    rounds: int
    words: bool
    kills: int
    vectors: Path

    @property
    def database(self) -> Path:
        return self.folder / "db"

    @property
    def bare(self) -> Path:
        """A copy for the server without audit: one database has one server."""
        return self.folder / "db-without-audit"


class Server(NamedTuple):
    """A server process, and how to reach it."""

    process: subprocess.Popen[str]
    port: int
    token: str

    def cpu_s(self) -> float:
        """Processor time that it took so far."""
        return cpu_s(self.process.pid)


def cpu_s(pid: int) -> float:
    """Processor time of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(database: Path, *options: str) -> Iterator[Server]:
    """``memdb serve`` as a process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "bench.serve_host", str(database), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        token = Path(said["token_file"]).read_text("utf-8").strip()
        yield Server(process, said["port"], token)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    finally:
        process.kill()
        process.wait()


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    results: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(
            folder=Path(options.folder or temporary),
            records=options.records,
            seconds=options.seconds,
            minutes=options.minutes,
            rounds=options.rounds,
            words=options.words,
            kills=options.kills,
            vectors=options.vectors,
        )
        _prepare(run)
        for name in [options.only] if options.only else ["offered", "saturated", "soak", "kill"]:
            print(f"\n{name}  {load()}")
            results[name] = PARTS[name](run)
            report.table(results[name])
    path = report.save(options.json, "serve", arguments, results)
    print(f"\n{path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=2, help="with and without the audit each")
    parser.add_argument("--minutes", type=float, default=2.0, help="of soak and fuzz")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--words", action="store_true", help="questions have words as well")
    parser.add_argument("--vectors", type=Path, default=makers.VECTORS)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--folder", help="keep the database here, and use it again")
    parser.add_argument("--json", type=Path)
    return parser


# --- what is asked --------------------------------------------------------------------------------


def _prepare(run: Run) -> None:
    """The database, and the encoded requests of the clients."""
    run.folder.mkdir(parents=True, exist_ok=True)
    real = makers.real_vectors(run.vectors, run.records)
    if real is not None and len(real[0]) == run.records:
        vectors, asked = real[0], real[1][:_VECTORS]
    else:
        vectors, asked = makers.vectors(run.records), makers.vectors(_VECTORS, seed=5)
    if not run.database.exists():
        with memdb.open(run.database, embedder="none") as db:
            report.progress(f"writing {run.records:,} memories")
            db.remember_many(makers.memories(run.records, vectors))
            settle(db)
            db.snapshot(run.bare)
    texts = list(makers.texts(_VECTORS, seed=6, per_text=4))
    questions = [
        {"vector": [round(float(x), 5) for x in one], "k": 10}
        | ({"query": text} if run.words else {"mode": "vector"})
        for text, one in zip(texts, asked, strict=True)
    ]
    new = [
        {"items": [{"text": f"@ {text}", "vector": one["vector"], "tags": ["served"]}]}
        for text, one in zip(makers.texts(_VECTORS, seed=8), questions, strict=True)
    ]
    for name, requests in (("recalls", questions), ("adds", new)):
        lines = [json.dumps(one, separators=(",", ":")) for one in requests]
        (run.folder / name).write_text("\n".join(lines))


class Outcome(NamedTuple):
    """What all clients of a round saw."""

    recall_ms: list[float]
    add_ms: list[float]
    errors: list[str]
    acknowledged: list[str]
    late: int
    sent: int


def _clients(run: Run, server: Server, seconds: float, plans: list[dict[str, Any]]) -> Outcome:
    """Run a client process for each plan, all at the same time."""
    begin = time.time() + 1.0
    common = {
        "port": server.port,
        "token": server.token,
        "recalls": str(run.folder / "recalls"),
        "adds": str(run.folder / "adds"),
        "seconds": seconds,
        "begin": begin,
        "rate": 0.0,
        "adds_share": ADDS_SHARE,
        "until_dead": False,
    }
    running = []
    for place, plan in enumerate(plans):
        client = subprocess.Popen(
            [sys.executable, "-m", "bench.serve_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        seed = int(begin * 10) % 1_000_000_000 * 100 + place  # texts of no other round
        client.stdin.write(json.dumps({**common, "seed": seed, **plan}))
        client.stdin.close()
        running.append(client)
    said = [json.loads(client.stdout.read()) for client in running if client.stdout is not None]
    for client in running:
        client.wait()
    return Outcome(
        [ms for one in said for ms in one["times_ms"]["recall"]],
        [ms for one in said for ms in one["times_ms"]["add"]],
        [text for one in said for text in one["errors"]],
        [id for one in said for id in one["acknowledged"]],
        sum(one["late"] for one in said),
        sum(one["sent"] for one in said),
    )


def _row(name: str, seen: Outcome, seconds: float, cpu_s: float) -> dict[str, Any]:
    return {
        "round": name,
        "requests/s": round((len(seen.recall_ms) + len(seen.add_ms)) / seconds, 1),
        "recall p50 ms": percentile(seen.recall_ms, 50) if seen.recall_ms else None,
        "recall p99 ms": percentile(seen.recall_ms, 99) if seen.recall_ms else None,
        "add p50 ms": percentile(seen.add_ms, 50) if seen.add_ms else None,
        "add p99 ms": percentile(seen.add_ms, 99) if seen.add_ms else None,
        "cpu ms/request": cpu_s * 1e3 / max(1, seen.sent),
        "errors": len(seen.errors),
        "late": seen.late,
    }


# --- the parts ------------------------------------------------------------------------------------


def _rounds(run: Run, rate: float) -> Rows:
    rows: Rows = []
    plans = [{"rate": rate / CLIENTS} for _ in range(CLIENTS)]
    with served(run.database) as audited, served(run.bare, "--no-audit") as bare:
        for server in (audited, bare):  # the first questions read pages
            _clients(run, server, 3.0, plans)
        for _ in range(run.rounds):
            for name, server in (("audit on", audited), ("audit off", bare)):
                before = server.cpu_s()
                seen = _clients(run, server, run.seconds, plans)
                rows.append(_row(name, seen, run.seconds, server.cpu_s() - before))
    return rows


def offered(run: Run) -> Rows:
    """80 requests a second of 8 clients."""
    rows = _rounds(run, OFFERED)
    best = {
        name: min(row[name] for row in rows if row["round"] == "audit on")
        for name in ("recall p50 ms", "recall p99 ms", "add p99 ms")
    }
    limits = {"recall p50 ms": 5.0, "recall p99 ms": 15.0, "add p99 ms": 10.0}
    verdicts = [judged(name, best[name], "ms", at_most=limit) for name, limit in limits.items()]
    halves = {
        name: min(row["recall p50 ms"] for row in rows if row["round"] == name)
        for name in ("audit on", "audit off")
    }
    share = (halves["audit on"] / halves["audit off"] - 1) * 100
    verdicts.append(judged("what the audit adds to recall p50", share, "%", at_most=10.0))
    report.table(verdicts)
    return rows


def saturated(run: Run) -> Rows:
    """As many as it answers."""
    rows = _rounds(run, 0.0)
    most = max(row["requests/s"] for row in rows if row["round"] == "audit on")
    report.table([judged("requests a second", most, "1/s", at_least=300.0)])
    return rows


def soak(run: Run) -> Rows:
    """Writers and readers for minutes; then every acknowledged id is looked up."""
    plans = [{"adds_share": 1.0} for _ in range(8)] + [{"adds_share": 0.0} for _ in range(8)]
    seconds = run.minutes * 60
    with served(run.database) as server:
        before = server.cpu_s()
        seen = _clients(run, server, seconds, plans)
        row = _row("8 writers + 8 readers", seen, seconds, server.cpu_s() - before)
    return [{**row, **_checked(run, seen)}]


def kill(run: Run) -> Rows:
    """SIGKILL while clients write; restart; look."""
    rows: Rows = []
    plans = [{"adds_share": 0.7, "until_dead": True} for _ in range(CLIENTS)]
    for number in range(run.kills):
        with served(run.database) as server:
            killer = threading.Thread(target=_kill_after, args=(server, 100 * (number + 1)))
            killer.start()
            seen = _clients(run, server, 60.0, plans)
            killer.join()
        rows.append({"kill": number, "acknowledged": len(seen.acknowledged),
                     **_restarted(run), **_checked(run, seen)})  # fmt: skip
    return rows


def _restarted(run: Run) -> dict[str, float]:
    """Seconds from starting ``memdb serve`` to its first answers, and what they cost.

    The first time writes the bytecode of what changed, if anything did; the second is told.
    """
    found: dict[str, float] = {}
    question = (run.folder / "recalls").read_text().partition("\n")[0]
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        started = time.perf_counter()
        command = [sys.executable, "-m", "memdb.cli", "--db", str(run.database), "--json"]
        process = subprocess.Popen(
            [*command, "--embedder", "none", "serve", "--port", str(port)],
            stdout=subprocess.DEVNULL,
        )
        try:
            _until_answered(port, "GET", "/v1/healthz", None, {})
            healthy = time.perf_counter() - started
            token = (run.database / "server.token").read_text("utf-8").strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            _until_answered(port, "POST", "/v1/recall", question, headers)
            recalled = time.perf_counter() - started
            found = {
                "restart to healthz s": healthy,
                "to a recall s": recalled,
                "cpu s": cpu_s(process.pid),
            }
        finally:
            process.terminate()
            process.wait(60)
    return found


def _until_answered(
    port: int, method: str, path: str, body: str | None, headers: dict[str, str]
) -> None:
    """Ask until somebody is there. Raises what is wrong with the answer."""
    give_up = time.perf_counter() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            got = connection.getresponse()
            if got.status != 200:
                raise RuntimeError(f"{path} answers {got.status}: {got.read()[:200]!r}")
            return
        except ConnectionError:
            if time.perf_counter() > give_up:
                raise
            time.sleep(0.002)
        finally:
            connection.close()


def _kill_after(server: Server, writes: int) -> None:
    """SIGKILL once that many writes were acknowledged, whenever that is."""
    counted = re.compile(r'route="add_memories",status="200"} (\d+)')
    headers = {"Authorization": f"Bearer {server.token}"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while True:
        connection.request("GET", "/metrics", headers=headers)
        found = counted.search(connection.getresponse().read().decode())
        if found is not None and int(found[1]) >= writes:
            break
        time.sleep(0.05)
    connection.close()
    server.process.kill()


def _checked(run: Run, seen: Outcome) -> dict[str, Any]:
    """Whether all that was acknowledged is there, and whether the audit holds."""
    with memdb.open(run.database) as db:
        found = db.get_many(seen.acknowledged)
        verdict = db.audit.verify()
    return {
        "lost": sum(one is None for one in found),
        "audit": "holds" if verdict.ok else verdict.first_bad,
        "audit rows": verdict.rows,
    }


def fuzz(run: Run) -> Rows:
    """Whatever the OpenAPI document allows, and what it does not."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "db") as server:
        examples = max(1, int(run.minutes * 60 / 2))
        done = subprocess.run(
            [sys.executable, "-c", SCHEMATHESIS, "run",
             f"http://127.0.0.1:{server.port}/openapi.json",
             "-H", f"Authorization: Bearer {server.token}",
             "--checks", CHECKS,
             "--max-examples", str(examples)],
            check=False,
        )  # fmt: skip
    return [{"examples a route": examples, "failures": "none" if done.returncode == 0 else "some"}]


PARTS = {
    "offered": offered,
    "saturated": saturated,
    "soak": soak,
    "kill": kill,
    "fuzz": fuzz,
}
