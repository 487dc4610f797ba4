"""What the gateway publishes under `/metrics`, in a registry of its own.

Gauges of the gate are read when they are asked for, so they cannot be stale.
"""

from collections.abc import Iterator
from typing import Protocol as Shape

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from concur.gateway.sessions import Sessions
from concur.live.gate import AsyncGate

_WAITS_S = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0)
_NAMESPACE = "concur_gateway"


class Health(Shape):
    """What else there is to know at any time."""

    num_held: int
    num_running: int
    is_open: bool
    is_draining: bool


class Metrics:
    """Counters and histograms of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

        self.calls = counter("calls", "Calls that have ended.", "protocol", "status")
        self.passed = counter("passed", "Calls that passed beside the gate.", "reason")
        self.identities = counter("identities", "Calls by what told who makes them.", "source", "client")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of answered calls.", "upstream")
        self.cached_tokens = counter("cached_tokens", "Of them, found in a cache.", "upstream")
        self.output_tokens = counter("output_tokens", "Tokens of answers.", "upstream")
        self.no_usage = counter("calls_without_usage", "Answers that told no usage.", "protocol")
        self.gone = counter("clients_gone", "Calls whose client left before the end.", "stage")
        self.broken = counter("upstream_failures", "Calls that an upstream failed.", "upstream")
        self.refused = counter("refused", "Calls that the gateway answered itself.", "kind")
        self.pings = counter("pings", "Signs of life sent to held clients.")
        self.ticks = counter("decisions", "Decisions of the law.")
        self.stale = counter("stale_signals", "Decisions not taken, for the engines could not be read.")
        self.wait_s = Histogram(
            "wait_seconds",
            "Wait of a call for its turn.",
            namespace=_NAMESPACE,
            registry=self.registry,
            buckets=_WAITS_S,
        )

    def watch(self, gate: AsyncGate, sessions: Sessions, health: Health) -> None:
        """Publish what gate and sessions are at the time of a reading."""
        self.registry.register(_Now(gate, sessions, health))

    def page(self) -> bytes:
        """Return the page."""
        return generate_latest(self.registry)


class _Now(Collector):
    def __init__(self, gate: AsyncGate, sessions: Sessions, health: Health) -> None:
        self._gate, self._sessions, self._health = gate, sessions, health

    def collect(self) -> Iterator[Metric]:
        gate, health = self._gate.gate, self._health
        yield _gauge("window", "Slots for agents.", gate.window)
        yield _gauge("budget_tokens", "Tokens that agents in slots may keep.", gate.budget.admit_tokens)
        agents = GaugeMetricFamily(f"{_NAMESPACE}_agents", "Agents in the gate.", labels=["state"])
        for state in ("active", "paused", "waiting", "lent"):
            agents.add_metric([state], getattr(gate, state))
        yield agents
        yield _gauge("held", "Calls that wait for their turn.", health.num_held)
        yield _gauge("running", "Calls that are upstream.", health.num_running)
        yield _gauge("open", "1 while the gate has failed and calls pass it.", health.is_open)
        yield _gauge("draining", "1 while the gateway ends.", health.is_draining)
        yield _counter("resends", "Calls that took the place of an earlier copy.", self._sessions.num_resends)
        yield _counter("expired_leases", "Slots that were taken from silent agents.", gate.num_expired)
        ended = CounterMetricFamily(f"{_NAMESPACE}_sessions_ended", "Agents that left.", labels=["ending"])
        for ending, count in self._sessions.num_ended.items():
            ended.add_metric([ending], count)
        yield ended


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_NAMESPACE}_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_NAMESPACE}_{name}", text, value=float(value))
