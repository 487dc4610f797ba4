"""Warm-up, middle, cool-down: the three phases of a batch, by one stated rule.

Let the *demand* D(t) be the tokens that all living agents would need to have their histories resident: for
every agent that has submitted a call and has not finished, the prompt of its call in flight or, between two
calls, prompt + output of the last one; the shared prefix counts once per group. With the KV pool's size:

- **warm-up** lasts until D(t) first exceeds the pool (everything that may be needed again still fits),
- **middle** from then until D(t) exceeds it for the last time,
- **cool-down** from there to the end.

A run whose demand never exceeds the pool is warm-up throughout. The rule needs no engine internals, so it is
the same in both worlds. The CONCUR paper (arXiv:2601.22705, Sec. 3) describes the phases without boundaries.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from concur.measures.prefixes import warm_up
from concur.sim.record.sharing import levels_of
from concur.sim.record.tables import Columns

RULE: Final = (
    "demand = tokens of the histories of admitted, unfinished agents (prompt of the call in flight, else "
    "prompt + output of the last), shared prefix once per group; warm-up until demand first exceeds the KV "
    "pool, middle until it last does, then cool-down"
)


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: `[start_s, end_s)` and what happened in it.

    `hit_rate` = cached / prompt tokens of the calls first scheduled in it, over all calls and, as
    `hit_rate_later_calls`, without each agent's first call (which is cold by nature). `None`: no such call.
    `throughput_tokens_per_s` = output tokens of calls finished in it / its length.
    """

    name: str
    start_s: float
    end_s: float
    hit_rate: float | None
    hit_rate_later_calls: float | None
    throughput_tokens_per_s: float | None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def find_phases(requests: Columns, agents: Columns, *, pool_tokens: int, end_s: float) -> list[Phase]:
    """Return the three phases of a run, in order; a phase that does not occur has length 0."""
    times_s, demand = demand_over_time(requests, agents)
    above = np.flatnonzero(demand > pool_tokens)
    if above.size:
        first_s = float(times_s[above[0]])
        after = above[-1] + 1
        last_s = float(times_s[after]) if after < times_s.size else end_s
    else:
        first_s = last_s = end_s
    bounds = [("warm_up", 0.0, first_s), ("middle", first_s, last_s), ("cool_down", last_s, end_s)]
    columns = ["scheduled_s", "finished_s", "call_index", "prompt_tokens", "cached_tokens", "output_tokens"]
    calls = {name: requests[name].astype(np.float64) for name in columns}
    return [_phase(name, start_s, stop_s, calls) for name, start_s, stop_s in bounds]


def demand_over_time(requests: Columns, agents: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the times at which the demand changes and its value from then on, in tokens.

    Returns
    -------
    times_s, demand_tokens : arrays of shape (num_changes,), times increasing
    """
    order = np.lexsort((requests["call_index"], requests["agent_index"]))
    calls = {name: column[order] for name, column in requests.items()}
    by_index = np.argsort(agents["agent_index"])
    place = by_index[np.searchsorted(agents["agent_index"], calls["agent_index"], sorter=by_index)]
    is_in_group = np.array([group is not None for group in agents["prefix_group"]], bool)
    prefix = (np.where(is_in_group, agents["shared_prefix_tokens"], 0) + agents["fork_tokens"])[place]
    prompt = calls["prompt_tokens"]
    is_first = calls["call_index"] == 0
    in_flight = np.maximum(prompt - prefix, 0)
    after = np.maximum(prompt + calls["output_tokens"] - prefix, 0)
    after[np.append(is_first[1:], True)] = 0  # its last call takes an agent out
    before = np.where(is_first, 0, np.insert(after[:-1], 0, 0))
    group_times, group_changes = _shared_prefix_changes(requests, agents)
    times = np.concatenate((calls["submitted_s"], calls["finished_s"], group_times))
    changes = np.concatenate((in_flight - before, after - in_flight, group_changes))
    order = np.argsort(times, kind="stable")
    times_s, totals = times[order], np.cumsum(changes[order])
    is_final = np.append(times_s[1:] != times_s[:-1], True)
    return times_s[is_final], totals[is_final]


def _shared_prefix_changes(requests: Columns, agents: Columns) -> tuple[np.ndarray, np.ndarray]:
    """A group's prefix counts from its first call until its last agent has finished.

    What a fork shares counts with its parent only, as long as that is here.
    """
    is_first = requests["call_index"] == 0
    first_call_s = dict(
        zip(
            requests["agent_index"][is_first].tolist(),
            requests["submitted_s"][is_first].tolist(),
            strict=True,
        )
    )
    members: dict[str, list[int]] = {}
    tokens: dict[str, int] = {}
    for number, levels in enumerate(levels_of(agents)):
        warm_up(levels, tokens)
        for level in levels:
            members.setdefault(level.group, []).append(number)
    times: list[float] = []
    changes: list[int] = []
    for group in sorted(members):
        own = members[group]
        begin_s = min(first_call_s[index] for index in agents["agent_index"][own].tolist())
        times += [begin_s, float(agents["finished_s"][own].max())]
        changes += [tokens[group], -tokens[group]]
    return np.array(times, np.float64), np.array(changes, np.int64)


def _phase(name: str, start_s: float, end_s: float, calls: dict[str, np.ndarray]) -> Phase:
    begun = (calls["scheduled_s"] >= start_s) & (calls["scheduled_s"] < end_s)
    ended = (calls["finished_s"] > start_s) & (calls["finished_s"] <= end_s)
    prompt, cached = calls["prompt_tokens"], calls["cached_tokens"]
    later = begun & (calls["call_index"] > 0)
    duration_s = end_s - start_s
    generated = float(calls["output_tokens"][ended].sum())
    return Phase(
        name,
        start_s,
        end_s,
        hit_rate=_quotient(cached[begun].sum(), prompt[begun].sum()),
        hit_rate_later_calls=_quotient(cached[later].sum(), prompt[later].sum()),
        throughput_tokens_per_s=generated / duration_s if duration_s > 0 else None,
    )


def _quotient(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 and not np.isnan(part) else None


def hit_rate(requests: Columns) -> float | None:
    """Return cached / prompt tokens of the calls, `None` if there are none or it was not recorded."""
    prompt = int(requests["prompt_tokens"].sum())
    if not prompt or np.isnan(requests["cached_tokens"]).any():
        return None
    return int(requests["cached_tokens"].sum()) / prompt
