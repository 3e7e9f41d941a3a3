"""The parts that requests share: workers, gate, spool, metrics."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..workers import Workers
from .calls import ready
from .exchange import Exchange
from .gate import Gate
from .metrics import Metrics
from .settings import Settings
from .spool import Spool
from .ssrf import Guard


class Service:
    """What runs as long as the service does.

    Attributes:
        settings: what whoever started it decided.
        guard: which URLs may be fetched.
        gate: the way to the workers.
        spool: where bodies lie.
        metrics: what is counted.
        exchange: where workers call back.
        sessions: pages that are being answered.
    """

    def __init__(self, settings: Settings, workers: Workers) -> None:
        self.settings = settings
        self.guard = Guard(settings.hosts, settings.networks)
        self.gate = Gate(workers, settings.queue)
        self.spool = Spool(settings.upload)
        self.metrics = Metrics()
        self.exchange = Exchange()
        self.sessions = 0
        self.metrics.watch("normsniff_inside", "Requests that are answered or wait", lambda: self.gate.inside)
        self.metrics.watch("normsniff_waiting", "Requests that wait for a worker", lambda: self.gate.waiting)
        self.metrics.watch("normsniff_spool_bytes", "Bytes of bodies that are held", lambda: self.spool.held)
        self.metrics.watch("normsniff_workers", "Processes that answer", lambda: workers.jobs)
        self.metrics.watch("normsniff_sessions", "Pages that are being answered", lambda: self.sessions)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Start the workers, and end them after the block whatever they are busy with."""
    memory = settings.memory if sys.platform.startswith("linux") else None
    workers = Workers(settings.jobs, timeout=settings.timeout, memory=memory)
    service = Service(settings, workers)
    try:
        for _ in range(workers.jobs):
            workers.submit(ready)  # so that the first request does not wait for imports
        async with service.exchange.open():
            yield service
    finally:
        workers.kill_workers()
        service.spool.close()
