"""Replay a workload on a live engine: the agents, the gate and the controller of the simulator, on asyncio.

    record = replay(scenario, workload, server)     # world = "live", the same tables and metrics
    sys.exit(exit_status(record))

Every agent is a task: turn at the gate, call, tool wait, and again. An agent whose call fails for good
leaves, and the others go on; if the server itself no longer answers, they all end. Nothing is lost on the
way: whatever went wrong, a law that raises and Ctrl-C included, there is a record of what was done until
then, marked `complete` = false, with the reasons in its warnings.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import aiohttp
import numpy as np

from concur.controllers import make_controller
from concur.decision import Tick
from concur.errors import ConcurError
from concur.live.controlling import ControlledGate, StaleTick
from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.fleet import ControlledFleet
from concur.live.gate import LiveAgent
from concur.live.scrape import MetricsScraper
from concur.signals import Snapshot, Usage
from concur.sim.record.publish import StepWork, agent_row, since, tick_row, timeline_row
from concur.sim.record.record import RunRecord
from concur.sim.record.tables import RunTables
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.families import Families
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.sim.workload.turns import Turns
from concur.sim.world.gate import build_gate
from concur.validate.errors import CallError, ServerError
from concur.validate.live.client import Completion, CompletionClient, RetryPolicy
from concur.validate.live.histories import TokenHistory, token_histories
from concur.validate.live.live_record import (
    Failure,
    Faults,
    make_record,
    request_row,
)
from concur.validate.live.server import Server

_KEEP_ALIVE_S: Final = 2.0  # less than the 5 s after which vLLM's HTTP server hangs up on an idle connection
_INTERRUPTED: Final = 130
_ONE_AGENT: Final = "cancelled"  # why an agent ends that somebody has cancelled, and the others go on
OnProgress = Callable[[int, int], None]
"""Called with (agents that ended, agents in all)."""


def replay(
    scenario: Scenario,
    workload: Workload,
    server: Server,
    *,
    retry: RetryPolicy | None = None,
    stream: bool = True,
    on_progress: OnProgress | None = None,
) -> RunRecord:
    """Run a workload on a server to its end, or to a Ctrl-C, and return its record.

    Raises
    ------
    MetricNamesError
        If the server does not publish what the controller needs; no agent has been started then.
    ServerError
        If it does not answer at all.
    """
    run = LiveRun(scenario, workload, server, retry=retry, stream=stream, on_progress=on_progress)
    return run_to_record(run)


def run_to_record(run: "LiveRun") -> RunRecord:
    """Run to the end, or to a Ctrl-C, and return the record."""
    with suppress(KeyboardInterrupt):  # the record says so
        asyncio.run(run.run())
    return run.record()


def exit_status(record: RunRecord) -> int:
    """Return 0 for a complete record, 130 after an interrupt, 1 otherwise."""
    if record.run.get("interrupted"):
        return _INTERRUPTED
    return 0 if record.run.get("complete", True) else 1


class LiveRun:
    """One run. Life: `run` (once, in an event loop), then `record`, however `run` ended."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        server: Server,
        *,
        retry: RetryPolicy | None = None,
        stream: bool = True,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.scenario = scenario
        self.workload = workload
        self.server = server
        self.tables = RunTables()
        self.faults = Faults()
        self.gate: ControlledGate | ControlledFleet = self._make_gate()
        self._retry, self._stream = retry or RetryPolicy(), stream
        self._on_progress = on_progress
        self._histories = token_histories(workload, scenario.seed)
        self._families = Families(workload)
        self._turns = Turns(workload, self._families)
        self._agents_group: asyncio.TaskGroup
        self._calls_begun = {spec.index: 0 for spec in workload.agents}
        self._start_s = 0.0
        self._first = Snapshot(0.0)
        self._clients: list[CompletionClient]
        self._scrapers: list[MetricsScraper]
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._num_ended = 0
        self._is_ending = False
        self._end_s = 0.0

    def now_s(self) -> float:
        """Return seconds since the start of the run, on the event loop's clock."""
        return asyncio.get_running_loop().time() - self._start_s

    async def run(self) -> None:
        """Run every agent to its end; see `replay` for what it raises."""
        self._start_s = asyncio.get_running_loop().time()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)  # the gate is the limit
        async with aiohttp.ClientSession(connector=connector) as session:
            await self._open(session)
            try:
                await self._all_tasks()
            except asyncio.CancelledError:
                self.faults.is_interrupted = True
                raise
            except Exception as error:  # what was done until then is worth more than a traceback
                self.faults.breakdown = _explain(error)
            finally:
                self._end_s = self.now_s()
                self.faults.num_counter_resets = sum(each.num_resets for each in self._scrapers)
                self.faults.odd_metrics = tuple(line for each in self._scrapers for line in each.warnings)

    def record(self) -> RunRecord:
        """Return the record of what was done."""
        return make_record(
            self.scenario,
            self.workload,
            self.tables,
            self.faults,
            first=self._first,
            facts=self.server.facts,
            wall_clock_s=self._end_s,
            num_begun=self._turns.num_begun,
            remarks=self._turns.warnings(),
        )

    def cancel_agent(self, agent_id: str) -> None:
        """End one agent where it is; its slot passes on and the record names it."""
        self._tasks[agent_id].cancel(_ONE_AGENT)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that are called."""
        return (self.server,)

    def _make_gate(self) -> ControlledGate | ControlledFleet:
        config = self.scenario.controller
        controller = make_controller(config.kind, wrappers=config.wrappers, **config.parameters)
        return ControlledGate(
            controller,
            build_gate(self.scenario, controller.window),
            self._read,
            interval_s=config.interval_s,
            clock=self.now_s,
            on_tick=self._on_tick,
            on_stale=self.faults.stale_ticks.append,
        )

    async def _open(self, session: aiohttp.ClientSession) -> None:
        rng = np.random.default_rng([self.scenario.seed, 2])
        self._scrapers = [MetricsScraper(session, each.url, clock=self.now_s) for each in self.servers]
        self._clients = [
            CompletionClient(
                session,
                each.url,
                each.model,
                clock=self.now_s,
                rng=rng,
                retry=self._retry,
                stream=self._stream,
            )
            for each in self.servers
        ]
        try:
            await self._read_first()
        except MetricNamesError:
            raise
        except ScrapeError as error:
            raise ServerError(f"{error}; is the server up?") from None
        self._start_s = asyncio.get_running_loop().time()  # time 0, now that all is ready
        self._sample(since(self._first, self._first), time_s=0.0)

    async def _read_first(self) -> None:
        """Take the reading that counters are counted from."""
        self._first = await self._scrapers[0].start()

    async def _all_tasks(self) -> None:
        async with self.gate, asyncio.TaskGroup() as background:
            sampling = background.create_task(self._sampling())
            async with asyncio.TaskGroup() as self._agents_group:
                for spec in self._turns.first():
                    self._start(spec)
            sampling.cancel()
            await self._sample_now()

    def _start(self, spec: AgentSpec) -> asyncio.Task[None]:
        self._turns.began(spec)
        task = self._tasks[spec.agent_id] = self._agents_group.create_task(self._living(spec))
        return task

    def _start_children(self, spec: AgentSpec, call_index: int) -> list[asyncio.Task[None]]:
        """Start the children that follow that call; return those that the agent waits for."""
        children = self._families.started_after(spec.agent_id, call_index)
        for child in children:
            if child.fork_tokens:
                self._histories[child.index].fork(self._histories[spec.index])
        started = [(child, self._start(child)) for child in children]
        return [task for child, task in started if child.joins]

    async def _living(self, spec: AgentSpec) -> None:
        try:
            await self._agent(spec)
        except ConcurError as error:
            self._fail(spec, str(error))
            if isinstance(error, CallError) and not await self._server_answers():
                self._give_up()
        except asyncio.CancelledError as error:
            self._is_ending |= str(error) != _ONE_AGENT
            self._fail(spec, str(error) or "interrupted")
            raise
        finally:
            self._ended(spec)

    def _ended(self, spec: AgentSpec) -> None:
        self._fail_unstarted(spec)
        successor = self._turns.ended(spec, time_s=self.now_s())
        if successor is not None and not self._is_ending:
            self._start(replace(successor, arrival_s=0.0))
        self._num_ended += 1
        if self._on_progress is not None:
            self._on_progress(self._num_ended, len(self.workload.agents))

    async def _agent(self, spec: AgentSpec) -> None:
        if spec.parent_step is not None:
            await asyncio.sleep(spec.spawn_delay_s)
        elif spec.arrival_s > 0:
            await asyncio.sleep(spec.arrival_s - self.now_s())
        arrived_s, gate_wait_s = self.now_s(), 0.0
        async with self.gate.agent(
            spec.agent_id,
            parent=self._families.nearest(spec, self.gate.gate.is_here),
            prefix_group=spec.prefix_group,
            shared_prefix_tokens=spec.shared_prefix_tokens,
            outer_prefixes=spec.outer_prefixes,
            fork=spec.fork,
        ) as agent:
            for call_index, step in enumerate(spec.steps):
                gate_wait_s += await self._call(spec, agent, call_index, step)
                joined = self._start_children(spec, call_index)
                if call_index < len(spec.steps) - 1 and step.tool_latency_s > 0:
                    await asyncio.sleep(step.tool_latency_s)
                if joined:
                    await asyncio.wait(joined)  # one that failed has ended too, and is in the record
        row = agent_row(
            spec,
            arrived_s=arrived_s,
            admitted_s=agent.admitted_s,
            finished_s=agent.left_s,
            gate_wait_s=gate_wait_s,
            num_pauses=agent.num_pauses,
        )
        self.tables.agents.append(row)

    async def _call(self, spec: AgentSpec, agent: LiveAgent, call_index: int, step: StepSpec) -> float:
        """Make one call and note it; return the seconds waited at the gate."""
        ready_s = self.now_s()
        self._calls_begun[spec.index] = call_index
        history: TokenHistory = self._histories[spec.index]
        children = self._families.started_after(spec.agent_id, call_index)
        is_last = call_index == len(spec.steps) - 1 and not any(child.joins for child in children)
        async with agent.last_step() if is_last else agent.step() as turn:
            done = await self._clients[0].complete(
                history.prompt(call_index), step.output_tokens, priority=self._priority(spec)
            )
            turn.usage = Usage(done.prompt_tokens, len(done.token_ids), done.cached_tokens, step.kept_tokens)
        return self._note(spec, call_index, step, done, ready_s=ready_s, began_s=turn.began_s)

    def _priority(self, spec: AgentSpec) -> int:
        """Return what to say of an agent's calls: nothing where the server would refuse to hear it."""
        return spec.priority if self.scenario.vllm.scheduling_policy == "priority" else 0

    def _note(
        self,
        spec: AgentSpec,
        call_index: int,
        step: StepSpec,
        done: Completion,
        *,
        ready_s: float,
        began_s: float,
        engine_index: int | None = None,
    ) -> float:
        """Note a call that was answered; return the seconds waited at the gate."""
        self._histories[spec.index].answered(done.token_ids)
        self.faults.retries.update(done.causes)
        self.tables.requests.append(
            request_row(
                agent_index=spec.index,
                call_index=call_index,
                step=step,
                ready_s=ready_s,
                submitted_s=began_s,
                done=done,
                engine_index=engine_index,
            )
        )
        return began_s - ready_s

    def _fail(self, spec: AgentSpec, cause: str) -> None:
        failure = Failure(spec.agent_id, self._calls_begun[spec.index], self.now_s(), cause)
        self.faults.failures.append(failure)

    def _fail_unstarted(self, spec: AgentSpec) -> None:
        """Note the children that nobody starts any more: the agent has ended before the step that does."""
        for call_index in range(len(spec.steps)):
            for child in self._families.started_after(spec.agent_id, call_index):
                if child.agent_id not in self._tasks:
                    self._fail(child, f"{spec.agent_id}, which starts it, ended before")
                    self._num_ended += 1
                    self._fail_unstarted(child)

    async def _server_answers(self) -> bool:
        try:
            await self._scrapers[0].read()
        except ScrapeError:
            return False
        return True

    def _give_up(self) -> None:
        self._is_ending = True
        for task in self._tasks.values():
            if task is not asyncio.current_task():
                task.cancel("the server no longer answers")

    async def _read(self) -> Snapshot:
        return since(await self._scrapers[0].read(), self._first)

    def _on_tick(self, tick: Tick) -> None:
        self.tables.ticks.append(tick_row(tick))

    async def _sampling(self) -> None:
        interval_s = self.scenario.record.timeline_interval_s
        while True:
            elapsed = self.now_s() / interval_s
            await asyncio.sleep((int(elapsed) + 1 - elapsed) * interval_s)
            await self._sample_now()

    async def _sample_now(self) -> None:
        try:
            snapshot = await self._read()
        except ScrapeError as error:
            self.faults.missed_samples.append(StaleTick(self.now_s(), str(error)))
        else:
            self._sample(snapshot, snapshot.time_s)

    def _sample(self, snapshot: Snapshot, time_s: float) -> None:
        num_finished = len(self.tables.agents)
        row = timeline_row(time_s, snapshot, self.gate.gate, num_finished=num_finished, work=StepWork())
        self.tables.timeline.append(row)


def _explain(error: Exception) -> str:
    """Say in one line what broke a run; a group of errors by the first of them."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return text if isinstance(error, ConcurError) else f"{type(error).__name__}: {text}"
