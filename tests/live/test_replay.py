"""A workload on a live server: the record is the server's truth, and faults are survived and told.

Each fault has a test: the server dies, refuses, hangs, breaks off; metrics are malformed, gone, or reset; an
agent is cancelled or fails. Always: no slot stays taken, the other agents finish, the record says what
happened.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import concur.validate.live.replay
from concur.controllers import LogValue, make_controller
from concur.live.controlling import replay_decisions
from concur.live.errors import MetricNamesError
from concur.signals import Snapshot
from concur.sim.record.record import load_record, write_record
from concur.sim.show.figures import time_split
from concur.sim.show.report import write_report
from concur.sim.workload.spec import ClosedLoop
from concur.sim.world.simulate import simulate
from concur.validate.errors import ServerError
from concur.validate.live.client import RetryPolicy
from concur.validate.live.fake_server import (
    BREAK_OFF,
    CUT_OFF,
    HANG,
    MALFORMED,
    MISSING_NAME,
    RESET,
    FakeServer,
    Faults,
)
from concur.validate.live.live_record import recorded_ticks
from concur.validate.live.replay import LiveRun, exit_status, replay
from concur.validate.live.server import Server
from tests.helpers import make_agent, make_workload
from tests.live.helpers import QUICK, as_server, live_run, live_scenario, run_on_fake, small_workload

NONE = live_scenario()
CAPPED = live_scenario(controller={"kind": "agent_cap", "cap": 2, "interval_s": 0.02})
ADAPTIVE = live_scenario(controller={"kind": "concur", "interval_s": 0.01, "initial_window": 2})


def assert_gate_is_empty(run: LiveRun) -> None:
    gate = run.gate.gate
    assert (gate.active, gate.paused, gate.waiting) == (0, 0, 0)


def test_the_record_of_a_run_is_the_servers_truth(tmp_path: Path) -> None:
    record, server, run = run_on_fake(NONE, small_workload())
    assert len(record.requests) == len(server.served) == 15
    by_prompt = record.requests.sort_values("submitted_s", kind="stable")
    assert record.requests["prompt_tokens"].sum() == sum(len(served.prompt) for served in server.served)
    assert record.metrics["cached_tokens"] == sum(served.cached_tokens for served in server.served)
    assert record.metrics["generated_tokens"] == 15 * 6
    assert (by_prompt["ready_s"] <= by_prompt["submitted_s"]).all()
    assert (record.requests["first_token_s"] < record.requests["finished_s"]).all()
    last = record.timeline.iloc[-1]
    assert last["prefix_cache_hits_tokens"] == record.metrics["cached_tokens"]
    assert last["generation_tokens"] == 15 * 6
    assert (last["agents_finished"], last["agents_active"]) == (5, 0)
    assert record.timeline["t_s"].iloc[0] == 0
    assert record.timeline["t_s"].is_monotonic_increasing
    assert record.requests["num_preemptions"].isna().all()
    assert record.requests["recomputed_tokens"].isna().all()
    assert record.metrics["num_preemptions"] == 0
    assert (record.run["world"], record.run["complete"], record.run["warnings"]) == ("live", True, [])
    assert exit_status(record) == 0
    assert_gate_is_empty(run)
    write_record(record, tmp_path / "run")
    again = load_record(tmp_path / "run")
    pd.testing.assert_frame_equal(again.requests, record.requests)
    assert again.metrics == json.loads(json.dumps(record.metrics))


def test_histories_are_exactly_what_an_agent_would_send() -> None:
    workload = small_workload(num_agents=3)
    _, server, _ = run_on_fake(NONE, workload)
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for served in server.served:
        by_length.setdefault(len(served.prompt), []).append(served.prompt)
    firsts, seconds, thirds = (by_length[length] for length in sorted(by_length))
    assert len({prompt[:32] for prompt in firsts}) == 1, "the group's prefix is shared"
    assert len({prompt[32:] for prompt in firsts}) == 3, "the rest is an agent's own"
    for shorter, longer in ((firsts, seconds), (seconds, thirds)):
        for prompt in longer:
            before = prompt[: len(shorter[0])]
            assert before in shorter
            answer = tuple(10 + (len(before) + i) % 2000 for i in range(6))
            assert prompt[len(before) : len(before) + 6] == answer, "what the engine said comes next"


@pytest.mark.parametrize(("policy", "told"), [("priority", {-1, 3}), ("fcfs", {0})])
def test_priorities_are_told_to_a_server_that_looks_at_them(policy: str, told: set[int]) -> None:
    agents = [
        replace(make_agent(number, [(20, 2)]), priority=priority) for number, priority in enumerate((-1, 3))
    ]
    scenario = live_scenario()
    engine = scenario.vllm.model_copy(update={"scheduling_policy": policy})
    _, fake, _ = run_on_fake(scenario.model_copy(update={"engine": engine}), make_workload(*agents))
    assert {served.priority for served in fake.served} == told


def test_prompts_do_not_depend_on_who_runs_when() -> None:
    sent = [
        sorted(served.prompt for served in run_on_fake(scenario, small_workload())[1].served)
        for scenario in (NONE, CAPPED)
    ]
    assert sent[0] == sent[1]


def test_a_cap_holds_on_the_server_and_agents_keep_their_slot() -> None:
    record, server, _ = run_on_fake(CAPPED, small_workload())
    assert server.most_running <= 2
    assert record.timeline["agents_active"].max() == 2
    order = record.agents.sort_values("admitted_s")["agent_index"].tolist()
    assert order == [0, 1, 2, 3, 4]
    assert (record.agents["gate_wait_s"].iloc[2:] > 0).all()
    assert run_on_fake(NONE, small_workload())[1].most_running == 5, "without a cap they are all there"


def test_a_second_run_on_the_same_server_counts_from_zero() -> None:
    async def main() -> list[LiveRun]:
        async with FakeServer().running() as server:
            runs = [LiveRun(CAPPED, small_workload(), as_server(server)) for _ in range(2)]
            for run in runs:
                await run.run()
            return runs

    first, second = (run.record() for run in asyncio.run(main()))
    for record in (first, second):
        assert record.timeline["prompt_tokens"].iloc[0] == 0
        assert record.timeline["prompt_tokens"].iloc[-1] == record.metrics["prompt_tokens"]
    assert second.metrics["cached_tokens"] > first.metrics["cached_tokens"], "the cache was not reset between"


def test_the_gate_hears_every_context_and_the_last_step_ends_with_the_agent() -> None:
    heard: list[tuple[str, int | None]] = []

    async def main() -> None:
        async with FakeServer().running() as server:
            run = LiveRun(NONE, small_workload(), as_server(server))
            gate = run.gate.gate
            step_done = gate.step_done

            def listen(agent_id: str, *, time_s: float, **told: Any) -> list[str]:
                heard.append((agent_id, told["usage"].context_tokens))
                return step_done(agent_id, time_s=time_s, **told)

            gate.step_done = listen  # type: ignore[method-assign]
            await run.run()

    asyncio.run(main())
    steps = {spec.agent_id: spec.steps for spec in small_workload().agents}
    assert sorted(heard) == sorted((name, step.context_tokens) for name in steps for step in steps[name][:-1])


def test_a_ctrl_c_leaves_a_record() -> None:
    waiting = [make_agent(n, [(40, 5)] * 2, wait_s=60.0) for n in range(1, 5)]  # still there when it comes
    workload = make_workload(make_agent(0, [(40, 5)]), *waiting)

    def interrupt_once(num_ended: int, num_agents: int) -> None:
        if num_ended == 1:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with FakeServer().in_thread() as fake:
            record = replay(CAPPED, workload, as_server(fake), on_progress=interrupt_once)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(record.agents["agent_id"]) == ["agent-0"]
    assert len(record.run["failures"]) == 4
    assert record.run["warnings"][0] == "the run was interrupted"
    assert exit_status(record) == 130


def test_live_and_simulated_records_have_the_same_columns() -> None:
    workload = small_workload()
    live, _, _ = run_on_fake(CAPPED, workload)
    simulated = simulate(CAPPED, workload)
    for table in ("requests", "agents", "ticks", "timeline"):
        ours, theirs = getattr(live, table), getattr(simulated, table)
        assert list(ours.columns) == list(theirs.columns)
        assert list(ours.dtypes) == list(theirs.dtypes)
    assert live.metrics.keys() == simulated.metrics.keys()
    assert live.metrics["prompt_tokens"] == simulated.metrics["prompt_tokens"]
    assert live.run.keys() >= simulated.run.keys()


def test_recorded_ticks_decide_the_same_windows_again() -> None:
    record, _, _ = run_on_fake(ADAPTIVE, small_workload(num_agents=12), num_gpu_blocks=1001)
    assert len(record.ticks) >= 5
    assert record.ticks["window"].nunique() >= 3, "a window that never moves proves nothing"
    config = ADAPTIVE.controller
    fresh = make_controller(config.kind, **config.parameters)
    windows = list(replay_decisions(fresh, recorded_ticks(record, fresh)))
    assert windows == record.ticks["window"].tolist()


@pytest.mark.parametrize("fault", [429, 500, HANG, BREAK_OFF])
def test_calls_that_fail_once_are_repeated_and_told(fault: int | str) -> None:
    retry = RetryPolicy(max_attempts=3, timeout_s=0.3, first_pause_s=0.001)
    record, _, run = run_on_fake(
        CAPPED, small_workload(), faults=Faults(calls={3: fault, 7: fault}), retry=retry
    )
    assert len(record.requests) == 15
    assert record.run["complete"]
    assert any("2 attempts of calls were repeated" in line for line in record.run["warnings"])
    assert_gate_is_empty(run)


@pytest.mark.parametrize("fault", [400, 500])
def test_an_agent_whose_call_fails_for_good_leaves_and_the_others_finish(fault: int) -> None:
    attempts = 1 if fault == 400 else QUICK.max_attempts
    faults = Faults(calls=dict.fromkeys(range(2, 2 + attempts), fault))
    scenario = live_scenario(controller={"kind": "agent_cap", "cap": 1, "interval_s": 0.02})
    record, _, run = run_on_fake(scenario, small_workload(), faults=faults)
    assert record.run["complete"] is False
    assert [(each["agent_id"], each["call_index"]) for each in record.run["failures"]] == [("agent-0", 2)]
    assert "agent-0 failed at call 2" in record.run["warnings"][0]
    assert record.agents["agent_index"].tolist() == [1, 2, 3, 4]
    assert record.metrics["num_agents"] == 4
    assert record.metrics["makespan_s"] is None, "a makespan of part of the work is no makespan"
    assert exit_status(record) == 1
    assert_gate_is_empty(run)


@pytest.mark.parametrize("scenario", [NONE, CAPPED], ids=["none", "agent_cap"])
def test_a_server_that_dies_ends_the_run_and_leaves_a_record(tmp_path: Path, scenario: object) -> None:
    record, _, run = run_on_fake(scenario, small_workload(num_agents=8), faults=Faults(die_at_call=10))  # type: ignore[arg-type]
    assert record.run["complete"] is False
    assert len(record.requests) >= 3
    assert len(record.run["failures"]) + len(record.agents) == 8
    assert len(record.run["failures"]) >= 1
    assert any("metrics could not be read" in line for line in record.run["warnings"])
    if scenario is CAPPED:  # the others do not try, one by one, what is known to be in vain
        causes = {each["cause"] for each in record.run["failures"]}
        assert "the server no longer answers" in causes
    assert_gate_is_empty(run)
    write_record(record, tmp_path / "run")
    assert exit_status(load_record(tmp_path / "run")) == 1


@pytest.mark.parametrize("fault", [MALFORMED, CUT_OFF, MISSING_NAME, 500])
def test_metrics_that_cannot_be_read_freeze_the_window_and_are_told(fault: int | str) -> None:
    faults = Faults(metrics=dict.fromkeys(range(1, 8), fault))
    record, server, run = run_on_fake(ADAPTIVE, small_workload(num_agents=8), faults=faults, token_s=0.003)
    assert server.num_scrapes > 10
    assert len(record.requests) == 24
    assert record.run["complete"] is False
    assert len(run.faults.stale_ticks) + len(run.faults.missed_samples) == 7
    first_tick = record.ticks.iloc[0]
    assert first_tick["window_before"] == 2, "no growth while nothing could be read"
    assert record.metrics["makespan_s"] is not None, "all the work was done"
    assert any("decisions were not taken" in line for line in record.run["warnings"])
    assert_gate_is_empty(run)


def test_counters_that_are_reset_do_not_go_backwards_and_are_told() -> None:
    record, _, _ = run_on_fake(NONE, small_workload(num_agents=8), faults=Faults(metrics={4: RESET}))
    assert len(record.requests) == 24
    for name in ("prefix_cache_queries_tokens", "prefix_cache_hits_tokens", "generation_tokens"):
        assert record.timeline[name].is_monotonic_increasing
    assert record.run["complete"] is False
    assert any("counters were reset 1 times" in line for line in record.run["warnings"])
    assert record.metrics["num_preemptions"] is None


def test_an_agent_that_is_cancelled_passes_its_slot_on() -> None:
    async def main() -> LiveRun:
        async with FakeServer().running() as server:
            run = LiveRun(CAPPED, small_workload(num_calls=6), as_server(server), retry=QUICK)
            running = asyncio.create_task(run.run())
            while len(run.tables.requests) < 3:
                await asyncio.sleep(0.001)
            run.cancel_agent("agent-0")
            run.cancel_agent("agent-4")
            await running
            return run

    run = asyncio.run(main())
    record = run.record()
    assert record.agents["agent_index"].tolist() == [1, 2, 3]
    assert {each["agent_id"]: each["cause"] for each in record.run["failures"]} == {
        "agent-0": "cancelled",
        "agent-4": "cancelled",
    }
    assert_gate_is_empty(run)


def test_a_run_that_is_cancelled_leaves_a_record() -> None:
    async def main() -> LiveRun:
        async with FakeServer().running() as server:
            run = LiveRun(CAPPED, small_workload(num_calls=6), as_server(server), retry=QUICK)
            running = asyncio.create_task(run.run())
            while len(run.tables.requests) < 4:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            return run

    run = asyncio.run(main())
    record = run.record()
    assert len(record.requests) >= 4
    assert (record.run["complete"], record.run["interrupted"]) == (False, True)
    assert exit_status(record) == 130
    assert_gate_is_empty(run)


def test_a_server_that_lacks_a_metric_is_refused_before_any_agent_starts() -> None:
    async def main() -> int:
        faults = Faults(metrics={0: MISSING_NAME})
        async with FakeServer(faults=faults).running() as server:
            with pytest.raises(MetricNamesError, match="prefix_cache_hits_total not published"):
                await LiveRun(NONE, small_workload(), as_server(server)).run()
            return server.num_calls

    assert asyncio.run(main()) == 0


def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    run = LiveRun(NONE, small_workload(), Server("http://127.0.0.1:9", "none", {}))
    with pytest.raises(ServerError, match="is the server up"):
        asyncio.run(run.run())


def test_an_engine_that_is_not_the_scenarios_is_told() -> None:
    async def main() -> LiveRun:
        async with FakeServer().running() as server:
            facts = {"vllm": "0.32.0", "max_num_seqs": 3, "block_size": 16}
            run = LiveRun(NONE, small_workload(1, 1), Server(server.url, "fake", facts))
            await run.run()
            return run

    record = asyncio.run(main()).record()
    assert record.run["warnings"] == ["the engine's max_num_seqs is 3, the scenario's 256"]
    assert record.run["engine"]["num_gpu_blocks"] == 101, "as the server publishes it"


def test_the_request_gate_lets_other_calls_through_in_tool_waits() -> None:
    scenario = live_scenario(controller={"kind": "request_cap", "cap": 1, "interval_s": 0.02})
    run, server = asyncio.run(live_run(scenario, small_workload()))
    assert server.most_running == 1
    calls = run.record().requests[["agent_index", "call_index"]].itertuples(index=False, name=None)
    assert list(calls)[:5] == [(index, 0) for index in range(5)]
    assert_gate_is_empty(run)


def test_a_supervised_command_dies_with_its_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    stubborn = (
        "import os, pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "os.fork(); pathlib.Path(sys.argv[1]).open('a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    )
    supervisor = "import sys, concur.validate.live.supervise as s; s.STOP_S = 0.2; s.main(sys.argv[1:])"
    parent = (
        "import subprocess as sp, sys, time; command = [sys.executable, '-c', *sys.argv[1:]]; "
        "child = sp.Popen(command, stdin=sp.PIPE, start_new_session=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", stubborn, str(pids)]
    process = subprocess.Popen([sys.executable, "-c", parent, supervisor, *command])
    try:
        while not pids.exists() or len(pids.read_text().splitlines()) < 2:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for pid in map(int, pids.read_text().split()):
        while is_alive(pid):
            time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_report_shows_live_and_simulated_runs_side_by_side(tmp_path: Path) -> None:
    workload = small_workload()
    live, _, _ = run_on_fake(CAPPED, workload)
    simulated = simulate(NONE, workload)
    split = time_split([live, simulated])
    makespans = [record.metrics["makespan_s"] for record in (live, simulated)]
    assert sum(split.values()).tolist() == pytest.approx(makespans)  # type: ignore[union-attr]
    assert split["not published"].tolist() == [makespans[0], 0.0]
    write_report([live, simulated], tmp_path / "report")
    assert (tmp_path / "report" / "time_split.png").exists()


class BrokenLaw:
    """A law that decides three times, and then no more."""

    reads_agents = False

    def __init__(self, interval_s: float) -> None:
        self.window = 2
        self.interval_s = interval_s
        self._num_decisions = 0

    def update(self, snapshot: Snapshot, *, active: int) -> int:
        self._num_decisions += 1
        if self._num_decisions > 3:
            raise ZeroDivisionError("no such window")
        return self.window

    def log_state(self) -> dict[str, LogValue]:
        return {}


def test_a_law_that_raises_ends_the_run_and_leaves_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        concur.validate.live.replay, "make_controller", lambda kind, interval_s, **_: BrokenLaw(interval_s)
    )
    workload = small_workload(num_agents=12, num_calls=40)
    record, _, _ = run_on_fake(ADAPTIVE, workload)
    run = record.run
    assert (run["complete"], exit_status(record)) == (False, 1)
    assert run["warnings"][0] == (
        "the run broke down: the gate is no longer controlled: ZeroDivisionError: no such window"
    )
    assert run["warnings"][1].endswith("(and 11 more agents)"), "one line for one cause"
    assert len(run["failures"]) == 12
    assert len(record.ticks) == 3
    assert 0 < len(record.requests) < 12 * 40


def test_trees_live_as_in_the_simulator() -> None:
    """Children start after their parent's step, forks send its tokens, and joins are waited for."""
    parent = make_agent(0, [(40, 6)] * 2)
    fork = make_agent(1, [(20, 6)], shared=46)
    fork = replace(fork, shared_prefix_tokens=0, parent="agent-0", parent_step=0, fork_tokens=46)
    beside = replace(make_agent(2, [(20, 6)]), parent="agent-0", parent_step=1, joins=False)
    record, server, run = run_on_fake(NONE, make_workload(parent, fork, beside))
    calls = record.requests.set_index(["agent_index", "call_index"])
    ready_s, finished_s = (calls[name].to_dict() for name in ("ready_s", "finished_s"))
    assert ready_s[1, 0] >= finished_s[0, 0]
    assert ready_s[0, 1] >= finished_s[1, 0]
    by_length = {len(served.prompt): served.prompt for served in server.served}
    assert by_length[66][:40] == by_length[40], "a fork sends what its parent sent"
    assert by_length[86][:46] == by_length[66][:46], "and what the engine answered"
    assert record.run["complete"]
    assert record.agents["parent_step"].tolist()[1:] == [0, 1]
    assert_gate_is_empty(run)


