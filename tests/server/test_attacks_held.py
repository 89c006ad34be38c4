"""Attacks that need a server in a certain state: from another address, held up, with packed bodies.

Beside ``test_attacks``, which has the others by the numbers of the design.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from memdb.server.limits import Limits
from tests.server.running import Served, serving

WRITE = {"items": [{"text": "the kettle is on"}]}


def other_addresses() -> list[str]:
    """Of this device, but the one the server listens to."""
    found = ["127.0.0.2", "::1"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))  # of documentation; connecting sends nothing
        found.append(probe.getsockname()[0])
    return found


@pytest.mark.parametrize("address", other_addresses())
def test_nobody_comes_in_by_another_address(served: Served, address: str) -> None:
    with pytest.raises(OSError):
        socket.create_connection((address, served.port), timeout=10).close()


def test_a_packed_body_is_not_unpacked(served: Served) -> None:
    before = served.db.count()
    bomb = gzip.compress(b'{"items": [{"text": "' + b"x" * (64 << 20) + b'"}]}')
    for raw in (bomb, gzip.compress(json.dumps(WRITE).encode())):
        for encoding in ("gzip", "x-gzip", "gzip, gzip"):
            headers = {"Content-Encoding": encoding}
            answer = served.ask("POST", "/v1/memories", raw=raw, headers=headers)
            assert answer.status == 400
    assert served.db.count() == before


@contextmanager
def writer_held(served: Served) -> Iterator[None]:
    """Nobody can write: who asks for that is in work for as long as this lasts."""
    held, go = threading.Event(), threading.Event()

    def hold(txn: object) -> None:
        held.set()
        assert go.wait(60)

    holding = threading.Thread(target=served.db._engine.store.write, args=(hold,))
    holding.start()
    try:
        assert held.wait(30)
        yield
    finally:
        go.set()
        holding.join()


def let_in(served: Served) -> tuple[int, str]:
    """What becomes of a write that is sent again while there is no room for it."""
    while True:
        answer = served.ask("POST", "/v1/memories", WRITE)
        if answer.json["code"] != "too_many_requests_at_once":
            return answer.status, str(answer.json["code"])


def test_many_slow_requests_hold_up_nobody_for_longer_than_they_may(tmp_path: Path) -> None:
    limits = Limits(at_once=2, request_s=4.0)
    with serving(tmp_path / "db", limits=limits) as served, ThreadPoolExecutor(2) as clients:
        with writer_held(served):
            slow = [clients.submit(let_in, served) for _ in range(2)]
            stop = time.monotonic() + 30
            while (late := served.ask("GET", "/v1/namespaces")).status == 200:
                assert time.monotonic() < stop
            assert late.status == 503 and late.json["code"] == "too_many_requests_at_once"
            assert int(late.headers["retry-after"]) >= 1
            assert {one.result() for one in slow} == {(503, "timed_out")}
            assert served.ask("GET", "/v1/namespaces").status == 200
        assert served.ask("POST", "/v1/memories", WRITE).status == 200
