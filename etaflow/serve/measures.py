"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)


class Measures:
    """Counters of one server; they begin at zero with it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "etaflow_requests",
            "Requests by task and by the HTTP status of their answer",
            ["task", "status"],
            registry=self.registry,
        )
        self._failures = Counter(
            "etaflow_failures",
            "Requests that were answered by another status than 200",
            ["task"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "etaflow_request_seconds",
            "Seconds from a request's arrival to its answer",
            ["task"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.inside = Gauge(
            "etaflow_queue",
            "Requests that wait or are being answered",
            registry=self.registry,
        )
        self.restarts = Counter(
            "etaflow_worker_restarts", "Workers that died and were replaced", registry=self.registry
        )

    def answered(self, task: str, status: int, seconds: float) -> None:
        """Count a request that was answered, or refused."""
        self._requests.labels(task, str(status)).inc()
        self._seconds.labels(task).observe(seconds)
        if status != 200:
            self._failures.labels(task).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
