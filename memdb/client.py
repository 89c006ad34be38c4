"""``memdb.connect``: the verbs of a ``Database``, done by a server.

The same names, parameters, results and errors, so that a program changes one line. What a token
may see and do is the server's to say. The library itself never looks for a server: whoever wants
one names it.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from memdb import client_wire as wire
from memdb.client_faces import (
    ClientAudit,
    ClientFiles,
    ClientHistory,
    ClientProfile,
    ClientReceipt,
    ClientRetention,
    ClientSettings,
    ClientSpaces,
    ClientTokens,
)
from memdb.client_wire import Wire, segment
from memdb.errors import InvalidArgument, NotFound
from memdb.progress import Progress, reporting
from memdb.types import (
    Context,
    Feedback,
    Forgotten,
    Hits,
    Memory,
    Page,
    Report,
    Trashed,
    Written,
)

if TYPE_CHECKING:  # what checks arguments needs numpy, and the server checks them
    from memdb.validate import TimeLike

_AT_ONCE = 1_000  # items of one request: what the server takes, in one transaction
_A_PAGE = 1_000
Where = Mapping[str, Any] | None
Ids = str | Sequence[str] | None


def connect(
    url: str, token: str, *, ca: str | None = None, timeout_s: float = wire.TIMEOUT_S
) -> Client:
    """A client of the server at ``url``, with what ``token`` may do. Nothing is asked yet.

    ``ca``: a PEM file with the certificate that an ``https`` server is to have; None for those the
    system trusts. Calls raise what those of a ``Database`` raise, and ``ServerUnavailable``.
    """
    return Client(Wire(url, token, ca, timeout_s))


class Client:
    """A database behind a server. Made by ``memdb.connect``; use it from any thread."""

    def __init__(self, connection: Wire) -> None:
        self._wire = connection
        self.profile = ClientProfile(connection)
        self.history = ClientHistory(connection, self.remember)
        self.files = ClientFiles(connection)
        self.spaces = ClientSpaces(connection)
        self.settings = ClientSettings(connection)
        self.retention = ClientRetention(connection)
        self.tokens = ClientTokens(connection)
        self.audit = ClientAudit(connection)

    # --- writing ------------------------------------------------------------------------

    def remember(
        self,
        text: str | None = None,
        *,
        on_conflict: Literal["error", "replace", "skip"] = "error",
        dedup: Literal["exact", "near", "off"] = "exact",
        **fields: Any,
    ) -> Written:
        """``Database.remember``: one thing, durable when this returns; ``fields`` are the same."""
        (done,) = self._add([{"text": text, **fields}], on_conflict, dedup)
        return done

    def remember_many(
        self,
        items: Iterable[Mapping[str, Any] | str],
        *,
        batch: int = _AT_ONCE,
        progress: Progress = None,
        on_conflict: Literal["error", "replace", "skip"] = "error",
        dedup: Literal["exact", "near", "off"] = "exact",
    ) -> builtins.list[Written]:
        """``Database.remember_many``; each batch is one request and one transaction."""
        if not 1 <= batch <= _AT_ONCE:
            raise InvalidArgument(f"batch must lie between 1 and {_AT_ONCE:,}", field="batch")
        done: list[Written] = []
        iterator = iter(items)
        total = len(items) if isinstance(items, Sequence) else None
        with reporting(progress, total, "remembering") as report:
            while some := list(islice(iterator, batch)):
                whole = [{"text": one} if isinstance(one, str) else one for one in some]
                done += self._add(whole, on_conflict, dedup)
                report(len(done))
        return done

    def _add(
        self, items: Sequence[Mapping[str, Any]], on_conflict: str, dedup: str
    ) -> builtins.list[Written]:
        # None and an absent field are the same to ``remember``; the schema has no null for all.
        given = [{n: v for n, v in item.items() if v is not None} for item in items]
        body = {"items": given, "on_conflict": on_conflict, "dedup": dedup, "full": True}
        return [wire.written(one) for one in self._wire.ask("POST", "/v1/memories", body,
                                                            writes=True)]  # fmt: skip

    def update(self, id: str, **fields: Any) -> Written:
        """``Database.update``: change fields; the version before stays under ``versions``."""
        path = f"/v1/memories/{segment(id)}"
        return wire.written(self._wire.ask("PATCH", path, fields, writes=True))

    # --- reading ------------------------------------------------------------------------

    def get(
        self,
        id: str | None = None,
        *,
        as_of: TimeLike | None = None,
        external_id: str | None = None,
        namespace: str | None = None,
    ) -> Memory | None:
        """``Database.get``: the memory, or None."""
        if (id is None) == (external_id is None):
            raise InvalidArgument("name either id or external_id", field="id")
        try:
            if external_id is not None:
                path = f"/v1/external/{segment(external_id)}"
                return wire.memory(self._wire.ask("GET", path, query={"namespace": namespace}))
            path = f"/v1/memories/{segment(str(id))}"
            return wire.memory(self._wire.ask("GET", path, query={"as_of": as_of}))
        except NotFound:
            return None

    def get_many(self, ids: Sequence[str]) -> builtins.list[Memory | None]:
        """``Database.get_many``: in their order; None where there is none."""
        found = self._wire.ask("POST", "/v1/memories/get", {"ids": list(ids)})
        return [None if one is None else wire.memory(one) for one in found["items"]]

    def __getitem__(self, id: str) -> Memory:
        found = self.get(id)
        if found is None:
            raise NotFound("no memory has that id")
        return found

    def versions(self, id: str) -> builtins.list[Memory]:
        """``Database.versions``: oldest first."""
        return wire.memories(self._wire.ask("GET", f"/v1/memories/{segment(id)}/versions")["items"])

    def count(self, where: Where = None) -> int:
        """``Database.count``: how many memories pass the filter."""
        return int(self._wire.ask("POST", "/v1/memories/count", {"where": where})["count"])

    def iter(self, where: Where = None) -> Iterator[Memory]:
        """``Database.iter``: every memory that passes, in the order written; page by page."""
        cursor = None
        while True:
            page = self.list(where, "recorded_at", False, _A_PAGE, cursor)
            yield from page
            cursor = page.next_cursor
            if cursor is None:
                return

    def list(
        self,
        where: Where = None,
        order_by: str = "event_time",
        descending: bool = True,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """``Database.list``: one page in order of time."""
        query = {
            "where": where,
            "order_by": order_by,
            "descending": descending,
            "limit": limit,
            "cursor": cursor,
        }
        return wire.page(self._wire.ask("GET", "/v1/memories", query=query))

    def values(self, field: str, where: Where = None) -> builtins.list[tuple[Any, int]]:
        """``Database.values``: each value with how many memories have it."""
        body = {"field": field, "where": where}
        found = self._wire.ask("POST", "/v1/memories/values", body)["items"]
        return [(one["value"], one["count"]) for one in found]

    def namespaces(self) -> builtins.list[str]:
        """``Database.namespaces``."""
        return list(self._wire.ask("GET", "/v1/namespaces")["namespaces"])

    # --- asking -------------------------------------------------------------------------

    def recall(
        self,
        query: str | None = None,
        k: int = 10,
        where: Where = None,
        mode: Literal["vector", "lexical", "hybrid"] = "hybrid",
        **given: Any,
    ) -> Hits:
        """``Database.recall``: the k memories that answer best; further parameters as there."""
        body = {"query": query, "k": k, "where": where, "mode": mode, **given}
        return wire.hits(self._wire.ask("POST", "/v1/recall", body))

    def recall_within(self, radius: float, **given: Any) -> Hits:
        """``Database.recall_within``: everything within a distance; parameters as there."""
        return wire.hits(self._wire.ask("POST", "/v1/recall/within", {"radius": radius, **given}))

    def context(
        self,
        query: str,
        tokens: int = 2000,
        *,
        where: Where = None,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
    ) -> Context:
        """``Database.context``; the server counts the tokens."""
        body = {
            "query": query,
            "tokens": tokens,
            "where": where,
            "as_of": as_of,
            "namespace": namespace,
        }
        return wire.context(self._wire.ask("POST", "/v1/context", body))

    def timeline(
        self,
        query: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        **given: Any,
    ) -> Page:
        """``Database.timeline``: in the order in which it happened; parameters as there."""
        asked = {"query": query, "start": start, "end": end, **given}
        return wire.page(self._wire.ask("GET", "/v1/timeline", query=asked))

    def feedback(self, search_id: str, used: Sequence[str]) -> Feedback:
        """``Database.feedback``: which of the memories found were used."""
        body = {"search_id": search_id, "used": list(used)}
        done = self._wire.ask("POST", "/v1/feedback", body, writes=True)
        return Feedback(done["search_id"], tuple(done["counted"]), tuple(done["unchanged"]))

    # --- forgetting ---------------------------------------------------------------------

    def forget(
        self, ids: Ids = None, *, where: Where = None, about: str | None = None
    ) -> Forgotten:
        """``Database.forget``: hide at once, for seven days."""
        body = _selector(ids, where, about)
        done = self._wire.ask("POST", "/v1/memories/forget", body, writes=True)
        return Forgotten(done["batch"], tuple(done["ids"]))

    def restore(self, ids: Ids = None, *, batch: str | None = None) -> builtins.list[str]:
        """``Database.restore``: bring back what was forgotten."""
        named = [ids] if isinstance(ids, str) else None if ids is None else list(ids)
        body = {"ids": named, "batch": batch}
        return list(self._wire.ask("POST", "/v1/memories/restore", body, writes=True)["ids"])

    def trash(self) -> builtins.list[Trashed]:
        """``Database.trash``: what can be restored."""
        return [wire.trashed(one) for one in self._wire.ask("GET", "/v1/trash")["batches"]]

    def report(self, ids: Ids = None, *, where: Where = None, about: str | None = None) -> Report:
        """``Database.report``: everything known, and what erase would reach."""
        return wire.report(self._wire.ask("POST", "/v1/report", _selector(ids, where, about)))

    def erase(
        self,
        ids: Ids = None,
        *,
        where: Where = None,
        about: str | None = None,
        confirm_count: int | None = None,
    ) -> ClientReceipt:
        """``Database.erase``: for good. Without ``confirm_count``, what a report counts a moment
        before."""
        selector = _selector(ids, where, about)
        if confirm_count is None:
            confirm_count = self._wire.ask("POST", "/v1/report", selector)["total"]
        body = {"selector": selector, "confirm_count": confirm_count}
        return ClientReceipt(self._wire, self._wire.ask("POST", "/v1/erase", body, writes=True))

    def receipts(self) -> builtins.list[ClientReceipt]:
        """``Database.receipts``: oldest first."""
        found = self._wire.ask("GET", "/v1/receipts")["items"]
        return [ClientReceipt(self._wire, one) for one in found]

    # --- the database -------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """``Database.stats``."""
        found: dict[str, Any] = self._wire.ask("GET", "/v1/stats")["stats"]
        return found

    def export(self, path: str | PathLike[str], where: Where = None) -> int:
        """Write every field of the memories selected to a file here, as JSON lines; how many."""
        lines, count = self._wire.ask("POST", "/v1/export", {"where": where}, counted=True)
        Path(path).write_bytes(lines)
        return int(count)

    def import_(self, path: str | PathLike[str]) -> int:
        """Read what ``export`` wrote here; memories whose id exists are left alone."""
        with open(path, "rb") as file:
            body = {"records": [msgspec.json.decode(line) for line in file]}
        return int(self._wire.ask("POST", "/v1/import", body, writes=True)["added"])

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _selector(ids: Ids, where: Where, about: str | None) -> dict[str, Any]:
    named = [ids] if isinstance(ids, str) else None if ids is None else list(ids)
    return {"ids": named, "where": where, "about": about}
