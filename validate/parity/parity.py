"""Step-exact parity: one scenario through the simulated scheduler and through vLLM's own, step by step.

Both sides share everything but the scheduler and the KV cache: the agents, the gate, the controller, the
engine loop and the step time. So a difference is a difference in scheduling or caching. Every step compares

- the requests scheduled, in order, with their tokens, and which of them sample a token,
- the requests admitted, with the tokens credited from the prefix cache,
- the requests preempted,
- both queues, in order,
- all blocks of the requests admitted and the last blocks (one for each group of layers) of the last `_LAST`
  requests scheduled, and every `FREE_ORDER_EVERY` steps the whole free queue, in eviction order,
- free blocks and KV usage after scheduling,
- with a host cache: loads and stores with their requests and sizes, what is flushed, how many chunks the host
  tier holds, and which, in which order they go and how often they are pinned: every step if they are at most
  `_SMALL_TIER`, else every `FREE_ORDER_EVERY`,
- the requests finished, and the time at which the step ended.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Final, cast

import pandas as pd

from concur.sim.engine.offload.core import ConnectedCore, ConnectorScheduler
from concur.sim.engine.offload.transfers import ConnectorOutput, TransferJob
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request
from concur.sim.engine.stepping import StepCore, StepScheduler
from concur.sim.engine.vllm.build import build_reference_scheduler
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.make import make_step_time
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate
from concur.validate.parity.host_probe import host_contents, num_host_chunks
from concur.validate.parity.probes import Probe, Queues, probe
from concur.validate.parity.turns import Turns
from concur.validate.parity.vllm_offloading import VllmOffloadingScheduler
from concur.validate.parity.vllm_scheduler import VllmScheduler, check_in_scope

FREE_ORDER_EVERY: Final = 50
_SMALL_TIER: Final = 256
_LAST: Final = 8  # scheduled requests whose last block is compared


@dataclass(slots=True)
class Step:
    """One step as either side decided it; what differs is named by these fields."""

    scheduled: tuple[tuple[str, int, bool], ...]
    admitted: tuple[tuple[str, int], ...]
    preempted: tuple[str, ...]
    running: int
    waiting: int
    admitted_blocks: int
    last_blocks: tuple[int, ...]
    num_free_blocks: int
    kv_usage_frac: float
    free_order: int | None
    loads: tuple[TransferJob, ...] = ()
    stores: tuple[TransferJob, ...] = ()
    flushed: tuple[int, ...] = ()
    num_host_chunks: int = 0
    host_contents: int | None = None
    finished: tuple[str, ...] = ()
    end_s: float = -1.0


_OUTCOMES: Final = ("finished", "end_s")
_DECISIONS: Final = tuple(field.name for field in fields(Step) if field.name not in _OUTCOMES)


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
    """What the run exercised, so that a vacuous comparison can be refused.

    `num_generated_tokens_reused` were generated in one call and found in the cache by the agent's next.
    `num_nested_agents` share a prefix within a wider group's; of the sub-agents, `num_joined` keep their
    parent waiting, `num_beside` do not, and `num_forked_tokens_reused` were found at the beginning of forks.
    `num_loads`, `num_stores`, `num_flushes` count transfers with host memory, and steps that wait for some.
    `num_blocked_resumes` counts steps at whose end a preempted request was first in line and did not fit.
    `num_overtakes` and `num_ranked_preemptions` are those of `concur.validate.parity.turns`.
    """

    num_steps: int
    num_requests: int
    num_preemptions: int
    num_cached_tokens: int
    num_generated_tokens_reused: int
    num_blocked_resumes: int
    num_nested_agents: int
    num_joined: int
    num_beside: int
    num_forked_tokens_reused: int
    num_loads: int = 0
    num_stores: int = 0
    num_flushes: int = 0
    num_host_tokens: int = 0
    num_overtakes: int = 0
    num_ranked_preemptions: int = 0


@dataclass(frozen=True, slots=True)
class ParityResult:
    """The outcome of one comparison; `difference` is `None` where every step was identical."""

    coverage: Coverage
    difference: Difference | None


class _DivergedError(Exception):
    """Raised inside a run at the first step that is not as expected; its argument is the step's number."""


class _SeenEnoughError(Exception):
    """Raised inside a run that has passed the step to be explained."""


