"""The verbs of a ``Database`` that come after ``recall``: context, timeline and feedback.

Apart from ``database`` only so that either fits a reader; what they do is in the modules of the
same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memdb import context, feedback, timeline, validate
from memdb.errors import InvalidArgument
from memdb.times import parse_time
from memdb.types import Context, Feedback, Hits, Page
from memdb.validate import TimeLike

if TYPE_CHECKING:
    from memdb.engine import Engine
    from memdb.maintenance import Maintenance
    from memdb.reader import MemoryReader
    from memdb.recall import Recaller


class Asking:
    """What a handle answers beside ``recall``; only ``Database`` is made of it."""

    _engine: Engine
    _reader: MemoryReader
    _recaller: Recaller
    _maintenance: Maintenance

    if TYPE_CHECKING:

        def _read_namespace(self, namespace: str | None) -> str: ...
        def _moment(self, as_of: TimeLike | None) -> Any: ...

    def context(
        self,
        query: str,
        tokens: int = 2000,
        *,
        where: Mapping[str, Any] | None = None,
        as_of: TimeLike | None = None,
        namespace: str | None = None,
        counter: Callable[[str], int] | None = None,
    ) -> Context:
        """What is worth telling an agent about ``query``, within a budget of ``tokens``.

        Facts that the question names, what ``recall`` finds, the neighbours of the best in their
        streams, the latest events: each once, in order of time, as data that cannot pass for
        instructions. ``items`` are what is in the text, ``dropped`` what is not, with the reason.
        ``counter`` counts the tokens of a text; without it the embedder's tokenizer does once it
        is loaded, else an estimate that errs high. Its name is in the result. Times are in the
        database's zone.
        """
        validate.integer(tokens, "tokens", 0, 1 << 20)
        context.counter_of(counter, None)
        hits = self._ask(query, context.FOUND, where, namespace, as_of=as_of)
        return context.ContextMaker(self._engine, self._reader).make(
            hits,
            tokens,
            context.counter_of(counter, self._engine.embedding.loaded),
            condition=self._reader.compile(where),
            namespace=self._read_namespace(namespace),
            as_of=self._moment(as_of),
        )

    def timeline(
        self,
        query: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        descending: bool = False,
        limit: int = 50,
        cursor: str | None = None,
        namespace: str | None = None,
    ) -> Page:
        """Memories in the order in which they happened, from ``start`` up to before ``end``.

        An event stands at its time, a fact where each of its values became true, anything else
        where it was recorded; parts of documents have no place. With a ``query``, the ``limit``
        memories that answer it best, in order of time, and a time that it names filters. Without
        one every memory, page by page: pass ``next_cursor``.
        """
        validate.integer(limit, "limit", 1, 10_000)
        zone = self._engine.zone
        low = None if start is None else parse_time(start, zone=zone, field="start").start_us
        high = None if end is None else parse_time(end, zone=zone, field="end").start_us
        if query is not None:
            if cursor is not None:
                raise InvalidArgument("cursor is for a timeline without a query", field="cursor")
            hits = self._ask(query, limit, where, namespace, time="filter", span=(low, high))
            return timeline.in_order(hits, descending)
        return timeline.page(
            self._engine,
            self._reader,
            self._read_namespace(namespace),
            self._reader.compile(where),
            (low, high),
            descending=descending,
            limit=limit,
            cursor=cursor,
        )

    def feedback(self, search_id: str, used: Sequence[str]) -> Feedback:
        """Say which of the memories that a search found were used; durable when this returns.

        Retention keeps what is used for longer; no ranking ever changes by it. A memory's use
        counts once in a quarter of an hour, and feedback given twice counts once. Raises
        ``NotFound`` if one of ``used`` is not there, and then counts none.
        """
        give = feedback.giving(
            self._engine.whole, self._reader, self._read_namespace(None), search_id, used
        )
        done = self._engine.store.write(give)
        self._maintenance.notify()
        return done

    def _ask(
        self,
        query: str,
        k: int,
        where: Mapping[str, Any] | None,
        namespace: str | None,
        **given: Any,
    ) -> Hits:
        """``recall`` with every default but those given."""
        defaults: dict[str, Any] = dict.fromkeys(("as_of", "space", "vector", "min_score"))
        question = self._recaller.check(
            query,
            k=k,
            where=where,
            namespace=self._read_namespace(namespace),
            **{**defaults, "mode": "hybrid", "exact": False, "explain": False, **given},
        )
        return self._recaller.recall(question)
