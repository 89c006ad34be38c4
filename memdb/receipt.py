"""``Receipt``: what ``erase`` returns, what it says later, and waiting until it is true.

The entries lie in the store (``storage.receipts``); a ``Receipt`` looks there each time it is asked
for its state. It knows nothing of how an erasure is done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from memdb.errors import LockHeld, MemdbError, NotFound
from memdb.storage import erased, receipts
from memdb.storage.receipts import Entry, State
from memdb.types import from_micros

if TYPE_CHECKING:
    from memdb.engine import Engine
    from memdb.maintenance import Maintenance

_POLL_S = 0.01


class _Link(NamedTuple):
    """An entry of the chain with its number and hash."""

    number: int
    entry: Entry
    hash: bytes


class Receipt:
    """The proof of one erasure, without content.

    ``state`` goes from "hidden" (nobody sees it any more) to "scrubbed" (no file that memdb can
    reach holds a byte of it). ``counts`` says how much of each kind, ``out_of_reach`` what memdb
    cannot erase. ``hash`` is that of the receipt's last entry, ``previous`` that of the entry
    before its first: receipts are a chain, and ``check`` verifies it.
    """

    __slots__ = ("_engine", "_entries", "_maintenance", "_number")

    def __init__(self, engine: Engine, maintenance: Maintenance, entries: list[_Link]) -> None:
        self._number = entries[0].number
        self._engine = engine
        self._maintenance = maintenance
        self._entries = entries

    @property
    def id(self) -> str:
        return self._entries[0].entry.id

    @property
    def erased_at(self) -> datetime:
        return from_micros(self._entries[0].entry.at_us)

    @property
    def state(self) -> State:
        return self._last().state

    @property
    def scrubbed_at(self) -> datetime | None:
        self._last()
        times = [one.entry.at_us for one in self._entries if one.entry.state == "scrubbed"]
        return from_micros(times[0]) if times else None

    @property
    def counts(self) -> Mapping[str, int]:
        return self._entries[0].entry.counts

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        return self._last().out_of_reach

    @property
    def previous(self) -> str:
        return self._entries[0].entry.previous.hex()

    @property
    def hash(self) -> str:
        self._last()
        return self._entries[-1].hash.hex()

    def _last(self) -> Entry:
        """The newest entry; read again while there may be a newer one."""
        if self._entries[-1].entry.state != "scrubbed":
            with self._engine.store.read() as txn:
                if erased.job(txn, self._number) is None:
                    self._entries = _grouped(receipts.chain(txn))[self.id]
        return self._entries[-1].entry

    def wait(self, timeout: float = 60.0) -> Self:
        """Return once it is scrubbed.

        Raises ``LockHeld`` naming who stands in the way when ``timeout`` seconds have passed: a
        process that has not let go of an older generation of the store, or one that maintains
        the database and does not get on. The erasure goes on all the same.
        """
        stop = time.monotonic() + timeout
        self._maintenance.notify()
        while self.state != "scrubbed":
            if time.monotonic() > stop:
                raise self._obstacle()
            time.sleep(_POLL_S)
        return self

    def _obstacle(self) -> MemdbError:
        store = self._engine.store
        pid, host = store.lease.holder()
        for user in store.users_of_others():
            return LockHeld(
                f"process {user} still reads what the store was before the erasure",
                pid=user,
                host=host,
                hint="let it finish or close it; the erasure then ends by itself",
            )
        error = self._maintenance.last_error
        if store.lease.held and error is not None:
            return error
        return LockHeld(
            f"process {pid} on {host} maintains this database and has not finished the erasure",
            pid=pid,
            host=host,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every property by name."""
        names = (
            *("id", "state", "erased_at", "scrubbed_at", "counts", "out_of_reach"),
            *("previous", "hash"),
        )
        return {name: getattr(self, name) for name in names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Receipt {self.id} {self.state}>"


def listing(engine: Engine, maintenance: Maintenance) -> list[Receipt]:
    """Every receipt, oldest first. Raises ``StoreCorrupt`` when the chain is broken."""
    with engine.store.read() as txn:
        grouped = _grouped(receipts.chain(txn))
    return [Receipt(engine, maintenance, entries) for entries in grouped.values()]


def at(engine: Engine, maintenance: Maintenance, number: int) -> Receipt:
    """The receipt whose first entry has that number."""
    with engine.store.read() as txn:
        entries = receipts.chain(txn)
    maintenance.notify()
    first, _ = entries[number - 1]
    return Receipt(engine, maintenance, _grouped(entries)[first.id])


def find(engine: Engine, maintenance: Maintenance, id: str) -> Receipt:
    """The receipt of that id; ``NotFound``."""
    for one in listing(engine, maintenance):
        if one.id == id:
            return one
    raise NotFound("no receipt has that id", hint="memdb erase --list shows them")


def _grouped(chain: list[tuple[Entry, bytes]]) -> dict[str, list[_Link]]:
    grouped: dict[str, list[_Link]] = {}
    for number, (entry, hash_) in enumerate(chain, 1):
        grouped.setdefault(entry.id, []).append(_Link(number, entry, hash_))
    return grouped
