"""Search the parameters of a law, on some seeds, by Optuna's tree-structured Parzen estimator; needs `tune`.

The first trial is the start (the law's defaults), so the best is never worse than it on those seeds. Trials
follow one another, and each draws from a generator of its own, seeded by the scenario's seed and its number:
the same command makes the same trials, in one go or in several. `study.log`, Optuna's journal, keeps them.

With several objectives the estimator works on all of them, and the result is the front of trials that no
other one beats in everything.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import ValidationError

from sim.compare import run_seeds
from sim.errors import RecordError, ScenarioError
from sim.intervals import METRICS, metric_interval
from sim.lab.tune_space import Range, Value, settle, space_of, start_of
from sim.provenance import versions
from sim.record import RunRecord
from sim.scenario import ControllerConfig, Scenario, parse_controllers
from sim.toml_files import explain
from sim.workload.spec import Workload

HIGHER_IS_BETTER: Final = frozenset(
    {"throughput_tokens_per_s", "hit_rate", "mean_active_agents", "jain_fairness"}
)
_STUDY: Final = "tune"
_FEWEST_FOR_IMPORTANCE: Final = 10


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for: a law's parameters that are best by the objectives on the workloads (by seed)."""

    scenario: Scenario
    workloads: Mapping[int, Workload]
    objectives: tuple[str, ...]
    start: ControllerConfig
    space: Mapping[str, Range]

    def controller(self, chosen: Mapping[str, Value]) -> ControllerConfig:
        """Return the law with the chosen parameters, all others as at the start."""
        raw = self.start.model_dump()
        raw["parameters"] |= settle(self.start.kind, chosen)
        try:
            return ControllerConfig.model_validate(raw)
        except ValidationError as error:
            raise explain(error, f"--controller {self.start.label}") from None

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a trial, but the number of trials."""
        parts = (
            self.scenario.with_controller(self.start).model_dump(mode="json", exclude={"compare"}),
            {seed: workload.sha256 for seed, workload in self.workloads.items()},
            self.objectives,
            {name: repr(each) for name, each in self.space.items()},
            versions(),
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of parameters, and the objectives' means over the seeds."""

    number: int
    parameters: dict[str, Value]
    values: tuple[float, ...]


def ask(
    scenario: Scenario, policy: str, objectives: Sequence[str], workloads: Mapping[int, Workload]
) -> Question:
    """Return the question of tuning `policy` (`concur`, `hybrid+fresh`); parameters in `[controller]` stay.

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
    text = f"{policy}={space['cap'].high}" if "cap" in space else policy
    (start,) = parse_controllers(text, scenario.controller)
    start_of(space, start.parameters)
    return Question(scenario, workloads, tuple(objectives), start, space)


def search(
    question: Question, folder: Path, *, num_trials: int, on_done: Callable[[int], None] = lambda done: None
) -> list[Trial]:
    """Make trials until there are `num_trials`; each is kept in `folder` as it ends.

    Raises
    ------
    RecordError
        If the folder has trials of another question.
    """
    study = _open(question, folder)
    while (number := len(_completed(study))) < num_trials:
        on_done(number)
        study.sampler = TPESampler(seed=question.scenario.seed + number)
        if number == 0:
            study.enqueue_trial(start_of(question.space, question.start.parameters))
        trial = study.ask()
        chosen = {name: _suggest(trial, name, each) for name, each in question.space.items()}
        study.tell(trial, _measure(question, chosen))
    return trials_in(question, folder)[:num_trials]


def trials_in(question: Question, folder: Path) -> list[Trial]:
    """Return the finished trials that are kept in `folder`, first to last."""
    return [
        Trial(number, settle(question.start.kind, trial.params), tuple(trial.values))
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


def importances(question: Question, folder: Path) -> dict[str, float]:
    """Return each parameter's share in what sets the best tenth of trials apart, by the first objective.

    PED-ANOVA (Watanabe et al., IJCAI 2023), as Optuna has it; empty for fewer than ten trials.
    """
    study = _open(question, folder)
    if len(_completed(study)) < _FEWEST_FOR_IMPORTANCE or len(question.space) < 2:
        return {}
    sign = -1 if question.objectives[0] in HIGHER_IS_BETTER else 1
    with warnings.catch_warnings():  # it says that low targets are the good ones: so they are
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes", UserWarning)
        return get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: sign * trial.values[0]
        )


def _open(question: Question, folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
        study_name=_STUDY,
        directions=["maximize" if name in HIGHER_IS_BETTER else "minimize" for name in question.objectives],
        load_if_exists=True,
    )
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


def _suggest(trial: optuna.Trial, name: str, within: Range) -> Value:
    if within.is_whole:
        return trial.suggest_int(name, int(within.low), int(within.high), log=within.is_log)
    return trial.suggest_float(name, within.low, within.high, log=within.is_log)


def _measure(question: Question, chosen: Mapping[str, Value]) -> list[float]:
    """Return the mean of each objective over the seeds, which run in parallel."""
    config = question.controller(chosen)
    runs: dict[int, RunRecord] = {
        int(record.run["seed"]): record
        for record in run_seeds(question.scenario, [config], question.workloads)
    }
    means = [metric_interval(dict(sorted(runs.items())), name) for name in question.objectives]
    return [interval.mean for interval in _all_known(means, question.objectives)]


def _all_known(means: Sequence[Any], objectives: Sequence[str]) -> Iterator[Any]:
    for name, interval in zip(objectives, means, strict=True):
        if interval is None:
            raise ScenarioError(f"objective {name!r} has no value in a run of this scenario; choose another")
        yield interval