class Recorder:
    """A scheduler that takes note of every step.

    With `expected` steps it stops the run at the first that differs, so that a scheduler gone astray cannot
    run for ever. With `detail_of` it looks closely at that step and stops soon after.
    """

    def __init__(
        self, scheduler: StepScheduler, *, expected: list[Step] | None = None, detail_of: int | None = None
    ) -> None:
        self.steps: list[Step] = []
        self.detail: Detail | None = None
        self.num_blocked_resumes = 0
        self.turns = Turns()
        self._requests: dict[str, Request] = {}
        self._scheduler = scheduler
        self._probe: Probe = probe(scheduler)
        self._expected = expected
        self._detail_of = detail_of
        self._in_flight: dict[int, int] = {}

    def add_request(self, request: Request) -> None:
        """Pass on."""
        self._requests[request.request_id] = request
        self.turns.add(request)
        self._scheduler.add_request(request)

    def has_unfinished_requests(self) -> bool:
        """Pass on."""
        return self._scheduler.has_unfinished_requests()

    def schedule(self) -> SchedulerOutput:
        """Pass on, and take note of the decisions."""
        number = len(self.steps)
        if self._detail_of is not None and number > self._detail_of + 2:
            raise _SeenEnoughError
        output = self._scheduler.schedule()
        queues = self._probe.queues()
        step = self._step(output, queues)
        if isinstance(output, ConnectorOutput):
            self._note_transfers(step, output)
        if number == self._detail_of:
            self.detail = self._look(step, queues)
        self.steps.append(step)
        self.turns.note(output, queues)
        self._in_flight[id(output)] = number
        self._check(number, _DECISIONS)
        is_first_in_line = bool(queues.waiting) and self._requests[queues.waiting[0]].num_preemptions > 0
        self.num_blocked_resumes += is_first_in_line and not output.preempted and not output.admitted
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Pass on, and take note of what finished and when."""
        finished = self._scheduler.update_from_output(output, time_s=time_s)
        number = self._in_flight.pop(id(output))
        step = self.steps[number]
        step.finished = tuple(request.request_id for request in finished)
        step.end_s = time_s
        self._check(number, _OUTCOMES)
        return finished

    def finish_load(self, request: Request) -> None:
        """Pass on."""
        self._scheduler.finish_load(request)

    def make_stats(self) -> SchedulerStats:
        """Pass on."""
        return self._scheduler.make_stats()

    def _check(self, number: int, names: tuple[str, ...]) -> None:
        if self._expected is not None and differing_fields(self.steps, self._expected, number, names):
            raise _DivergedError(number)

    def _step(self, output: SchedulerOutput, queues: Queues) -> Step:
        names = [request.request_id for request, _, _ in output.scheduled]
        looks_at_order = len(self.steps) % FREE_ORDER_EVERY == 0
        return Step(
            scheduled=tuple((request.request_id, n, samples) for request, n, samples in output.scheduled),
            admitted=tuple((request.request_id, request.num_cached_tokens) for request in output.admitted),
            preempted=tuple(sorted(request.request_id for request in output.preempted)),
            running=hash(queues.running),
            waiting=hash((queues.waiting, queues.kv_holding)),
            admitted_blocks=hash(
                tuple(
                    tuple(map(tuple, self._probe.block_tables(request.request_id)))
                    for request in output.admitted
                )
            ),
            last_blocks=tuple(
                blocks[-1] for name in names[-_LAST:] for blocks in self._probe.block_tables(name)
            ),
            num_free_blocks=self._probe.num_free_blocks(),
            kv_usage_frac=self._scheduler.make_stats().kv_cache_usage_frac,
            free_order=hash(tuple(self._probe.free_blocks())) if looks_at_order else None,
        )

    def has_requests(self) -> bool:
        """Pass on."""
        return cast(ConnectorScheduler, self._scheduler).has_requests()

    def _note_transfers(self, step: Step, output: ConnectorOutput) -> None:
        step.loads, step.stores = tuple(output.load_jobs), tuple(output.store_jobs)
        step.flushed = tuple(sorted(output.jobs_to_flush))
        step.num_host_chunks = num_host_chunks(self._scheduler)
        if step.num_host_chunks <= _SMALL_TIER or len(self.steps) % FREE_ORDER_EVERY == 0:
            step.host_contents = hash(host_contents(self._scheduler))

    def _look(self, step: Step, queues: Queues) -> Detail:
        names = [name for name, _, _ in step.scheduled]
        return Detail(step, queues, self._probe.free_blocks(), self._block_ids(names))

    def _block_ids(self, names: list[str]) -> dict[str, list[int]]:
        """Return the blocks of requests, their tables one after the other."""
        return {
            name: [block for table in self._probe.block_tables(name) for block in table] for name in names
        }


def differing_fields(
    ours: list[Step], theirs: list[Step], number: int, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return which of the named fields differ in step `number`."""
    if number >= min(len(ours), len(theirs)):
        return ("number of steps",)
    one, other = ours[number], theirs[number]
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))


