"""What Prometheus may read: counts and times, never a text, and names of prompts only if asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foreword.serve.http.ready import Ready

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a line beside every line

PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Metrics:
    """The counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "foreword"}
        self.requests = Counter(
            "requests", "Requests answered.", ("route", "status", "prompt"), **own
        )
        self.seconds = Histogram(
            "request_seconds", "Seconds of a request.", ("route",), buckets=SECONDS, **own
        )
        self.admitted = Gauge("requests_admitted", "Requests that are answered or wait.", **own)
        self.turned_away = Counter(
            "requests_turned_away", "Requests that found a full queue.", **own
        )
        self.cancelled = Counter("requests_cancelled", "Clients that left before the end.", **own)
        self.sureness = Histogram(
            "answer_probability",
            "How probable the prompt took its answers to be.",
            ("prompt",),
            buckets=PROBABILITIES,
            **own,
        )
        self.unlike = Counter(
            "unlike_rows",
            "Rows further off than those that the prompt is known to fit.",
            ("prompt",),
            **own,
        )
        self.tokens = Counter("tokens", "Tokens read and written.", ("kind",), **own)
        self.first = Histogram(
            "time_to_first_token_seconds", "Seconds to the first text.", buckets=SECONDS, **own
        )
        self.each = Histogram(
            "time_per_token_seconds",
            "Seconds of each token after the first.",
            buckets=TOKEN_SECONDS,
            **own,
        )

    def watch(self, ready: Ready) -> None:
        """Show the engine's own numbers, and the prompts', as they are when they are read."""
        self.registry.register(_Numbers(ready))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Numbers(Collector):
    def __init__(self, ready: Ready) -> None:
        self.ready = ready

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers as they are now."""
        for name, value in sorted(self.ready.engine.stats().items()):
            yield GaugeMetricFamily(f"foreword_engine_{name}", f"The engine's {name}.", value)
        prompts = self.ready.prompts
        yield CounterMetricFamily("foreword_prompt_hits", "Prompts that were open.", prompts.hits)
        yield CounterMetricFamily("foreword_prompt_misses", "Prompts opened.", prompts.misses)
        yield GaugeMetricFamily("foreword_prompts_open", "Prompts open now.", prompts.opened)
