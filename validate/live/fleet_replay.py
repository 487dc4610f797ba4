"""Replay a workload on several servers: router, gates and laws of `[fleet]`, as in the simulator.

    record = replay_fleet(scenario, workload, servers)     # engine_index in requests and ticks

What a router is told of a prompt is what the simulator tells it: the names of its blocks, not its tokens. A
call whose every attempt fails on the way, at a server whose metrics cannot be read either, is made again at
another one; the record says so. `[[fleet.outages]]` kill their servers. An agent fails as on one server: when
the call is refused, or no server is left.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from concur.decision import Tick
from concur.errors import require
from concur.live.controlling import StaleTick
from concur.live.errors import ScrapeError
from concur.live.fleet import ControlledFleet
from concur.live.gate import LiveAgent, Step
from concur.measures.fleet import sum_of
from concur.routing import RoutedCall
from concur.signals import Snapshot, Usage
from concur.sim.record.publish import StepWork, engine_row, since, tick_row, timeline_row
from concur.sim.record.record import RunRecord
from concur.sim.record.tables import RunTables
from concur.sim.scenario.fleet import Outage
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.sim.world.gate import build_controllers, build_fleet_gate, build_router
from concur.sim.world.histories import FleetHistories, Written
from concur.validate.errors import UnansweredError
from concur.validate.live.client import Completion, RetryPolicy
from concur.validate.live.live_record import make_record
from concur.validate.live.replay import LiveRun, OnProgress, run_to_record
from concur.validate.live.server import Server


def replay_fleet(
    scenario: Scenario,
    workload: Workload,
    servers: Sequence[Server],
    *,
    retry: RetryPolicy | None = None,
    stream: bool = True,
    on_progress: OnProgress | None = None,
) -> RunRecord:
    """Run a workload on several servers to its end, or to a Ctrl-C, and return its record.

    Raises
    ------
    ParameterError
        If there are not as many servers as the scenario has engines.
    MetricNamesError
        If a server does not publish what the controller needs; no agent has been started then.
    ServerError
        If one does not answer at all.
    """
    return run_to_record(
        FleetRun(scenario, workload, servers, retry=retry, stream=stream, on_progress=on_progress)
    )


class FleetRun(LiveRun):
    """One run on several servers. Life: `run` (once, in an event loop), then `record`, however that ended."""

    gate: ControlledFleet

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        servers: Sequence[Server],
        *,
        retry: RetryPolicy | None = None,
        stream: bool = True,
        on_progress: OnProgress | None = None,
    ) -> None:
        number = len(scenario.engines)
        require(len(servers) == number, "servers", len(servers), f"{number}, as the scenario has engines")
        for outage in scenario.fleet.outages if scenario.fleet is not None else ():
            can_die = servers[outage.engine].kill is not None
            require(can_die, "outages.engine", outage.engine, "a server that can be killed, with `kill`")
        self._servers = tuple(servers)
        self._firsts: list[Snapshot] = []
        self._states: list[str] = []
        self._unexplained: list[tuple[list[StaleTick], StaleTick]] = []
        super().__init__(scenario, workload, servers[0], retry=retry, stream=stream, on_progress=on_progress)
        self.tables = RunTables.of_fleet()
        self._names = FleetHistories([each.engine.name_tokens for each in scenario.engines])
        self._written: dict[int, Written] = {}

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that are called, by their number."""
        return self._servers

    def record(self) -> RunRecord:
        """Return the record of what was done."""
        self._note_unexplained()
        return make_record(
            self.scenario,
            self.workload,
            self.tables,
            self.faults,
            first=self._first,
            facts=self.server.facts | {"urls": [each.url for each in self._servers]},
            wall_clock_s=self._end_s,
            num_begun=self._turns.num_begun,
            remarks=[*self._states, *self._turns.warnings()],
            num_moves=self.gate.fleet.num_moves,
            engine=self._firsts[0] if self._firsts else None,
        )

    async def _all_tasks(self) -> None:
        outages = self.scenario.fleet.outages if self.scenario.fleet is not None else ()
        killing = [asyncio.create_task(self._kill(outage)) for outage in outages]
        try:
            await super()._all_tasks()
        finally:
            for task in killing:
                task.cancel()
            await asyncio.gather(*killing, return_exceptions=True)

    async def _kill(self, outage: Outage) -> None:
        """End a server at its time; that it is gone is seen as that of any other."""
        kill = self._servers[outage.engine].kill
        assert kill is not None
        await asyncio.sleep(max(0.0, outage.at_s - self.now_s()))
        await asyncio.to_thread(kill)

    def _make_gate(self) -> ControlledFleet:
        config, router = self.scenario.controller, build_router(self.scenario)
        controllers = build_controllers(self.scenario)
        fleet = build_fleet_gate(self.scenario, [each.window for each in controllers], router)
        return ControlledFleet(
            controllers,
            fleet,
            [self._reader(engine) for engine in range(len(self._servers))],
            router=router,
            interval_s=config.interval_s,
            watch_s=min(1.0, config.interval_s),
            clock=self.now_s,
            on_tick=self._on_fleet_tick,
            on_stale=self._on_stale,
            on_state=self._on_state,
        )

    def _reader(self, engine: int) -> "EngineReader":
        return EngineReader(self, engine)

    async def read_engine(self, engine: int) -> Snapshot:
        """Return what a server says now; its counters count from the start of the run."""
        return since(await self._scrapers[engine].read(), self._firsts[engine])

    async def _read_first(self) -> None:
        self._firsts = [await scraper.start() for scraper in self._scrapers]
        self._first = sum_of(self._firsts)
        for engine, first in enumerate(self._firsts):
            self.gate.last[engine] = replace(since(first, first), time_s=0.0)

    async def _call(self, spec: AgentSpec, agent: LiveAgent, call_index: int, step: StepSpec) -> float:
        """Make one call, again elsewhere if its engine dies, and note it; return the seconds at the gate."""
        ready_s = self.now_s()
        self._calls_begun[spec.index] = call_index
        history = self._histories[spec.index]
        call = self._routed(spec, step)
        while True:
            async with agent.step(call) as turn:
                done = await self._complete(turn, history.prompt(call_index), step, self._priority(spec))
            if done is not None:
                break
        return self._note(
            spec, call_index, step, done, ready_s=ready_s, began_s=turn.began_s, engine_index=turn.engine
        )

    async def _complete(
        self, turn: Step, prompt: Sequence[int], step: StepSpec, priority: int
    ) -> Completion | None:
        """Make a call at its engine; `None` if that has died and another one is up."""
        assert turn.engine is not None
        try:
            done = await self._clients[turn.engine].complete(prompt, step.output_tokens, priority=priority)
        except UnansweredError:
            if await self._answers(turn.engine):
                raise
            self.gate.mark(turn.engine, is_up=False)
            if not any(load.is_up for load in self.gate.fleet.loads):
                raise
            self.faults.retries[f"engine {turn.engine} was gone, and the call was made elsewhere"] += 1
            return None
        turn.usage = Usage(done.prompt_tokens, len(done.token_ids), done.cached_tokens, step.kept_tokens)
        return done

    def _routed(self, spec: AgentSpec, step: StepSpec) -> RoutedCall:
        """Return what a router is told of a call: what its history and its prompt consist of."""
        before = self._written.get(spec.index)
        if before is None:
            parent = self._families.parent(spec) if spec.fork_tokens else None
            before = self._written[parent.index] if parent else self._names.begin(spec.levels)
        written = self._written[spec.index] = self._names.call(
            before,
            kept_tokens=step.kept_tokens,
            context_tokens=step.context_tokens,
            is_shared=self._families.is_forked(spec.agent_id),
        )
        parts = self._names.parts(written, step.prompt_tokens)
        return RoutedCall(spec.agent_id, self._families.root(spec).agent_id, step.prompt_tokens, parts)

    async def _answers(self, engine: int) -> bool:
        try:
            await self._scrapers[engine].read()
        except ScrapeError:
            return False
        return True

    async def _server_answers(self) -> bool:
        return any([await self._answers(engine) for engine in range(len(self._servers))])

    def _on_fleet_tick(self, number: int, tick: Tick) -> None:
        engine_index = None if len(self.gate.controllers) == 1 else number
        self.tables.ticks.append(tick_row(tick, engine_index=engine_index))

    def _on_stale(self, number: int, tick: StaleTick) -> None:
        """Note a decision that was not taken; on an engine that is down there is nothing to decide."""
        is_of_one = len(self.gate.controllers) == len(self._servers)
        if not is_of_one or self.gate.fleet.loads[number].is_up:
            self._unexplained.append((self.faults.stale_ticks, tick))

    def _note_unexplained(self) -> None:
        """Count what could not be read for a fault; not what the death of an engine has explained."""
        for faults, tick in self._unexplained:
            faults.append(tick)
        self._unexplained.clear()

    def _on_state(self, engine: int, is_up: bool) -> None:
        if not is_up:
            self._unexplained.clear()
        state = "answers again" if is_up else "does not answer"
        self._states.append(f"engine {engine} ({self._servers[engine].url}) {state} at {self.now_s():.1f} s")

    async def _sample_now(self) -> None:
        try:
            snapshot = await self.gate.read_all()
        except ScrapeError as error:
            self._unexplained.append((self.faults.missed_samples, StaleTick(self.now_s(), str(error))))
        else:
            self._note_unexplained()
            self._sample(snapshot, snapshot.time_s)

    def _sample(self, snapshot: Snapshot, time_s: float) -> None:
        fleet, num_finished = self.gate.fleet, len(self.tables.agents)
        row = timeline_row(time_s, snapshot, fleet, num_finished=num_finished, work=StepWork())
        self.tables.timeline.append(row)
        assert self.tables.engines is not None
        for engine, load in enumerate(fleet.loads):
            gate = fleet.gates[engine] if len(fleet.gates) == len(fleet.loads) else None
            last = self.gate.last[engine]
            assert last is not None
            self.tables.engines.append(
                engine_row(time_s, last, load, gate, engine_index=engine, work=StepWork())
            )


class EngineReader:
    """Reads one server of a run."""

    def __init__(self, run: FleetRun, engine: int) -> None:
        self._run = run
        self._engine = engine

    async def __call__(self) -> Snapshot:
        """Return what the server says now."""
        return await self._run.read_engine(self._engine)
