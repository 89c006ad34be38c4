"""What the server counts of itself, for Prometheus.

Labels are names of routes, methods and statuses: a closed set. No text, id, name or path of a user
is ever in one. Counting is plain numbers, since it is done for every request; the library that
writes Prometheus' format is imported when somebody asks, as few do before the first answers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class _Times:
    """How many answers of a route took how long; the last bucket has no end."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(_SECONDS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """One server's counters. Counted by the event loop alone, read from any thread."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, _Times] = {}
        self._refused: dict[str, int] = {}
        self._in_work = 0
        self._registry: CollectorRegistry | None = None

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (route, method if method in _METHODS else "other", status)
        self._requests[key] = self._requests.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = _Times()
        times.observe(seconds)

    def refused(self, code: str) -> None:
        """Count a refusal by its code."""
        self._refused[code] = self._refused.get(code, 0) + 1

    def in_work(self, count: int) -> None:
        self._in_work = count

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """The families of the moment, as the Prometheus library asks for them."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        requests = CounterMetricFamily(
            "memdb_http_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in list(self._requests.items()):
            requests.add_metric((route, method, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "memdb_http_request_seconds",
            "From the head of a request to the end of its answer.",
            labels=("route",),
        )
        for route, times in list(self._times.items()):
            seconds.add_metric((route,), _cumulated(times.buckets), times.seconds)
        yield seconds
        refused = CounterMetricFamily(
            "memdb_http_refused",
            "Requests turned down before anything was asked of the database.",
            labels=("code",),
        )
        for code, count in list(self._refused.items()):
            refused.add_metric((code,), count)
        yield refused
        yield GaugeMetricFamily("memdb_http_in_work", "Requests in work.", value=self._in_work)


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    """(upper end, how many took at most so long) for each bucket."""
    found, total = [], 0
    for end, count in zip((*map(str, _SECONDS), "+Inf"), list(buckets), strict=True):
        total += count
        found.append((end, float(total)))
    return found
