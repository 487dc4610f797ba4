"""What the profile's errors do to outcomes: every policy again on step times drawn around the profile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from concur.sim.errors import ScenarioError
from concur.sim.runs.parallel import Workers, run_tasks
from concur.sim.runs.policies import best_static_cap
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate

_QUANTILES: Final = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Band:
    """The 5 % quantile, the median and the 95 % quantile over draws."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyBands:
    """One policy over the draws.

    `speed_up`: over the best static cap of the same draw, `None` without static caps. `num_best`: in how many
    draws it was that cap.
    """

    policy: str
    makespan_s: Band
    speed_up: Band | None
    num_best: int
    num_draws: int

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name."""
        names = ("low", "median", "high")
        bands = {"makespan_s": self.makespan_s, "speed_up_over_best_static": self.speed_up}
        return {
            key: None if band is None else {name: getattr(band, name) for name in names}
            for key, band in bands.items()
        } | {"num_best": self.num_best, "num_draws": self.num_draws}


def run_draws(
    scenario: Scenario,
    configs: Sequence[ControllerConfig],
    workloads: Mapping[int, Workload],
    num_draws: int,
    *,
    workers: Workers | None = None,
    on_run: Callable[[], None] = lambda: None,
) -> list[PolicyBands]:
    """Run each controller on `num_draws` draws of the profile, which take the workloads in turn.

    Raises
    ------
    ScenarioError
        If the step time is no profile.
    """
    check_has_profile(scenario)
    seeds = list(workloads)
    tasks = [
        (_drawn(scenario, draw).with_controller(config), workloads[seeds[(draw - 1) % len(seeds)]])
        for draw in range(1, num_draws + 1)
        for config in configs
    ]
    makespans_s: dict[str, list[float]] = {config.label: [0.0] * num_draws for config in configs}
    for number, makespan_s in run_tasks(_makespan_s, tasks, workers=workers):
        draw, which = divmod(number, len(configs))
        makespans_s[configs[which].label][draw] = makespan_s
        on_run()
    return bands(makespans_s)


def check_has_profile(scenario: Scenario) -> None:
    """Refuse draws where nothing says how far off the step time is.

    Raises
    ------
    ScenarioError
        If the step time is no profile.
    """
    if scenario.step_time.kind != "profile":
        raise ScenarioError(
            "draws need errors to draw from, but the step time is no profile; name one with --set "
            "step_time.profile=NAME, or leave --draws out"
        )


def bands(makespans_s: Mapping[str, Sequence[float]]) -> list[PolicyBands]:
    """Return each policy's bands from its makespans, one per draw, in the same order of draws."""
    num_draws = len(next(iter(makespans_s.values())))
    best = [
        best_static_cap({label: own[draw] for label, own in makespans_s.items()}) for draw in range(num_draws)
    ]
    return [
        PolicyBands(
            label,
            _band(own),
            _speed_up(own, [makespans_s[cap][draw] for draw, cap in enumerate(best) if cap is not None]),
            best.count(label),
            num_draws,
        )
        for label, own in makespans_s.items()
    ]


def _drawn(scenario: Scenario, draw: int) -> Scenario:
    return scenario.model_copy(update={"step_time": scenario.step_time.model_copy(update={"draw": draw})})


def _makespan_s(task: tuple[Scenario, Workload]) -> float:
    return float(simulate(*task).metrics["makespan_s"])


def _speed_up(own_s: Sequence[float], best_s: Sequence[float]) -> Band | None:
    return _band([best / own for own, best in zip(own_s, best_s, strict=True)]) if best_s else None


def _band(values: Sequence[float]) -> Band:
    return Band(*(float(each) for each in np.quantile(values, _QUANTILES)))
