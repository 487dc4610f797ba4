"""Step-exact parity with SGLang: one scenario through our scheduler and through SGLang's own, step by step.

Both sides share everything but the scheduler and the cache, as in `concur.validate.parity.parity`. Every step
compares

- the batch: its requests in order, how many tokens each computes and has before,
- the requests retracted, and both queues in order,
- how many tokens are available and how many evictable, and the exact `new_token_ratio`,
- whether the running batch is taken for full,
- the published gauges and counters,
- with HiCache: what is free on the host, what is on its way to either side, and what SGLang counts of that,
- the requests finished, and the time at which the step ended.

Where SGLang aborts a request, both runs must end there.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final, Protocol

from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.engine.sglang.core import build_sglang_scheduler, core_around, transfers_of
from concur.sim.engine.sglang.hicache_core import HiCacheScheduler
from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.engine.stepping import StepCore
from concur.sim.errors import RequestAbortedError
from concur.sim.kv.hiradix import HiRadixTree
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.make import make_step_time
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate
from concur.validate.errors import OutOfScopeError
from concur.validate.parity.sglang_058 import SglangScheduler058
from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_hicache import host_memory
from concur.validate.parity.sglang_scheduler import SglangScheduler


@dataclass(frozen=True, slots=True)
class Memory:
    """What is to be seen of a scheduler between two steps."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    is_full: bool
    available_tokens: int
    evictable_tokens: int
    new_token_ratio: float
    host_available_tokens: int = 0
    writing_tokens: int = 0
    loading_tokens: int = 0


@dataclass(slots=True)
class Step:
    """One step as either side decided it; what differs is named by these fields."""

    batch: tuple[tuple[str, int, int, bool], ...]
    retracted: tuple[str, ...]
    memory: Memory
    aborted: str = ""
    finished: tuple[str, ...] = ()
    end_s: float = -1.0
    stats: tuple[float, ...] = ()
    tier: tuple[tuple[str, float], ...] = ()


_OUTCOMES: Final = ("finished", "end_s", "stats", "tier")
_DECISIONS: Final = tuple(field.name for field in fields(Step) if field.name not in _OUTCOMES)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step that differs: its number, the fields that do, and both sides."""

    number: int
    differing: tuple[str, ...]
    ours: Step | None
    sglangs: Step | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a comparison exercised, so that a vacuous one can be refused.

    `num_chunks` prefills went on in another pass, in `num_mixed` batches some prefilled and some decoded, and
    `num_early_ends` answers ended before their limit. A run that ends with an abort counts its steps only.
    """

    num_steps: int
    num_requests: int = 0
    num_retractions: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens_reused: int = 0
    num_chunks: int = 0
    num_mixed: int = 0
    num_early_ends: int = 0
    num_loaded_tokens: int = 0
    num_evicted_tokens: int = 0
    num_dropped_tokens: int = 0
    num_host_evicted_tokens: int = 0
    num_aborted: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one comparison; `difference` is `None` where every step was identical.

    `record` is of the run on SGLang's side; `None` if that ended with an abort.
    """

    coverage: Coverage
    difference: Difference | None
    record: RunRecord | None


class SteppedScheduler(HiCacheScheduler, Protocol):
    """Either side."""


class _DivergedError(Exception):
    """Raised inside a run at the first step that is not as expected; its argument is the step's number."""


