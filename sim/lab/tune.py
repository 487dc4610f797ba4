"""Search the parameters of a law, on some seeds, by Optuna's tree-structured Parzen estimator; needs `tune`.

The first trial is the start (the law's defaults), so the best is never worse than it on those seeds. Trials
follow one another, and each draws from a generator of its own, seeded by the scenario's seed and its number:
the same command makes the same trials, in one go or in several. `study.log`, Optuna's journal, keeps them.

With several objectives the estimator works on all of them, and the result is the front of trials that no
other one beats in everything.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from pydantic import ValidationError

from concur.sim.errors import RecordError, ScenarioError
from concur.sim.lab.tune_space import Range, Value, settle, space_of, start_of
from concur.sim.record.provenance import git_commit, versions
from concur.sim.runs.compare import run_seeds
from concur.sim.runs.intervals import METRICS, metric_interval
from concur.sim.runs.parallel import Workers
from concur.sim.scenario.scenario import Scenario, what_decides
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import explain
from concur.sim.workload.spec import Workload

HIGHER_IS_BETTER: Final = frozenset(
    {"throughput_tokens_per_s", "hit_rate", "mean_active_agents", "jain_fairness"}
)
_STUDY: Final = "tune"
_FEWEST_FOR_IMPORTANCE: Final = 10
# What Optuna raises where the journal, or its lock, cannot be made, or a line of it is broken.
_NO_JOURNAL: Final = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for: a law's parameters that are best by the objectives on the workloads (by seed)."""

    scenario: Scenario
    workloads: Mapping[int, Workload]
    objectives: tuple[str, ...]
    start: ControllerConfig
    space: Mapping[str, Range]

    @property
    def policy(self) -> str:
        """The law and its guards, as `--controllers` takes them: `agent_cap`, `hybrid+fresh`."""
        return "+".join((self.start.kind, *self.start.wrappers))

    def controller(self, chosen: Mapping[str, Value]) -> ControllerConfig:
        """Return the law with the chosen parameters, all others as at the start."""
        raw = self.start.model_dump()
        raw["parameters"] |= settle(self.start.kind, chosen)
        try:
            return ControllerConfig.model_validate(raw)
        except ValidationError as error:
            raise explain(error, f"--controllers {self.policy}") from None

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a trial, but the number of trials."""
        asked = self.scenario.with_controller(self.start)
        parts = (
            what_decides(asked),
            {seed: workload.sha256 for seed, workload in self.workloads.items()},
            self.objectives,
            {name: repr(each) for name, each in self.space.items()},
            versions() | asked.packages,
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of parameters, the objectives' means over the seeds, and the commit that made them."""

    number: int
    parameters: dict[str, Value]
    values: tuple[float, ...]
    git_commit: str | None = None


def ask(
    scenario: Scenario, policy: str, objectives: Sequence[str], workloads: Mapping[int, Workload]
) -> Question:
    """Return the question of tuning `policy` (`concur`, `hybrid+fresh`); it starts at the defaults.

    Parameters in `[controller]`, if it is of that law, stay. A cap starts at the one given there, else at all
    agents, which is also what a larger one means.

    Raises
    ------
    ScenarioError
        If there is no such law or objective, or the search could not start.
    """
    for name in objectives:
        if name not in METRICS or list(objectives).count(name) > 1:
            raise ScenarioError(f"objective {name!r}: must be one of {', '.join(METRICS)}, and named once")
    num_agents = max(len(workload.agents) for workload in workloads.values())
    kind = policy.partition("+")[0]
    space = space_of(kind, num_agents=num_agents)
    text = f"{policy}={_first_cap(scenario, kind, space['cap'])}" if "cap" in space else policy
    (start,) = scenario.policies(text)
    start_of(space, start.parameters)
    return Question(scenario, workloads, tuple(objectives), start, space)


