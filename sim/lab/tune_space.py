"""What `concur tune` may change of each law, and how far: the one place for it.

Thresholds that one law orders (`u_low_frac` at most `u_high_frac`) are sorted before use. What is not here is
a promise (`max_wait_s`, `min_window`), a variant (`usage_counts`, `faithful`) or not a choice of the law.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from concur.controllers import CATALOG
from concur.sim.errors import ScenarioError

Value = int | float


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included; whole numbers if both are. `is_log`: ratios count."""

    low: Value
    high: Value
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


# From ten decisions a second, as one re-implementation of CONCUR has it, to one in some calls' time.
_INTERVAL_S: Final = Range(0.1, 30.0, is_log=True)
# One agent to more than the pools of the examples hold.
_INITIAL_WINDOW: Final = Range(1, 256, is_log=True)

_TWIN: Final[Mapping[str, Range]] = {
    "plan_every_s": Range(2.0, 120.0, is_log=True),  # a fifth of ours to twelve times as long
    "interval_s": _INTERVAL_S,
    "initial_window": _INITIAL_WINDOW,
}
SPACE: Final[Mapping[str, Mapping[str, Range]]] = {
    "agent_cap": {"cap": Range(1, 1024, is_log=True)},  # cut to the number of agents
    "request_cap": {"cap": Range(1, 1024, is_log=True)},
    "concur": {
        "alpha": Range(1, 32, is_log=True),  # 0 never grows; 32 is twice the start in one step
        "beta": Range(0.1, 0.95),  # 1 never cuts
        "u_low_frac": Range(0.05, 1.0),  # 1 grows whatever the usage
        "u_high_frac": Range(0.05, 1.0),  # 1 never cuts
        "h_thresh_frac": Range(0.0, 1.0),  # 0 never cuts, 1 at any usage that is high
        "interval_s": _INTERVAL_S,
        "initial_window": _INITIAL_WINDOW,
    },
    "ledger": {
        "tool_weight": Range(0.0, 1.0),  # all that the law allows
        "buffer_tokens": Range(10, 10_000, is_log=True),  # a tenth to a hundred times ThunderAgent's
        "interval_s": _INTERVAL_S,
    },
    "turnover": {"interval_s": _INTERVAL_S, "initial_window": _INITIAL_WINDOW},
    "vegas": {
        "probe_ticks": Range(10, 1000, is_log=True),  # about a tenth to ten times ours
        "interval_s": _INTERVAL_S,
        "initial_window": _INITIAL_WINDOW,
    },
    "gradient": {"interval_s": _INTERVAL_S, "initial_window": _INITIAL_WINDOW},
    "twin": _TWIN,
    "fleet_twin": _TWIN,
    "hybrid": {
        "window_s": Range(2.0, 120.0, is_log=True),  # a few calls to a good part of a batch
        "tool_waits": Range(0.0, 8.0),  # none of the history to nearly all waits (1 - e^-8)
        "shortfall_frac": Range(0.02, 1.0, is_log=True),  # noise of the rates to no veto at all
        "interval_s": Range(0.1, 10.0, is_log=True),
        "initial_window": _INITIAL_WINDOW,
    },
}
_SORTED: Final[Mapping[str, tuple[str, str]]] = {"concur": ("u_low_frac", "u_high_frac")}


def space_of(kind: str, *, num_agents: int) -> dict[str, Range]:
    """Return the ranges of a law's parameters; a cap reaches to the number of agents.

    Raises
    ------
    ScenarioError
        If the law has nothing to choose, or there is no such law.
    """
    if kind not in SPACE:
        known = "nothing to tune" if kind in CATALOG else "not a law"
        raise ScenarioError(f"--controllers {kind}: {known}; choose one of {', '.join(SPACE)}")
    space = dict(SPACE[kind])
    if "cap" in space:
        space["cap"] = Range(1, max(2, num_agents), is_log=True)
    return space


def start_of(space: Mapping[str, Range], given: Mapping[str, Any]) -> dict[str, Value]:
    """Return what of the given parameters is searched: where the search starts.

    Raises
    ------
    ScenarioError
        If one of them lies outside its range.
    """
    start: dict[str, Value] = {name: given[name] for name in space}
    for name, value in start.items():
        low, high = space[name].low, space[name].high
        if not low <= value <= high:
            raise ScenarioError(
                f"controller.{name} = {value} but is searched from {low} to {high}; leave it out"
            )
    return start


def settle(kind: str, chosen: Mapping[str, Value]) -> dict[str, Value]:
    """Return the chosen values as the law takes them: ordered thresholds in order."""
    names = _SORTED.get(kind, ())
    return {**chosen, **dict(zip(names, sorted(chosen[name] for name in names), strict=True))}
