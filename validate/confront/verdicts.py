"""What follows from the figures of two worlds: which policies are predicted, their order, the best cap.

Live runs of one policy are repeated; their median is what the simulator has to meet, their range how well
the engine meets itself. A figure is right if it is within the tolerance of the live median, or inside the
range of the live repeats where that is wider. A figure that one of the worlds did not measure is left out and
named: nothing is judged by it.

**Speed-ups are paired by round.** Live runs go round by round, every policy once in each, so that a machine
that slows down slows all policies of a round alike: what is compared is no control's makespan and another
policy's of the same round, one ratio per round. Where the two did not run in the same rounds, every run of
the one is held against every run of the other, and none is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Final

from concur.validate.errors import ConfrontError

HIT_RATE_TOLERANCE: Final = 0.03  # points
MAKESPAN_TOLERANCE_FRAC: Final = 0.10
SPEED_UP_TOLERANCE_FRAC: Final = 0.10
JUDGED: Final = ("hit_rate", "makespan_s")


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

    def is_near(self, *, points: float = 0.0, frac: float = 0.0) -> bool:
        """Tell whether the simulation is within a tolerance of the median."""
        return abs(self.error) <= max(points, frac * abs(self.live_median))

    def is_within(self, *, points: float = 0.0, frac: float = 0.0) -> bool:
        """Tell whether the simulation is within a tolerance of the median, or in the range of the repeats."""
        return self.is_near(points=points, frac=frac) or min(self.live) <= self.simulated <= max(self.live)


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """One policy in both worlds.

    `figures` has only what both worlds measured. `rounds` are those of the live makespans, in their order;
    `reasons` say, for a policy that is not right, what the records hold of why.
    """

    label: str
    kind: str
    cap: int | None
    figures: Mapping[str, Figure]
    rounds: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def not_judged(self) -> tuple[str, ...]:
        """What should decide whether the policy is right, and was not measured in both worlds."""
        return tuple(name for name in JUDGED if name not in self.figures)

    @property
    def is_right(self) -> bool:
        """Whether hit rate and makespan, as far as they are measured, are within their tolerances."""
        return self._is_right("hit_rate") and self._is_right("makespan_s")

    def _is_right(self, name: str) -> bool:
        figure = self.figures.get(name)
        return figure is None or figure.is_within(**tolerance(name))


def tolerance(name: str) -> dict[str, float]:
    """Return the tolerance of one of the judged figures, as `Figure.is_within` takes it."""
    return {"points": HIT_RATE_TOLERANCE} if name == "hit_rate" else {"frac": MAKESPAN_TOLERANCE_FRAC}


@dataclass(frozen=True, slots=True)
class Confrontation:
    """All policies in both worlds, and what is concluded from them in each.

    `notes`: what a reader should know of the runs and their engine.

    Raises
    ------
    ConfrontError
        If there is no policy, or one of which nothing can be judged.
    """

    policies: tuple[PolicyVerdict, ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.policies:
            raise ConfrontError("there is no policy to judge; run some with `concur validate run`")
        for each in self.policies:
            if len(each.not_judged) == len(JUDGED):
                raise ConfrontError(
                    f"nothing of {each.label} can be judged: neither its hit rate nor its makespan is "
                    "measured in both worlds; run it again"
                )

    @property
    def misranked(self) -> tuple[tuple[str, str], ...]:
        """Pairs of policies in opposite order in the two worlds, where the live repeats leave no doubt."""
        return tuple(
            (one.label, other.label)
            for one, other in combinations(self._timed(), 2)
            if _is_misranked(one.figures["makespan_s"], other.figures["makespan_s"])
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
        timed = self._timed()
        none = next((each for each in timed if each.kind == "none"), None)
        if none is None:
            return {}
        knees = self.knees
        best = [each for each in self._caps() if knees and each.cap == knees[1]]
        laws = [each for each in timed if each.kind not in ("none", "request_cap", "agent_cap")]
        return {each.label: _speed_up(none, each) for each in (*best, *laws)}

    @property
    def wrong_speed_ups(self) -> tuple[str, ...]:
        """Policies whose speed-up is off by more than its tolerance."""
        figures = self.speed_ups.items()
        return tuple(label for label, each in figures if not each.is_within(frac=SPEED_UP_TOLERANCE_FRAC))

    @property
    def ok(self) -> bool:
        """Whether every policy, the ranking, the knee and the speed-ups are predicted."""
        are_right = all(policy.is_right for policy in self.policies)
        return are_right and not self.misranked and self.is_knee_right and not self.wrong_speed_ups

    def _timed(self) -> list[PolicyVerdict]:
        return [each for each in self.policies if "makespan_s" in each.figures]

    def _caps(self) -> list[PolicyVerdict]:
        return [each for each in self._timed() if each.kind == "agent_cap"]


def _speed_up(none: PolicyVerdict, other: PolicyVerdict) -> Figure:
    ours, theirs = none.figures["makespan_s"], other.figures["makespan_s"]
    by_round = dict(zip(other.rounds, theirs.live, strict=False))
    if set(none.rounds) == set(other.rounds):
        pairs = [(one, by_round[number]) for number, one in zip(none.rounds, ours.live, strict=True)]
    else:
        pairs = [(one, two) for one in ours.live for two in theirs.live]
    return Figure(ours.simulated / theirs.simulated, tuple(one / two for one, two in pairs))


def _is_misranked(a: Figure, b: Figure) -> bool:
    if min(max(a.live), max(b.live)) >= max(min(a.live), min(b.live)):  # the engine itself does not say
        return False
    return (a.simulated - b.simulated) * (a.live_median - b.live_median) < 0
