"""Laws against the best static cap, over many cases: each grid point on several orders or seeds is one.

A case's baseline is the cap with the shortest mean makespan over its seeds, found by search and chosen in
hindsight, which flatters it. Ratios are a policy's makespan over the baseline's, each seed against its own; a
case counts by its geometric mean over seeds. Below 1 is faster than any static cap.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from concur.sim.errors import ScenarioError
from concur.sim.lab.grid import Cell, GridConfig, Point, load_cells
from concur.sim.lab.oracle import search_cap
from concur.sim.lab.sweep import Result, Store, run_points
from concur.sim.runs.compare import policies as read_policies
from concur.sim.runs.intervals import Interval, mean_interval
from concur.sim.runs.parallel import Workers
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import load_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import read_toml
from concur.sim.traces.trace import trace_sha256

NONE: Final = "none"
_TELLS: Final = ("kind", "process", "profile")  # keys whose values need no name
_LEAST_SEEDS: Final = 2
_AS_GOOD: Final = 1.01  # no control within this of the best cap: nothing is to be gained there


@dataclass(frozen=True)
class Case:
    """A grid point, the policies to judge on it, and the seeds of its orders or draws."""

    name: str
    cell: Cell
    policies: tuple[ControllerConfig, ...]
    seeds: tuple[int, ...]

    @cached_property
    def num_agents(self) -> int:
        """The most agents that any of the seeds brings: the widest cap that differs from no control."""
        scenario = self.cell.scenario
        return max(len(build_workload(scenario.with_seed(seed)).agents) for seed in self.seeds)

    def points(self, controllers: Sequence[ControllerConfig]) -> list[Point]:
        """Return the runs of some policies on every seed."""
        return [self.cell.point(each, seed) for seed in self.seeds for each in controllers]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Makespans of a case in seconds, by policy and seed, and the best static cap with its own."""

    name: str
    best_cap: int
    best_s: Mapping[int, float]
    makespans_s: Mapping[str, Mapping[int, float]]
    commits: frozenset[str | None]

    def log_ratios(self, policy: str, baseline: str | None = None) -> list[float]:
        """Return the logarithms of makespan over the best cap's, or over another policy's, by seed."""
        under = self.best_s if baseline is None else self.makespans_s[baseline]
        return [math.log(makespan_s / under[seed]) for seed, makespan_s in self.makespans_s[policy].items()]

    def ratio(self, policy: str, baseline: str | None = None) -> float:
        """Return the geometric mean over seeds of a policy's makespan over the best cap's, or another's."""
        logs = self.log_ratios(policy, baseline)
        return math.exp(math.fsum(logs) / len(logs))

    @property
    def is_best_left_alone(self) -> bool:
        """Whether no control is within a hundredth of the best cap."""
        return NONE in self.makespans_s and self.ratio(NONE) <= _AS_GOOD


def load_cases(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    policies: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Case]:
    """Read a grid, or a scenario, which is a grid of one point; `policies` and `seeds` go before its own.

    Static caps among its own policies are left out: the best is searched.

    Raises
    ------
    ScenarioError
        If it is no such file, names no law or a policy twice, or has fewer than two seeds.
    """
    config, cells = _cells(path, overrides)
    names = [_name(path, cell, config.grid) for cell in cells]
    return [
        _case(path, name, cell, policies or config.policies, seeds or config.seeds)
        for name, cell in zip(names, cells, strict=True)
    ]


def _cells(path: Path, overrides: Sequence[str]) -> tuple[GridConfig, Sequence[Cell]]:
    if "scenario" in read_toml(path, what="grid or scenario"):
        return load_cells(path, overrides)
    scenario = load_scenario(path, overrides)
    trace = scenario.workload.trace
    cell = Cell({}, scenario, None if trace is None else trace_sha256(Path(trace)))
    return GridConfig(scenario=path.name), [cell]


def _case(
    path: Path, name: str, cell: Cell, texts: Sequence[str] | None, seeds: Sequence[int] | None
) -> Case:
    compare = cell.scenario.compare
    laws = [text for text in texts or compare.controllers if not _is_cap(text)]
    chosen = tuple(seeds or compare.seeds)
    if not laws:
        raise ScenarioError(f"{path}: no law to judge (the best cap is found by search); name some")
    if len(chosen) < _LEAST_SEEDS:
        raise ScenarioError(
            f"{path}: seeds = {list(chosen)} but a case is judged on at least {_LEAST_SEEDS}; name them in "
            "the file or with --seeds"
        )
    judged = read_policies(cell.scenario, laws, num_agents=0)
    return Case(name, cell, tuple(judged), chosen)


def judge(
    cases: Sequence[Case],
    store: Store,
    *,
    workers: Workers,
    on_run: Callable[[], None] = lambda: None,
) -> Iterator[Verdict]:
    """Yield the verdict on each case as it is reached; runs that are in `store` are not made again.

    Raises
    ------
    ScenarioError
        If two cases have the same name, or a run failed: a case without it would compare other things.
    """
    _check_names(cases)
    for case in cases:
        runs = _CaseRuns(case, store, workers, on_run)
        best_cap = search_cap(case.num_agents, runs.mean_s)
        best = case.cell.scenario.policies(f"agent_cap={best_cap}")
        by_policy = runs.makespans_s([*best, *case.policies])
        best_s = by_policy.pop(best[0].label)
        yield Verdict(case.name, best_cap, best_s, by_policy, frozenset(runs.commits))


