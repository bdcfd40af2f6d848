"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

#: Seconds: from an answer out of memory to the longest that Label Studio waits for.
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The figures of one server; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lsbatch_requests", "Answered requests.", ("endpoint", "method", "status"), registry=registry
        )
        self.latency = Histogram(
            "lsbatch_request_seconds", "Time to the answer.", ("endpoint",), buckets=LATENCIES, registry=registry
        )
        self.in_flight = Gauge("lsbatch_requests_in_flight", "Requests that are being answered.", registry=registry)
        self.tasks = Counter("lsbatch_tasks", "Answered tasks.", ("outcome",), registry=registry)
        self.batch_size = Histogram(
            "lsbatch_batch_tasks", "Tasks of a call of the pipeline.", buckets=BATCH_SIZES, registry=registry
        )
        self.queue = Gauge("lsbatch_queue_tasks", "Tasks that wait.", registry=registry)
        self.errors = Counter("lsbatch_errors", "Refusals and failures.", ("kind",), registry=registry)
        self.trainings = Counter("lsbatch_trainings", "Trainings that ended.", ("status",), registry=registry)
        self.training = Gauge("lsbatch_training", "1 while a training is under way.", registry=registry)
        self.ready = Gauge("lsbatch_ready", "1 while a model answers.", registry=registry)
        self.model = Gauge("lsbatch_model_info", "1 for the version that answers.", ("version",), registry=registry)

    def answers(self, version: str) -> None:
        """This version answers from now on."""
        self.model.clear()
        self.model.labels(version).set(1)

    def watch(self, waiting: Callable[[], float], training: Callable[[], float], ready: Callable[[], float]) -> None:
        """Read these whenever the figures are read."""
        self.queue.set_function(waiting)
        self.training.set_function(training)
        self.ready.set_function(ready)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
