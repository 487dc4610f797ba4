"""What went through gate and engine between two readings: sums that grow, and their differences.

Everything comes from `Snapshot`: the engine's counters, and the agents' views compared with the last ones.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from concur.ledger import Ledger, prefix_tokens, private_tokens
from concur.signals import AgentView, Snapshot

_COUNTERS: Final = (
    "prefix_cache_queries_tokens",
    "prefix_cache_hits_tokens",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)
_OUTAGE_INTERVALS: Final = 3.0  # ours: two missed readings are a hiccup, three an outage


class Freshness:
    """Tell readings that show an engine at work from those that only look like readings.

    Stale: time has not passed; more than three intervals have (a scrape outage); a counter fell (a restart);
    or requests run and no counter moved.
    """

    __slots__ = ("_last", "interval_s")

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._last: Snapshot | None = None

    def is_stale(self, snapshot: Snapshot) -> bool:
        """Take a reading; `True` if nothing may be concluded from its difference to the one before."""
        last, self._last = self._last, snapshot
        if last is None:
            return False
        passed_s = snapshot.time_s - last.time_s
        if not 0 < passed_s <= _OUTAGE_INTERVALS * self.interval_s:
            return True
        moves = [getattr(snapshot, name) - getattr(last, name) for name in _COUNTERS]
        return min(moves) < 0 or (not any(moves) and snapshot.num_requests_running > 0)


@dataclass(frozen=True, slots=True)
class Flows:
    """Cumulative sums at one reading, or the difference of two.

    `steps`: calls that ended. `departures`: agents that held a slot and have left. `grown_tokens`: growth
    of the agents' contexts, by new prompt and output. `busy_s`, `idle_s`: agent-seconds in a call, and in
    tool waits with a slot. `ended_calls`, `ended_call_tokens`: the calls of agents that have left, and
    their private tokens summed over those calls. `queried_tokens`, `uncached_tokens`, `generated_tokens`,
    `preemptions`: the engine's counters. `net_private_tokens`: the ledger's private tokens themselves, so
    that a difference is their net growth.
    """

    time_s: float = 0.0
    steps: int = 0
    departures: int = 0
    grown_tokens: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    ended_calls: int = 0
    ended_call_tokens: int = 0
    queried_tokens: int = 0
    uncached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    net_private_tokens: float = 0.0

    def since(self, earlier: "Flows") -> "Flows":
        """Return what has been added since an earlier reading."""
        return Flows(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


class FlowMeter:
    """Add up flows, reading by reading."""

    __slots__ = ("_agents", "_call_tokens", "now")

    def __init__(self) -> None:
        self.now = Flows()
        self._agents: dict[str, AgentView] = {}
        self._call_tokens: dict[str, int] = {}  # of each agent here: private tokens, summed over its calls

    def update(self, snapshot: Snapshot, ledger: Ledger) -> Flows:
        """Take a reading and return the sums up to it."""
        before, was = self.now, self._agents
        self._agents = agents = {agent.agent_id: agent for agent in snapshot.agents}
        ended = [agent for name, agent in was.items() if agent.steps_done and name not in agents]
        left = len(ended)
        passed_s = max(0.0, snapshot.time_s - before.time_s)
        steps = grown = 0
        for name, agent in agents.items():
            last = was.get(name)
            calls = agent.steps_done - (last.steps_done if last else 0)
            self._call_tokens[name] = self._call_tokens.get(name, 0) + calls * private_tokens(agent)
            steps += calls
            known = max(last.context_tokens if last else 0, prefix_tokens(agent))
            grown += max(0, agent.context_tokens - known)
        self.now = Flows(
            time_s=snapshot.time_s,
            steps=before.steps + steps + left,  # an agent leaves after its last call
            departures=before.departures + left,
            grown_tokens=before.grown_tokens + grown,
            busy_s=before.busy_s + ledger.num_in_step * passed_s,
            idle_s=before.idle_s + (ledger.num_agents - ledger.num_in_step) * passed_s,
            ended_calls=before.ended_calls + sum(agent.steps_done for agent in ended),
            ended_call_tokens=before.ended_call_tokens
            + sum(self._call_tokens.pop(agent.agent_id, 0) for agent in ended),
            queried_tokens=snapshot.prefix_cache_queries_tokens,
            uncached_tokens=snapshot.prefix_cache_queries_tokens - snapshot.prefix_cache_hits_tokens,
            generated_tokens=snapshot.generation_tokens,
            preemptions=snapshot.num_preemptions,
            net_private_tokens=ledger.private_tokens,
        )
        return self.now


class FlowWindow:
    """Keep flows back to the newest one that is old enough, or to the first while none is.

    Counters that fell (an engine restart) start a new history.
    """

    __slots__ = ("_flows",)

    def __init__(self) -> None:
        self._flows: deque[Flows] = deque()

    def update(self, flows: Flows, *, is_old_enough: Callable[[Flows], bool]) -> Flows:
        """Take the sums up to now and return what was added over the window."""
        kept = self._flows
        if kept and _fell(kept[-1], flows):
            kept.clear()
        kept.append(flows)
        while len(kept) > 2 and is_old_enough(kept[1]):
            kept.popleft()
        return flows.since(kept[0])


def _fell(earlier: Flows, later: Flows) -> bool:
    return later.queried_tokens < earlier.queried_tokens or later.generated_tokens < earlier.generated_tokens
