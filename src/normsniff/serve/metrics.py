"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds: a header takes 50 ms, the longest call a minute


class Metrics:
    """Counters of one service, in a registry of their own.

    Attributes:
        requests: by route and status.
        seconds: from the first byte of a request to the last of its answer, by route.
        labels: verdicts that were given.
        problems: requests that were not answered, by the slug of the problem.
        uploaded: bytes of bodies.
        read: bytes that were read of models.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "normsniff_requests", "Requests answered, one way or another", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "normsniff_request_seconds", "Time to answer", ["route"], registry=registry, buckets=_BUCKETS
        )
        self.labels = Counter("normsniff_labels", "Verdicts given", ["label"], registry=registry)
        self.problems = Counter("normsniff_problems", "Requests not answered", ["problem"], registry=registry)
        self.uploaded = Counter("normsniff_uploaded_bytes", "Bytes of bodies", registry=registry)
        self.read = Counter("normsniff_read_bytes", "Bytes read of models", registry=registry)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when the metrics are."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
