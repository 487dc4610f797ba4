"""Simulated against live: whether each policy is predicted, and what follows from comparing them.

Live runs of one policy are repeated; their median is what the simulator has to meet, their range how well
the engine meets itself. A figure is right if it is within the tolerance of the live median, or inside the
range of the live repeats where that is wider.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Final

from sim.policies import in_order
from sim.record import RunRecord
from sim.scenario import ControllerConfig, parse_controllers
from validate.errors import ConfrontError

HIT_RATE_TOLERANCE: Final = 0.03  # points
MAKESPAN_TOLERANCE_FRAC: Final = 0.10
SPEED_UP_TOLERANCE_FRAC: Final = 0.10
_METRICS: Final = ("makespan_s", "throughput_tokens_per_s", "hit_rate", "mean_active_agents", "mean_kv_usage")


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one policy: simulated, and the live repeats (at least one)."""

    simulated: float
    live: tuple[float, ...]

    @property
    def live_median(self) -> float:
        """What the simulation is held against."""
        return median(self.live)

    @property
    def error(self) -> float:
        """Simulated minus live median."""
        return self.simulated - self.live_median

    @property
    def error_frac(self) -> float:
        """Error relative to the live median."""
        return self.error / self.live_median if self.live_median else float(bool(self.error))

    def is_within(self, *, points: float = 0.0, frac: float = 0.0) -> bool:
        """Tell whether the simulation is within a tolerance of the median, or in the range of the repeats."""
        tolerance = max(points, frac * abs(self.live_median))
        return abs(self.error) <= tolerance or min(self.live) <= self.simulated <= max(self.live)


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """One policy in both worlds."""

    label: str
    kind: str
    cap: int | None
    figures: Mapping[str, Figure]

    @property
    def is_right(self) -> bool:
        """Whether hit rate and makespan are predicted within their tolerances."""
        return self.figures["hit_rate"].is_within(points=HIT_RATE_TOLERANCE) and self.figures[
            "makespan_s"
        ].is_within(frac=MAKESPAN_TOLERANCE_FRAC)


@dataclass(frozen=True, slots=True)
class Confrontation:
    """All policies in both worlds, and what is concluded from them in each."""

    policies: tuple[PolicyVerdict, ...]

    @property
    def misranked(self) -> tuple[tuple[str, str], ...]:
        """Pairs of policies in opposite order in the two worlds, where the live repeats leave no doubt."""
        return tuple(
            (one.label, other.label)
            for one, other in combinations(self.policies, 2)
            if _is_misranked(one, other)
        )

    @property
    def knees(self) -> tuple[int, int] | None:
        """The best static cap, simulated and live; `None` without caps."""
        caps = self._caps()
        if not caps:
            return None
        simulated = min(caps, key=lambda each: each.figures["makespan_s"].simulated)
        live = min(caps, key=lambda each: each.figures["makespan_s"].live_median)
        return int(simulated.cap or 0), int(live.cap or 0)

    @property
    def is_knee_right(self) -> bool:
        """Whether the worlds agree on the best cap, or name neighbours."""
        knees = self.knees
        if knees is None:
            return True
        order = sorted(int(each.cap or 0) for each in self._caps())
        return abs(order.index(knees[0]) - order.index(knees[1])) <= 1

    @property
    def speed_ups(self) -> dict[str, Figure]:
        """No control's makespan over that of the live best cap and of each law, where there is no control."""
        none = next((each for each in self.policies if each.kind == "none"), None)
        if none is None:
            return {}
        knees = self.knees
        best = [each for each in self._caps() if knees and each.cap == knees[1]]
        laws = [each for each in self.policies if each.kind not in ("none", "request_cap", "agent_cap")]
        return {each.label: _speed_up(none, each) for each in (*best, *laws)}

    @property
    def ok(self) -> bool:
        """Whether every policy, the ranking, the knee and the speed-ups are predicted."""
        speed_ups = self.speed_ups.values()
        return (
            all(policy.is_right for policy in self.policies)
            and not self.misranked
            and self.is_knee_right
            and all(figure.is_within(frac=SPEED_UP_TOLERANCE_FRAC) for figure in speed_ups)
        )

    def _caps(self) -> list[PolicyVerdict]:
        return [each for each in self.policies if each.kind == "agent_cap"]