def run_parity(scenario: Scenario, workload: Workload) -> ParityResult:
    """Run vLLM's side to its end, then ours until it differs.

    Raises
    ------
    VllmMissingError
        If vLLM cannot be imported.
    OutOfScopeError
        If the scenario has a host cache of another kind than `offloading`, or is of another release.
    """
    theirs = Recorder(_vllms(scenario, workload))
    record = simulate(scenario, workload, core=stepped(scenario, theirs))
    ours = Recorder(build_reference_scheduler(scenario.vllm), expected=theirs.steps)
    number: int | None = None
    try:
        simulate(scenario, workload, core=stepped(scenario, ours))
    except _DivergedError as diverged:
        (number,) = diverged.args
    if number is None and len(ours.steps) < len(theirs.steps):
        number = len(ours.steps)
    coverage = Coverage(
        num_steps=len(theirs.steps),
        num_requests=len(record.requests),
        num_preemptions=int(record.metrics["num_preemptions"]),
        num_cached_tokens=int(record.metrics["cached_tokens"]),
        num_generated_tokens_reused=_num_generated_tokens_reused(record.requests),
        num_blocked_resumes=theirs.num_blocked_resumes,
        num_overtakes=theirs.turns.num_overtakes,
        num_ranked_preemptions=theirs.turns.num_ranked_preemptions,
        **_relations(workload, record.requests),
        **_transfers(theirs.steps, record),
    )
    if number is None:
        return ParityResult(coverage, None)
    differing = differing_fields(ours.steps, theirs.steps, number, _DECISIONS + _OUTCOMES)
    return ParityResult(coverage, _explain(scenario, workload, number, differing))


def stepped(scenario: Scenario, scheduler: StepScheduler) -> StepCore:
    """Return the engine of a scenario, with that scheduler."""
    if _is_connected(scenario):
        connected = cast(ConnectorScheduler, scheduler)
        return ConnectedCore(scenario.vllm, make_step_time(scenario.step_time), connected)
    return StepCore(scenario.engine, make_step_time(scenario.step_time), scheduler)


def _is_connected(scenario: Scenario) -> bool:
    return scenario.vllm.host_cache.capacity_tokens > 0


def _vllms(scenario: Scenario, workload: Workload) -> VllmScheduler:
    """Return vLLM's scheduler for a scenario, with its connector where there is a host cache."""
    check_in_scope(scenario.vllm)
    kind = VllmOffloadingScheduler if _is_connected(scenario) else VllmScheduler
    return kind(scenario.vllm, workload)


def _transfers(steps: list[Step], record: RunRecord) -> dict[str, int]:
    return {
        "num_loads": sum(len(step.loads) for step in steps),
        "num_stores": sum(len(step.stores) for step in steps),
        "num_flushes": sum(bool(step.flushed) for step in steps),
        "num_host_tokens": int(record.metrics["host_tokens"]),
    }


def _explain(scenario: Scenario, workload: Workload, number: int, differing: tuple[str, ...]) -> Difference:
    """Run both sides once more, looking closely at the step."""
    ours = Recorder(build_reference_scheduler(scenario.vllm), detail_of=number)
    theirs = Recorder(_vllms(scenario, workload), detail_of=number)
    for recorder in (ours, theirs):
        with suppress(_SeenEnoughError):
            simulate(scenario, workload, core=stepped(scenario, recorder))
    return Difference(number, differing, ours.detail, theirs.detail)


def _relations(workload: Workload, requests: pd.DataFrame) -> dict[str, int]:
    """Count what the agents have to do with one another."""
    started = [agent for agent in workload.agents if agent.parent_step is not None]
    forked = [agent.index for agent in started if agent.fork_tokens]
    first_calls = requests[(requests["call_index"] == 0) & requests["agent_index"].isin(forked)]
    return {
        "num_nested_agents": sum(bool(agent.outer_prefixes) for agent in workload.agents),
        "num_joined": sum(agent.joins for agent in started),
        "num_beside": sum(not agent.joins for agent in started),
        "num_forked_tokens_reused": int(first_calls["cached_tokens"].sum()),
    }


def _num_generated_tokens_reused(requests: pd.DataFrame) -> int:
    """Count cached tokens beyond the prompt of the agent's previous call: it had generated them."""
    ordered = requests.sort_values(["agent_index", "call_index"])
    before = ordered.groupby("agent_index")["prompt_tokens"].shift()
    return int((ordered["cached_tokens"] - before).clip(lower=0).fillna(0).sum())
