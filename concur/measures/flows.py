"""What went through gate and engine between two readings: sums that grow, and their differences.

Everything comes from `Snapshot`: the engine's counters, and the agents' views compared with the last ones.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from concur.measures.residents import Ledger, prefix_tokens, private_tokens
from concur.signals import AgentView, CallView, Departures, Snapshot

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

    `steps`: calls that ended. `departures`: agents that held a slot and have left. `grown_tokens`: growth of
    the agents' contexts, by new prompt and output, as far as readings have shown it. `told_calls`: those of
    the steps whose `usage` is known, and `new_tokens` what their prompts brought beyond what the agent had;
    `first_calls` of them were an agent's first, with `first_tokens` of new prompt and output. `busy_s`,
    `idle_s`: agent-seconds in a call, and in tool waits with a slot. `ended_calls`, `ended_call_tokens`: the
    calls of agents that have left, and their private tokens summed over those calls. `queried_tokens`,
    `uncached_tokens`, `generated_tokens`, `preemptions`: the engine's counters; `reloaded_tokens` of the
    uncached ones came from an offload tier. `net_private_tokens`: the
    ledger's private tokens themselves, so that a difference is their net growth.
    """

    time_s: float = 0.0
    steps: int = 0
    departures: int = 0
    grown_tokens: int = 0
    told_calls: int = 0
    new_tokens: int = 0
    first_calls: int = 0
    first_tokens: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    ended_calls: int = 0
    ended_call_tokens: int = 0
    queried_tokens: int = 0
    uncached_tokens: int = 0
    reloaded_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    net_private_tokens: float = 0.0

    def since(self, earlier: "Flows") -> "Flows":
        """Return what has been added since an earlier reading."""
        return Flows(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class _Life:
    """An agent as the last reading showed it, and its private tokens summed over the calls seen so far."""

    agent: AgentView
    call_tokens: int = 0

    def is_of(self, agent: AgentView) -> bool:
        """Tell whether it goes on in `agent`: an id may leave and come back as somebody new."""
        mine = self.agent
        is_same = mine.index == agent.index and mine.arrived_s == agent.arrived_s
        return is_same and mine.steps_done <= agent.steps_done

    def goes_on(self, now: "_Life | None") -> bool:
        """Tell whether it goes on in what the reading after it shows under its id."""
        return now is not None and self.is_of(now.agent)


@dataclass(frozen=True, slots=True)
class _Added:
    """What one reading adds to the sums; the names are those of `Flows`."""

    steps: int = 0
    departures: int = 0
    grown_tokens: int = 0
    told_calls: int = 0
    new_tokens: int = 0
    first_calls: int = 0
    first_tokens: int = 0
    ended_calls: int = 0
    ended_call_tokens: int = 0


class FlowMeter:
    """Add up flows, reading by reading; it remembers who was in at the last one, and nobody else.

    Readings show the steps of those who are here. Of those who left since the last one, each has made one
    call more than was seen, of unknown growth, unless the gate knows better (`Snapshot.departed`). That is
    not enough where somebody left of whom no step was seen: an agent of one call, or one that came, ran and
    left between two readings. What all did who left in such an interval is taken from the gate's count.
    """

    __slots__ = ("_departed", "_lives", "now")

    def __init__(self) -> None:
        self.now = Flows()
        self._lives: dict[str, _Life] = {}
        self._departed = Departures()

    def update(self, snapshot: Snapshot, ledger: Ledger) -> Flows:
        """Take a reading and return the sums up to it."""
        before, was = self.now, self._lives
        seen, self._lives = _seen(snapshot.agents, was)
        gone = [life for name, life in was.items() if not life.goes_on(self._lives.get(name))]
        left = _left(gone, self._since_last(snapshot.departed))
        added = before, seen, left, _told(snapshot.calls)
        passed_s = max(0.0, snapshot.time_s - before.time_s)
        self.now = Flows(
            time_s=snapshot.time_s,
            **{f.name: sum(getattr(each, f.name) for each in added) for f in fields(_Added)},
            busy_s=before.busy_s + ledger.num_in_step * passed_s,
            idle_s=before.idle_s + (ledger.num_agents - ledger.num_in_step) * passed_s,
            queried_tokens=snapshot.prefix_cache_queries_tokens,
            uncached_tokens=snapshot.prefix_cache_queries_tokens - snapshot.prefix_cache_hits_tokens,
            reloaded_tokens=snapshot.external_prefix_cache_hits_tokens,
            generated_tokens=snapshot.generation_tokens,
            preemptions=snapshot.num_preemptions,
            net_private_tokens=ledger.private_tokens,
        )
        return self.now

    def _since_last(self, departed: Departures) -> Departures:
        """Return who has left since the last reading; a gate that began anew has no last one."""
        last, self._departed = self._departed, departed
        names = [f.name for f in fields(Departures)]
        added = {name: getattr(departed, name) - getattr(last, name) for name in names}
        return Departures(**added) if min(added.values()) >= 0 else Departures()


def held_slot(agent: AgentView) -> bool:
    """Tell whether an agent has ever had a slot; one that leaves without was never in."""
    return agent.holds_slot or agent.admitted_s is not None or agent.steps_done > 0


def _seen(agents: Iterable[AgentView], was: Mapping[str, _Life]) -> tuple[_Added, dict[str, _Life]]:
    """Add up the steps of those who are here and have been in, and return their lives."""
    lives: dict[str, _Life] = {}
    steps = grown = 0
    for agent in filter(held_slot, agents):
        last = was.get(agent.agent_id)
        if last is None or not last.is_of(agent):
            last = _Life(replace(agent, steps_done=0, context_tokens=0))
        calls = agent.steps_done - last.agent.steps_done
        lives[agent.agent_id] = _Life(agent, last.call_tokens + calls * private_tokens(agent))
        steps += calls
        grown += max(0, agent.context_tokens - max(last.agent.context_tokens, prefix_tokens(agent)))
    return _Added(steps=steps, grown_tokens=grown), lives


def _left(gone: Sequence[_Life], departed: Departures) -> _Added:
    """Add up the steps that no reading has shown, of those who left."""
    steps_seen = sum(life.agent.steps_done for life in gone)
    unseen = max(0, departed.calls - steps_seen)
    if departed.agents <= sum(life.agent.steps_done > 0 for life in gone):
        last_steps = min(unseen, len(gone)) if departed.agents else len(gone)
        return _Added(
            steps=last_steps,
            departures=len(gone),
            ended_calls=steps_seen,
            ended_call_tokens=sum(life.call_tokens for life in gone),
        )
    return _Added(
        steps=unseen,
        departures=departed.agents,
        grown_tokens=max(0, departed.tokens - sum(private_tokens(life.agent) for life in gone)),
        ended_calls=departed.calls,
        ended_call_tokens=departed.call_tokens,
    )


def _told(calls: Sequence[CallView]) -> _Added:
    """Add up what the calls brought that have ended since the last reading."""
    firsts = [call for call in calls if call.call_index == 0]
    return _Added(
        told_calls=len(calls),
        new_tokens=sum([call.prompt_tokens - call.kept_tokens for call in calls]),
        first_calls=len(firsts),
        first_tokens=sum([call.prompt_tokens - call.kept_tokens + call.output_tokens for call in firsts]),
    )


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