def confront(simulated: Sequence[RunRecord], live: Sequence[RunRecord]) -> Confrontation:
    """Put runs of one workload side by side, by policy; live ones may repeat.

    Raises
    ------
    ConfrontError
        If a live run is not complete, the workloads differ, or a policy ran in one world only.
    """
    if not live:
        raise ConfrontError("there is no live run to compare with; run `concur validate run` first")
    by_label = {record.label: record for record in simulated}
    runs: dict[str, list[RunRecord]] = {}
    for record in in_order(live):
        _check(record, by_label)
        runs.setdefault(record.label, []).append(record)
    return Confrontation(tuple(_verdict(by_label[label], repeats) for label, repeats in runs.items()))


def confrontation_json(result: Confrontation) -> dict[str, Any]:
    """Return the result as JSON values: per policy both worlds and their errors, and a top-level `ok`."""
    return {
        "ok": result.ok,
        "tolerances": {
            "hit_rate": HIT_RATE_TOLERANCE,
            "makespan_frac": MAKESPAN_TOLERANCE_FRAC,
            "speed_up_frac": SPEED_UP_TOLERANCE_FRAC,
        },
        "policies": {
            each.label: {"ok": each.is_right} | {name: _figure_json(f) for name, f in each.figures.items()}
            for each in result.policies
        },
        "misranked": [list(pair) for pair in result.misranked],
        "knee": dict(zip(("simulated", "live"), result.knees or (None, None), strict=True))
        | {"ok": result.is_knee_right},
        "speed_ups": {label: _figure_json(figure) for label, figure in result.speed_ups.items()},
    }


def read_confrontation(path: Path) -> Confrontation:
    """Read back what `concur validate compare --json` printed.

    Raises
    ------
    ConfrontError
        If the file is missing or is not such a result.
    """
    try:
        policies = json.loads(path.read_text(encoding="utf-8"))["policies"]
        verdicts = tuple(_read_verdict(label, given) for label, given in policies.items())
    except (OSError, json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ConfrontError(
            f"{path}: not a confrontation ({error}); make one with `concur validate compare DIR --json`"
        ) from None
    return Confrontation(verdicts)


def _read_verdict(label: str, given: dict[str, Any]) -> PolicyVerdict:
    (controller,) = parse_controllers(label, ControllerConfig())
    figures: dict[str, Figure] = {
        name: Figure(given[name]["simulated"], tuple(given[name]["live_runs"]))
        for name in _METRICS
        if name in given
    }
    return PolicyVerdict(label, controller.kind, controller.parameters.get("cap"), figures)


def _check(live: RunRecord, simulated: Mapping[str, RunRecord]) -> None:
    if not live.run.get("complete", True):
        raise ConfrontError(f"the live run of {live.label} is not complete; run it again")
    if live.label not in simulated:
        raise ConfrontError(f"{live.label} ran live but was not simulated; simulate it too")
    if live.run["workload"] != simulated[live.label].run["workload"]:
        raise ConfrontError(
            f"{live.label} ran different workloads in the two worlds; run both from one scenario"
        )


def _verdict(simulated: RunRecord, live: Sequence[RunRecord]) -> PolicyVerdict:
    controller = simulated.run["scenario"]["controller"]
    figures = {
        name: Figure(float(simulated.metrics[name]), tuple(float(record.metrics[name]) for record in live))
        for name in _METRICS
        if all(record.metrics[name] is not None for record in (simulated, *live))
    }
    return PolicyVerdict(simulated.label, controller["kind"], controller["parameters"].get("cap"), figures)


def _speed_up(none: PolicyVerdict, other: PolicyVerdict) -> Figure:
    ours, theirs = none.figures["makespan_s"], other.figures["makespan_s"]
    live = tuple(one / two for one, two in zip(sorted(ours.live), sorted(theirs.live), strict=False))
    return Figure(ours.simulated / theirs.simulated, live)


def _is_misranked(one: PolicyVerdict, other: PolicyVerdict) -> bool:
    a, b = one.figures["makespan_s"], other.figures["makespan_s"]
    if min(max(a.live), max(b.live)) >= max(min(a.live), min(b.live)):  # the engine itself does not say
        return False
    return (a.simulated - b.simulated) * (a.live_median - b.live_median) < 0


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "simulated": figure.simulated,
        "live": figure.live_median,
        "live_runs": list(figure.live),
        "error": figure.error,
        "error_frac": figure.error_frac,
    }