class Recorder:
    """A scheduler that takes note of every step, and stops at the first that is not as `expected`."""

    def __init__(self, scheduler: SteppedScheduler, *, expected: list[Step] | None = None) -> None:
        self.steps: list[Step] = []
        self._scheduler = scheduler
        self._expected = expected
        self._in_flight: dict[int, int] = {}

    def add_request(self, request: Request) -> None:
        """Pass on."""
        self._scheduler.add_request(request)

    def has_unfinished_requests(self) -> bool:
        """Pass on."""
        return self._scheduler.has_unfinished_requests()

    def schedule(self) -> SchedulerOutput:
        """Pass on, and take note of the decisions."""
        number = len(self.steps)
        try:
            output = self._scheduler.schedule()
        except RequestAbortedError as error:  # a step too, the last; neither side's memory matters then
            self.steps.append(Step((), (), Memory((), (), False, 0, 0, 0.0), aborted=str(error)))
            self._check(number, _DECISIONS)
            raise
        self.steps.append(
            Step(
                batch=_batch_of(output),
                retracted=tuple(sorted(request.request_id for request in output.preempted)),
                memory=memory_of(self._scheduler),
            )
        )
        self._in_flight[id(output)] = number
        self._check(number, _DECISIONS)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Pass on, and take note of what finished and when."""
        finished = self._scheduler.update_from_output(output, time_s=time_s)
        number = self._in_flight.pop(id(output))
        step, stats = self.steps[number], self._scheduler.make_stats()
        step.finished = tuple(request.request_id for request in finished)
        step.end_s = time_s
        step.stats = (
            stats.num_requests_running,
            stats.num_requests_waiting,
            stats.kv_cache_usage_frac,
            stats.kv_cache_resident_frac or 0.0,
            stats.prefix_cache_hits_tokens,
            stats.prompt_tokens,
            stats.generation_tokens,
            stats.num_preemptions,
        )
        step.tier = tuple(sorted(self._scheduler.tier_metrics().items()))
        self._check(number, _OUTCOMES)
        return finished

    def finish_load(self, request: Request) -> None:
        """Pass on."""
        self._scheduler.finish_load(request)

    def make_stats(self) -> SchedulerStats:
        """Pass on."""
        return self._scheduler.make_stats()

    def rest(self) -> None:
        """Pass on."""
        self._scheduler.rest()

    def has_transfers(self) -> bool:
        """Pass on."""
        return self._scheduler.has_transfers()

    def tier_metrics(self) -> dict[str, float]:
        """Pass on."""
        return self._scheduler.tier_metrics()

    def _check(self, number: int, names: tuple[str, ...]) -> None:
        if self._expected is not None and differing_fields(self.steps, self._expected, number, names):
            raise _DivergedError(number)


def _batch_of(output: SchedulerOutput) -> tuple[tuple[str, int, int, bool], ...]:
    before = getattr(output, "extends", None)
    assert before is not None
    return tuple(
        (request.request_id, num_tokens, num_before, samples)
        for (request, num_tokens, samples), (_, num_before) in zip(output.scheduled, before, strict=True)
    )


def memory_of(scheduler: SteppedScheduler) -> Memory:
    """Return what is to be seen of either side."""
    if isinstance(scheduler, SglangScheduler):
        its, engine = scheduler.sglang, scheduler.engine
        return Memory(
            running=tuple(req.rid for req in its.running_batch.reqs),
            waiting=tuple(req.rid for req in its.waiting_queue),
            is_full=bool(its.running_batch.batch_is_full),
            available_tokens=int(engine.tokens.available_size()),
            evictable_tokens=int(engine.tree.evictable_size()),
            new_token_ratio=scheduler.new_token_ratio,
            **host_memory(engine.tree),
        )
    assert isinstance(scheduler, Scheduler)
    tree = scheduler.tree
    return Memory(
        running=tuple(req.request.request_id for req in scheduler.running),
        waiting=tuple(req.request.request_id for req in scheduler.waiting),
        is_full=scheduler.is_full,
        available_tokens=tree.available_tokens,
        evictable_tokens=tree.evictable_tokens,
        new_token_ratio=scheduler.ratio.current,
        host_available_tokens=tree.host_available_tokens if isinstance(tree, HiRadixTree) else 0,
        writing_tokens=tree.writing_tokens if isinstance(tree, HiRadixTree) else 0,
        loading_tokens=tree.loading_tokens if isinstance(tree, HiRadixTree) else 0,
    )


def differing_fields(
    ours: list[Step], theirs: list[Step], number: int, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return which of the named fields differ in step `number`; of the memory, which of its own."""
    if number >= min(len(ours), len(theirs)):
        return ("number of steps",)
    one, other = ours[number], theirs[number]
    differing = [name for name in names if getattr(one, name) != getattr(other, name)]
    inside = [f.name for f in fields(Memory) if getattr(one.memory, f.name) != getattr(other.memory, f.name)]
    return (*(name for name in differing if name != "memory"), *(inside if "memory" in differing else ()))


