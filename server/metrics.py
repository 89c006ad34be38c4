"""What the server counts of itself, for Prometheus.

Labels are names of routes, methods and statuses: a closed set. No text, id, name or path of a user
is ever in one.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """One server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "memdb_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "memdb_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "memdb_http_refused",
            "Requests turned down before anything was asked of the database.",
            ("code",),
            registry=self.registry,
        )
        self._in_work = Gauge("memdb_http_in_work", "Requests in work.", registry=self.registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (route, method, status)
        children = self._children.get(key)
        if children is None:
            shown = method if method in _METHODS else "other"
            children = (
                self._requests.labels(route, shown, str(status)),
                self._seconds.labels(route),
            )
            if shown == method:
                self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def refused(self, code: str) -> None:
        """Count a refusal by its code."""
        self._refused.labels(code).inc()

    def in_work(self, count: int) -> None:
        self._in_work.set(count)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
