"""One client of ``bench serve``: a process of its own that asks a server and writes down how long.

Reads a plan as JSON from standard input and prints what happened as JSON. It imports nothing of
memdb, so that it costs the machine little beside the server that is measured. Requests are encoded
beforehand; a time goes from sending a request to having read its answer.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

_PATHS = {"recall": "/v1/recall", "add": "/v1/memories"}


class Client:
    """A kept connection, and what was answered over it."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None
        self.times_ms: dict[str, list[float]] = {"recall": [], "add": []}
        self.errors: list[str] = []
        self.acknowledged: list[str] = []

    def ask(self, kind: str, body: bytes) -> bool:
        """Send one request; False where no answer came."""
        started = time.perf_counter()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
                self._connection.connect()
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.request("POST", _PATHS[kind], body, self._headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection = None
            self.errors.append(type(error).__name__)
            return False
        self.times_ms[kind].append((time.perf_counter() - started) * 1e3)
        if answer.status != 200:
            self.errors.append(f"{answer.status} {data[:120]!r}")
        elif kind == "add":
            self.acknowledged += [one["id"] for one in json.loads(data)]
        return True


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Ask as the plan says: at a rate, or as fast as answers come; until a time or a death."""
    draw = random.Random(plan["seed"])
    recalls = Path(plan["recalls"]).read_bytes().splitlines()
    adds = Path(plan["adds"]).read_bytes().splitlines()
    client = Client(plan["port"], plan["token"])
    rate = plan["rate"]
    time.sleep(max(0.0, plan["begin"] - time.time()))
    due = time.perf_counter() + (draw.random() / rate if rate else 0.0)
    stop = time.perf_counter() + plan["seconds"]
    late = sent = 0
    while (now := time.perf_counter()) < stop:
        if rate:
            if now < due:
                time.sleep(due - now)
            late += time.perf_counter() - due > 0.05
            due += 1 / rate
        if draw.random() < plan["adds_share"]:
            # A number makes each text one of its own: what is stored already is not written again.
            body = adds[sent % len(adds)].replace(b"@", f"{plan['seed']} {sent}".encode(), 1)
            kind = "add"
        else:
            kind, body = "recall", recalls[draw.randrange(len(recalls))]
        sent += 1
        if not client.ask(kind, body) and plan["until_dead"]:
            break
    return {
        "times_ms": client.times_ms,
        "errors": client.errors,
        "acknowledged": client.acknowledged,
        "late": late,
        "sent": sent,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
