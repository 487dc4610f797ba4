"""One workload, several policies, one table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from concur.sim.errors import ScenarioError
from concur.sim.record.record import RunRecord
from concur.sim.runs.parallel import Workers, run_tasks
from concur.sim.runs.policies import in_order
from concur.sim.scenario.build import build_workload, build_workloads
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate

CAP_GRID = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 512)


def policies(scenario: Scenario, texts: Sequence[str], *, num_agents: int) -> list[ControllerConfig]:
    """Return the controllers named by `texts`, else by `[compare]`, else the default set.

    The default set is no control, a request cap at a quarter of the agents, every cap of `CAP_GRID` below
    the number of agents, and CONCUR.

    Raises
    ------
    ScenarioError
        If one of them is not a controller, or is named twice: the same run again would say nothing.
    """
    texts = texts or scenario.compare.controllers or default_policies(num_agents)
    named_by: dict[str, str] = {}
    configs = []
    for text in texts:
        for config in scenario.policies(text):
            if config.label in named_by:
                by = dict.fromkeys((named_by[config.label], text))
                raise ScenarioError(
                    f"{config.label} is named twice, by {' and '.join(by)}; name each policy once"
                )
            named_by[config.label] = text
            configs.append(config)
    return configs


def default_policies(num_agents: int) -> tuple[str, ...]:
    """Return the `--controllers` items of the default set."""
    caps = [str(cap) for cap in CAP_GRID if cap < num_agents]
    sweep = (f"agent_cap={','.join(caps)}",) if caps else ()
    return ("none", f"request_cap={max(1, num_agents // 4)}", *sweep, "concur")


def run_policies(
    scenario: Scenario, configs: Sequence[ControllerConfig], *, workload: Workload | None = None
) -> Iterator[RunRecord]:
    """Run the scenario under each controller on all cores; yield records as they finish.

    All policies face the same workload: it is built once.
    """
    yield from run_seeds(scenario, configs, {scenario.seed: workload or build_workload(scenario)})


def run_seeds(
    scenario: Scenario,
    configs: Sequence[ControllerConfig],
    workloads: Mapping[int, Workload],
    *,
    workers: Workers | None = None,
) -> Iterator[RunRecord]:
    """Run the scenario under each controller on each seed's workload; yield records as they finish."""
    pairs = [(config, seed) for seed in workloads for config in configs]
    yield from run_pairs(scenario, pairs, workloads, workers)


def run_pairs(
    scenario: Scenario,
    pairs: Iterable[tuple[ControllerConfig, int]],
    workloads: Mapping[int, Workload],
    workers: Workers | None = None,
) -> Iterator[RunRecord]:
    """Run the scenario under each controller on the seed beside it; yield records as they finish."""
    tasks = [(scenario.with_seed(seed).with_controller(config), workloads[seed]) for config, seed in pairs]
    for _, record in run_tasks(_run, tasks, workers=workers):
        yield record


def _run(task: tuple[Scenario, Workload]) -> RunRecord:
    return simulate(*task)


class Runs:
    """The runs of one scenario on some seeds: each policy runs once, however often it is asked for."""

    def __init__(self, scenario: Scenario, seeds: Sequence[int], *, workers: Workers | None = None) -> None:
        self.scenario = scenario
        self.workloads = build_workloads(scenario, seeds)
        self._workers = workers
        self._records: dict[tuple[str, int], RunRecord] = {}

    def know(self, record: RunRecord) -> None:
        """Take note of a run that has been made already."""
        config = ControllerConfig.model_validate(record.run["scenario"]["controller"])
        self._records[_key(config), int(record.run["seed"])] = record

    @property
    def records(self) -> list[RunRecord]:
        """All runs that are known."""
        return list(self._records.values())

    def run(self, configs: Sequence[ControllerConfig]) -> Iterator[RunRecord]:
        """Yield the records of each controller on each seed: the known ones, then others as they finish."""
        wanted = {(_key(config), seed): (config, seed) for seed in self.workloads for config in configs}
        missing = [pair for key, pair in wanted.items() if key not in self._records]
        yield from [self._records[key] for key in wanted if key in self._records]
        for record in run_pairs(self.scenario, missing, self.workloads, self._workers):
            self.know(record)
            yield record

    def of(self, config: ControllerConfig) -> dict[int, RunRecord]:
        """Return the runs of one controller by seed, in the order of seeds."""
        by_seed = {int(record.run["seed"]): record for record in self.run([config])}
        return dict(sorted(by_seed.items()))


def _key(config: ControllerConfig) -> str:
    return config.model_dump_json()


def by_policy(records: Iterable[RunRecord]) -> dict[str, dict[int, RunRecord]]:
    """Sort runs by policy, in the order of the catalog, then by seed."""
    runs: dict[str, dict[int, RunRecord]] = {}
    for record in sorted(in_order(records), key=lambda record: int(record.run["seed"])):
        runs.setdefault(record.label, {})[int(record.run["seed"])] = record
    return runs
