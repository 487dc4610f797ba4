"""Step-exact parity: one scenario through the simulated scheduler and through vLLM's own, compared step by step.

Both sides share everything but the scheduler and the KV cache: the agents, the gate, the controller, the
engine loop and the step time. So a difference is a difference in scheduling or caching. Every step compares

- the requests scheduled, in order, with their tokens, and which of them sample a token,
- the requests admitted, with the tokens credited from the prefix cache,
- the requests preempted,
- both queues, in order; the last block of every scheduled request; and every `FREE_ORDER_EVERY` steps the
  whole free queue, in eviction order,
- free blocks and KV usage after scheduling,
- the requests finished, and the time at which the step ended.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from sim.driver import simulate
from sim.engine.engine import StepScheduler, build_scheduler
from sim.engine.scheduler import SchedulerOutput, SchedulerStats
from sim.request import Request
from sim.scenario import Scenario
from sim.workload.spec import Workload
from validate.probes import Probe, Queues, probe
from validate.vllm_scheduler import VllmScheduler

FREE_ORDER_EVERY: Final = 50
_HEAD: Final = 8  # requests of a queue and blocks that an explanation shows


@dataclass(slots=True)
class Step:
    """One step as either side decided it; what differs is named by these fields."""

    scheduled: tuple[tuple[str, int, bool], ...]
    admitted: tuple[tuple[str, int], ...]
    preempted: tuple[str, ...]
    running: int
    waiting: int
    last_blocks: tuple[int, ...]
    num_free_blocks: int
    kv_usage_frac: float
    free_order: int | None
    finished: tuple[str, ...] = ()
    end_s: float = -1.0


@dataclass(frozen=True, slots=True)
class Detail:
    """One side around one step, for people."""

    step: Step
    queues: Queues
    free_blocks: list[int]
    block_ids: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step that differs: its number, the fields that do, and both sides."""

    number: int
    differing: tuple[str, ...]
    ours: Detail | None
    vllms: Detail | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the run exercised, so that a vacuous comparison can be refused."""

    num_steps: int
    num_requests: int
    num_preemptions: int
    num_cached_tokens: int
    num_generated_tokens_reused: int
    num_resumed_alone: int


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The outcome of one comparison; `difference` is `None` where every step was identical."""

    coverage: Coverage
    difference: Difference | None


class Recorder:
    """A scheduler that takes note of every step; optionally of one step in detail."""

    def __init__(self, scheduler: StepScheduler, *, detail_of: int | None = None) -> None:
        self.steps: list[Step] = []
        self.detail: Detail | None = None
        self.num_resumed_alone = 0
        self._scheduler = scheduler
        self._probe: Probe = probe(scheduler)
        self._detail_of = detail_of
        self._in_flight: dict[int, Step] = {}

    def add_request(self, request: Request) -> None:
        """Pass on."""
        self._scheduler.add_request(request)

    def has_unfinished_requests(self) -> bool:
        """Pass on."""
        return self._scheduler.has_unfinished_requests()

    def schedule(self) -> SchedulerOutput:
        """Pass on, and take note of the decisions."""
        output = self._scheduler.schedule()
        queues = self._probe.queues()
        step = self._step(output, queues)
        if len(self.steps) == self._detail_of:
            self.detail = self._look(step, queues)
        self.steps.append(step)
        self._in_flight[id(output)] = step
        resumes = any(request.num_preemptions for request in output.admitted)
        self.num_resumed_alone += resumes and len(queues.running) == 1
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Pass on, and take note of what finished and when."""
        finished = self._scheduler.update_from_output(output, time_s=time_s)
        step = self._in_flight.pop(id(output))
        step.finished = tuple(request.request_id for request in finished)
        step.end_s = time_s
        return finished

    def finish_load(self, request: Request) -> None:
        """Pass on."""
        self._scheduler.finish_load(request)

    def make_stats(self) -> SchedulerStats:
        """Pass on."""
        return self._scheduler.make_stats()

    def _step(self, output: SchedulerOutput, queues: Queues) -> Step:
        names = [request.request_id for request, _, _ in output.scheduled]
        looks_at_order = len(self.steps) % FREE_ORDER_EVERY == 0
        return Step(
            scheduled=tuple((request.request_id, n, samples) for request, n, samples in output.scheduled),
            admitted=tuple((request.request_id, request.num_cached_tokens) for request in output.admitted),
            preempted=tuple(sorted(request.request_id for request in output.preempted)),
            running=hash(queues.running),
            waiting=hash(queues.waiting),
            last_blocks=tuple(self._probe.block_ids(name)[-1] for name in names[-_HEAD:]),
            num_free_blocks=self._probe.num_free_blocks(),
            kv_usage_frac=self._scheduler.make_stats().kv_cache_usage_frac,
            free_order=hash(tuple(self._probe.free_blocks())) if looks_at_order else None,
        )

    def _look(self, step: Step, queues: Queues) -> Detail:
        names = [name for name, _, _ in step.scheduled]
        return Detail(step, queues, self._probe.free_blocks(), {n: self._probe.block_ids(n) for n in names})


def run_parity(scenario: Scenario, workload: Workload) -> ParityResult:
    """Run both sides and compare every step.

    Raises
    ------
    VllmMissing
        If vLLM cannot be imported.
    OutOfScope
        If the scenario has a host cache.
    """
    ours, record = _run(scenario, workload, lambda: build_scheduler(scenario.engine))
    theirs, _ = _run(scenario, workload, lambda: VllmScheduler(scenario.engine, workload))
    coverage = Coverage(
        num_steps=len(ours.steps),
        num_requests=len(record.requests),
        num_preemptions=int(record.metrics["num_preemptions"]),
        num_cached_tokens=int(record.metrics["cached_tokens"]),
        num_generated_tokens_reused=_num_generated_tokens_reused(record.requests),
        num_resumed_alone=ours.num_resumed_alone,
    )
    number = _first_difference(ours.steps, theirs.steps)
    if number is None:
        return ParityResult(coverage, None)
    differing = _differing(ours.steps, theirs.steps, number)
    return ParityResult(coverage, _explain(scenario, workload, number, differing))


def _run(
    scenario: Scenario,
    workload: Workload,
    build: Callable[[], StepScheduler],
    detail_of: int | None = None,
) -> tuple[Recorder, Any]:
    recorder = Recorder(build(), detail_of=detail_of)
    return recorder, simulate(scenario, workload, scheduler=recorder)


def _first_difference(ours: list[Step], theirs: list[Step]) -> int | None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def _differing(ours: list[Step], theirs: list[Step], number: int) -> tuple[str, ...]:
    if number >= min(len(ours), len(theirs)):
        return ("number of steps",)
    return tuple(
        field.name
        for field in fields(Step)
        if getattr(ours[number], field.name) != getattr(theirs[number], field.name)
    )


def _explain(scenario: Scenario, workload: Workload, number: int, differing: tuple[str, ...]) -> Difference:
    """Run both sides once more, looking closely at the step."""
    ours, _ = _run(scenario, workload, lambda: build_scheduler(scenario.engine), number)
    theirs, _ = _run(scenario, workload, lambda: VllmScheduler(scenario.engine, workload), number)
    return Difference(number, differing, ours.detail, theirs.detail)


def _num_generated_tokens_reused(requests: Any) -> int:
    """Cached tokens of a call that lie beyond the prompt of the agent's previous call: it had generated them."""
    ordered = requests.sort_values(["agent_index", "call_index"])
    before = ordered.groupby("agent_index")["prompt_tokens"].shift()
    return int((ordered["cached_tokens"] - before).clip(lower=0).fillna(0).sum())