def test_children_of_an_agent_that_fails_are_named() -> None:
    parent = make_agent(0, [(40, 6)] * 2)
    never = replace(make_agent(1, [(20, 6)]), parent="agent-0", parent_step=1)
    grandchild = replace(make_agent(2, [(20, 6)]), parent="agent-1", parent_step=0)
    late = make_agent(3, [(40, 6)], arrival_s=0.2)
    faults = Faults(calls=dict.fromkeys(range(1, 1 + QUICK.max_attempts), 500))
    record, _, _ = run_on_fake(NONE, make_workload(parent, never, grandchild, late), faults=faults)
    assert not record.run["complete"]
    said = " ".join(record.run["warnings"])
    assert "agent-0, which starts it, ended before" in said
    assert "agent-1, which starts it, ended before" in said
    assert record.agents["agent_id"].tolist() == ["agent-3"]


def test_a_closed_loop_on_a_live_engine() -> None:
    loop = ClosedLoop(num_sessions=2, duration_s=0.4)
    workload = replace(small_workload(num_agents=40), closed_loop=loop)
    record, _, run = run_on_fake(NONE, workload)
    agents = record.agents.sort_values("arrived_s")
    arrived_s, finished_s = agents["arrived_s"].tolist(), sorted(agents["finished_s"])
    assert 4 < len(agents) < 40, "as many as the time allows"
    assert record.run["complete"]
    assert max(arrived_s) < 0.45
    assert all(begun >= ended for begun, ended in zip(arrived_s[2:], finished_s, strict=False))
    assert_gate_is_empty(run)