def sglangs_steps(scenario: Scenario, workload: Workload) -> tuple[list[Step], RunRecord | None]:
    """Run SGLang's side until it ends or aborts a request; return its steps, and the record of the run.

    Raises
    ------
    SglangMissingError
        If SGLang cannot be imported.
    OutOfScopeError
        If the scenario's engine is another one.
    """
    config = _config_of(scenario)
    transfers = transfers_of(config)
    theirs = Recorder(_theirs(config, workload, transfers))
    try:
        record = simulate(scenario, workload, core=_core(scenario, theirs, transfers))
    except RequestAbortedError:
        return theirs.steps, None
    return theirs.steps, record


def first_difference(scenario: Scenario, workload: Workload, expected: list[Step]) -> Difference | None:
    """Run our side until it differs from the steps that SGLang has taken."""
    config = _config_of(scenario)
    transfers = transfers_of(config)
    ours = Recorder(build_sglang_scheduler(config, transfers), expected=expected)
    try:
        with suppress(RequestAbortedError):  # its last step says so
            simulate(scenario, workload, core=_core(scenario, ours, transfers))
    except _DivergedError as diverged:
        (number,) = diverged.args
    else:
        number = len(ours.steps)
        if number == len(expected):
            return None
    differing = differing_fields(ours.steps, expected, number, _DECISIONS + _OUTCOMES)
    return Difference(number, differing, _at(ours.steps, number), _at(expected, number))


def run_parity(scenario: Scenario, workload: Workload) -> Result:
    """Run SGLang's side to its end, then ours until it differs.

    Raises
    ------
    SglangMissingError
        If SGLang cannot be imported.
    OutOfScopeError
        If the scenario's engine is another one.
    """
    expected, record = sglangs_steps(scenario, workload)
    difference = first_difference(scenario, workload, expected)
    return Result(_coverage(expected, workload, record), difference, record)


def _theirs(config: SglangConfig, workload: Workload, transfers: HostTransfers | None) -> SglangScheduler:
    installed = sglang_version()
    if installed != config.release:
        raise OutOfScopeError(
            f'engine.release = "{config.release}" but SGLang {installed} is installed; compare with that one'
        )
    return (SglangScheduler058 if config.release == "0.5.8" else SglangScheduler)(config, workload, transfers)


def _config_of(scenario: Scenario) -> SglangConfig:
    config = scenario.engine
    if not isinstance(config, SglangConfig):
        raise OutOfScopeError(f'engine.kind = "{config.kind}" but this compares with SGLang; set "sglang"')
    return config


def _core(scenario: Scenario, recorder: Recorder, transfers: HostTransfers | None) -> StepCore:
    return core_around(recorder, _config_of(scenario), make_step_time(scenario.step_time), transfers)


def _at(steps: list[Step], number: int) -> Step | None:
    return steps[number] if number < len(steps) else None


def _coverage(steps: list[Step], workload: Workload, record: RunRecord | None) -> Coverage:
    if record is None:
        return Coverage(len(steps), num_aborted=1)
    batches = [step.batch for step in steps]
    ordered = record.requests.sort_values(["agent_index", "call_index"])
    prompts_before = ordered.groupby("agent_index")["prompt_tokens"].shift()
    tier = dict(next((step.tier for step in reversed(steps) if step.tier), ()))
    return Coverage(
        num_steps=len(steps),
        num_requests=len(ordered),
        num_retractions=sum(len(step.retracted) for step in steps),
        num_cached_tokens=int(ordered["cached_tokens"].sum()),
        num_generated_tokens_reused=int(
            (ordered["cached_tokens"] - prompts_before).clip(lower=0).fillna(0).sum()
        ),
        num_chunks=sum(not samples for batch in batches for _, _, _, samples in batch),
        num_mixed=sum(_is_mixed(batch) for batch in batches),
        num_early_ends=sum(
            (step.max_new_tokens or 0) > step.output_tokens
            for agent in workload.agents
            for step in agent.steps
        ),
        num_loaded_tokens=int(tier.get("load_back_tokens", 0)),
        num_evicted_tokens=int(tier.get("evicted_tokens", 0)),
        num_dropped_tokens=int(tier.get("hicache_dropped_tokens", 0)),
        num_host_evicted_tokens=sum(
            max(0, after.memory.host_available_tokens - before.memory.host_available_tokens)
            for before, after in pairwise(steps)
        ),
    )


def _is_mixed(batch: tuple[tuple[str, int, int, bool], ...]) -> bool:
    """Whether some of a batch decode and others compute more than one token."""
    return len({num_tokens > 1 for _, num_tokens, _, _ in batch}) > 1
