"""The best static cap, found by search: the baseline that counts, known only in hindsight."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from concur.sim.errors import ScenarioError
from concur.sim.runs.compare import Runs, policies
from concur.sim.runs.intervals import metric_interval
from concur.sim.scenario.sections import ControllerConfig

ORACLE: Final = "oracle"
"""What stands for the best static cap among policies."""

_RATIO: Final = 1.5  # of neighbours on the coarse grid
_PARTS: Final = 4  # steps into which a bracket is cut

Measure = Callable[[Sequence[int]], Mapping[int, float]]
"""Return what is to be low of each cap, such as its mean makespan in seconds."""


def search_static_cap(
    runs: Runs,
    metric: str = "makespan_s",
    *,
    is_higher_better: bool = False,
    on_run: Callable[[], None] = lambda: None,
) -> int:
    """Return the agent cap with the best mean of `metric` over the seeds of `runs`; of equals, the smallest.

    See `search_cap`. A cap without a value in a run counts as the worst. What was run is kept in `runs`.
    """
    sign = -1 if is_higher_better else 1
    num_agents = max(len(workload.agents) for workload in runs.workloads.values())

    def measure(caps: Sequence[int]) -> dict[int, float]:
        configs = {cap: _static(cap, runs) for cap in caps}
        for _ in runs.run(list(configs.values())):  # all caps at once on all cores
            on_run()
        means = {cap: metric_interval(runs.of(config), metric) for cap, config in configs.items()}
        return {cap: math.inf if each is None else sign * each.mean for cap, each in means.items()}

    return search_cap(num_agents, measure)


def search_cap(num_agents: int, measure: Measure) -> int:
    """Search 1 to `num_agents` for the cap that measures least: a geometric grid, then its best bracket.

    The bracket between the neighbours of the best cap so far is cut into ever smaller steps, down to 1; each
    cap is measured once. Exact where the measure falls to one minimum and rises after it. Makespan does up to
    noise, which more seeds lower; where a measure does not, the result is the best of the caps measured.
    """
    known = dict(measure(_coarse(num_agents)))
    step = num_agents
    while step > 1:
        best = _best(known)
        low = max((cap for cap in known if cap < best), default=best)
        high = min((cap for cap in known if cap > best), default=best)
        step = max(1, (high - low) // _PARTS)
        known |= measure([cap for cap in range(low + step, high, step) if cap not in known])
    return _best(known)


def expand_oracle(
    texts: Sequence[str],
    runs: Runs,
    say: Callable[[str], None],
    *,
    on_run: Callable[[], None] = lambda: None,
) -> list[str]:
    """Return policies with `oracle` replaced by the best static cap, and say which it is.

    No `texts`: those of the scenario's `[compare]`. A cap that another one names already is not named again.

    Raises
    ------
    ScenarioError
        If one of the others is no policy, or one is named twice: before the search.
    """
    texts = texts or runs.scenario.compare.controllers
    if ORACLE not in texts:
        return list(texts)
    others = [text for text in texts if text != ORACLE]
    if len(texts) - len(others) > 1:
        raise ScenarioError(f"{ORACLE} is named twice; name each policy once")
    named = {config.label for config in policies(runs.scenario, others, num_agents=0)} if others else set()
    say(f"{ORACLE}: searching the best static cap")
    found = f"agent_cap={search_static_cap(runs, on_run=on_run)}"
    seeds = ", ".join(map(str, runs.workloads))
    say(f"{ORACLE}: {found}, the best static cap in hindsight (simulated, seed {seeds})")
    return others if found in named else [found if text == ORACLE else text for text in texts]


def _coarse(num_agents: int) -> list[int]:
    caps, cap = {num_agents}, 1.0
    while cap < num_agents:
        caps.add(round(cap))
        cap *= _RATIO
    return sorted(caps)


def _best(known: Mapping[int, float]) -> int:
    return min(known, key=lambda cap: (known[cap], cap))


def _static(cap: int, runs: Runs) -> ControllerConfig:
    return runs.scenario.policies(f"agent_cap={cap}")[0]