def search(
    question: Question,
    folder: Path,
    *,
    num_trials: int,
    workers: Workers | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Trial]:
    """Make trials until there are `num_trials`; each is kept in `folder` as it ends.

    Raises
    ------
    RecordError
        If the folder cannot be used, or has trials of another question.
    """
    study = _open(question, folder)
    while (number := len(_completed(study))) < num_trials:
        on_done(number)
        study.sampler = TPESampler(seed=question.scenario.seed + number)
        if number == 0 and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(start_of(question.space, question.start.parameters))
        trial = study.ask(_distributions(question))
        trial.set_user_attr("git_commit", git_commit())
        study.tell(trial, _measure(question, trial.params, workers))
    return trials_in(question, folder)[:num_trials]


def trials_in(question: Question, folder: Path) -> list[Trial]:
    """Return the finished trials that are kept in `folder`, first to last."""
    return [
        Trial(
            number,
            settle(question.start.kind, trial.params),
            tuple(trial.values),
            trial.user_attrs.get("git_commit"),
        )
        for number, trial in enumerate(_completed(_open(question, folder)))
    ]


def front(question: Question, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other one beats, best in the first objective first."""
    signs = [-1 if name in HIGHER_IS_BETTER else 1 for name in question.objectives]
    losses = {
        trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)]
        for trial in trials
    }

    def is_beaten(own: Sequence[float]) -> bool:
        return any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in losses.values()
        )

    kept = [trial for trial in trials if not is_beaten(losses[trial.number])]
    distinct = {tuple(losses[trial.number]): trial for trial in reversed(kept)}
    return [distinct[key] for key in sorted(distinct)]


def importances(question: Question, trials: Sequence[Trial]) -> dict[str, float]:
    """Return each parameter's share in what sets the best tenth of trials apart, by the first objective.

    PED-ANOVA (Watanabe et al., IJCAI 2023), as Optuna has it, on the values that the law took: thresholds
    that it orders count in order. Empty for fewer than ten trials.
    """
    if len(trials) < _FEWEST_FOR_IMPORTANCE or len(question.space) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=_direction(question.objectives[0]))
    within = _distributions(question)
    study.add_trials(
        [create_trial(params=each.parameters, distributions=within, value=each.values[0]) for each in trials]
    )
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def _first_cap(scenario: Scenario, kind: str, within: Range) -> Value:
    is_given = scenario.controller.kind == kind
    return min(within.high, scenario.controller.parameters["cap"]) if is_given else within.high


def _open(question: Question, folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    log = folder / "study.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(log))),
            study_name=_STUDY,
            directions=[_direction(name) for name in question.objectives],
            load_if_exists=True,
        )
    except _NO_JOURNAL as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RecordError(
            f"{log}: cannot be read and written as a journal of trials ({reason}); choose another --out"
        ) from None
    if study.user_attrs.get("digest", question.digest) != question.digest:
        raise RecordError(
            f"{folder}: has trials of another scenario, law, objective or version; choose another --out"
        )
    study.set_user_attr("digest", question.digest)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # interrupted
    return study


def _completed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _direction(objective: str) -> Literal["maximize", "minimize"]:
    return "maximize" if objective in HIGHER_IS_BETTER else "minimize"


def _distributions(question: Question) -> dict[str, BaseDistribution]:
    return {name: _distribution(each) for name, each in question.space.items()}


def _distribution(within: Range) -> BaseDistribution:
    if within.is_whole:
        return IntDistribution(int(within.low), int(within.high), log=within.is_log)
    return FloatDistribution(within.low, within.high, log=within.is_log)


def _measure(question: Question, chosen: Mapping[str, Value], workers: Workers | None = None) -> list[float]:
    """Return the mean of each objective over the seeds, which run in parallel."""
    config = question.controller(chosen)
    records = run_seeds(question.scenario, [config], question.workloads, workers=workers)
    runs = {int(record.run["seed"]): record for record in records}
    means = []
    for name in question.objectives:
        interval = metric_interval(runs, name)
        if interval is None:
            raise ScenarioError(f"objective {name!r} has no value in a run of this scenario; choose another")
        means.append(interval.mean)
    return means