class _CaseRuns:
    """The runs of one case."""

    def __init__(self, case: Case, store: Store, workers: Workers, on_run: Callable[[], None]) -> None:
        self._case = case
        self._store = store
        self._workers = workers
        self._on_run = on_run
        self.commits: set[str | None] = set()

    def mean_s(self, caps: Sequence[int]) -> dict[int, float]:
        """Return the mean makespan over the seeds of each cap."""
        scenario = self._case.cell.scenario
        configs = [scenario.policies(f"agent_cap={cap}")[0] for cap in caps]
        by_policy = self.makespans_s(configs) if configs else {}
        return {
            cap: math.fsum(by_policy[config.label].values()) / len(self._case.seeds)
            for cap, config in zip(caps, configs, strict=True)
        }

    def makespans_s(self, controllers: Sequence[ControllerConfig]) -> dict[str, dict[int, float]]:
        """Return the makespans by policy and seed."""
        points = self._case.points(controllers)
        results = self._store.load(points)
        missing = [point for point in points if point.key not in results]
        results |= run_points(missing, self._store, workers=self._workers, on_done=self._on_run)
        by_policy: dict[str, dict[int, float]] = {}
        for point in points:
            makespan_s = self._makespan_s(point, results[point.key])
            by_policy.setdefault(point.policy, {})[point.scenario.seed] = makespan_s
        return by_policy

    def _makespan_s(self, point: Point, result: Result) -> float:
        if "error" in result:
            raise ScenarioError(f"{self._case.name}, {point.name}: {result['error']}")
        self.commits.add(result["git_commit"])
        makespan_s = result["metrics"]["makespan_s"]
        if not makespan_s:
            raise ScenarioError(f"{self._case.name}, {point.name}: it took no time, and there is no ratio")
        return float(makespan_s)


@dataclass(frozen=True, slots=True)
class Summary:
    """A policy over all cases.

    `geometric_mean` of the cases' ratios, with its 95 % interval over seeds where all cases have the same
    number of them, as multiples below and above; `worst` case and its name; `num_close` cases within 2 % of
    the best cap or better; `worst_left_alone`: against no control, where no control is best.
    """

    policy: str
    geometric_mean: float
    interval: tuple[float, float] | None
    worst: float
    worst_case: str
    num_close: int
    num_cases: int
    worst_left_alone: float | None


def summarise(verdicts: Sequence[Verdict]) -> list[Summary]:
    """Return one line per policy that was judged on every case, in the order of the first."""
    names = [name for name in verdicts[0].makespans_s if all(name in each.makespans_s for each in verdicts)]
    return [_summary(name, verdicts) for name in names]


def _summary(policy: str, verdicts: Sequence[Verdict]) -> Summary:
    ratios = {each.name: each.ratio(policy) for each in verdicts}
    mean_log = math.fsum(map(math.log, ratios.values())) / len(ratios)
    worst = max(ratios, key=lambda name: ratios[name])
    alone = [each.ratio(policy, NONE) for each in verdicts if each.is_best_left_alone]
    return Summary(
        policy=policy,
        geometric_mean=math.exp(mean_log),
        interval=_over_seeds([each.log_ratios(policy) for each in verdicts]),
        worst=ratios[worst],
        worst_case=worst,
        num_close=sum(ratio <= 1.02 for ratio in ratios.values()),
        num_cases=len(ratios),
        worst_left_alone=max(alone, default=None),
    )


def _over_seeds(logs: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the 95 % interval of the geometric mean over cases, each seed's mean being one sample."""
    if len({len(each) for each in logs}) != 1:
        return None
    found: Interval = mean_interval([math.fsum(seed) / len(logs) for seed in zip(*logs, strict=True)])
    if found.half_width is None:
        return None
    return math.exp(found.mean - found.half_width), math.exp(found.mean + found.half_width)


def _is_cap(text: str) -> bool:
    return text.partition("=")[0] in ("agent_cap", "oracle")


def _name(path: Path, cell: Cell, grid: Mapping[str, Sequence[Any]]) -> str:
    """Return the case in a few words: the file's name and what its grid varies."""
    values = [
        f"{key.rpartition('.')[2]} {_short(cell.values[key], among)}"
        for key, among in grid.items()
        if len(among) > 1
    ]
    return ", ".join([path.stem, *values])


def _short(value: Any, among: Sequence[Any]) -> str:
    """Return a value in a few words; of a table, what tells it from the others."""
    if isinstance(value, Mapping):
        tables = [each for each in among if isinstance(each, Mapping)]
        telling = {key: own for key, own in value.items() if any(each.get(key) != own for each in tables)}
        return " ".join(str(own) if key in _TELLS else f"{key} {own}" for key, own in telling.items())
    return Path(value).name if isinstance(value, str) else str(value)


def _check_names(cases: Sequence[Case]) -> None:
    names = Counter(case.name for case in cases)
    if twice := [name for name, number in names.items() if number > 1]:
        raise ScenarioError(
            f"{names[twice[0]]} cases are called {twice[0]!r}, and each needs a name of its own; "
            "rename a file, or leave one of them out"
        )
