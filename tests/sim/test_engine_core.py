"""Engine cores without a clock: what goes in, what comes out, and a copy in the middle of a run."""

from copy import deepcopy
from dataclasses import astuple
from math import inf
from typing import Any

import pytest

from concur.signals import Prefix
from concur.sim.engine.config import EngineConfig
from concur.sim.engine.core import EngineCore
from concur.sim.engine.request import Request
from concur.sim.engine.vllm.build import build_core, build_reference_core
from concur.sim.engine.vllm.fast import FastScheduler
from concur.sim.kv.history import Histories
from concur.sim.kv.segments import SegmentCache
from concur.sim.step_time.step_time import LinearStepTime

STEP_TIME = LinearStepTime(0.006, 2.1e-5, 5e-5, 1.2e-8, 1e-9)
ENGINES: dict[str, dict[str, Any]] = {
    "ample": {"num_gpu_blocks": 500},
    "starved": {"num_gpu_blocks": 46},
    "async": {"num_gpu_blocks": 46, "async_scheduling": True},
    "host": {
        "num_gpu_blocks": 46,
        "host_cache": {"capacity_tokens": 3000, "bandwidth_bytes_per_s": 2e9},
    },
}
engines = pytest.mark.parametrize("engine", ENGINES)


def make_config(**engine: Any) -> EngineConfig:
    return EngineConfig(**({"max_num_batched_tokens": 512, "max_model_len": 4096} | engine))


def make_requests() -> list[Request]:
    """Three calls each of eight agents, some at the same time, some of them long."""
    histories, requests = Histories(16), []
    for agent in range(8):
        history, kept = histories.begin([Prefix("g", 48)] if agent % 2 else ()), 48 * (agent % 2)
        for call in range(3):
            prompt, output = kept + 30 + 50 * (agent % 3), 10 + 13 * agent
            history = histories.call(history, kept_tokens=kept, context_tokens=prompt + output)
            arrival_s = 0.03 * (agent // 2) + 4.0 * call
            requests.append(Request(f"{agent}/{call}", agent, call, prompt, output, history, kept, arrival_s))
            kept = prompt + output
    return sorted(requests, key=lambda request: request.arrival_s)


def outcome(core: EngineCore, finished: list[Request]) -> tuple[Any, ...]:
    """Everything that a run shows of an engine."""
    calls = [
        (
            request.request_id,
            request.scheduled_s,
            request.first_token_s,
            request.finished_s,
            request.num_cached_tokens,
            request.num_host_tokens,
            request.num_preemptions,
            request.num_recomputed_tokens,
        )
        for request in finished
    ]
    return calls, astuple(core.stats), astuple(core.totals)


def run_to_end(core: EngineCore, requests: list[Request]) -> list[Request]:
    """Submit each request at its time, and return all in the order in which they finish."""
    finished = []
    for request in requests:
        while ended := core.run_until(request.arrival_s):
            finished += ended
        core.submit(request)
    while ended := core.run_until(inf):
        finished += ended
    return finished


@engines
def test_fast_and_reference_cores_do_the_same(engine: str) -> None:
    config = make_config(**ENGINES[engine])
    outcomes = []
    for build in (build_core, build_reference_core):
        core = build(config, STEP_TIME)
        outcomes.append(outcome(core, run_to_end(core, make_requests())))
    assert outcomes[0] == outcomes[1]
    calls, stats, _ = outcomes[0]
    assert len(calls) == 24
    if engine != "ample":
        assert stats[-1] > 0, "nothing was evicted"


@engines
def test_requests_may_be_submitted_before_they_arrive(engine: str) -> None:
    config = make_config(**ENGINES[engine])
    waiting, ahead = build_core(config, STEP_TIME), build_core(config, STEP_TIME)
    expected = outcome(waiting, run_to_end(waiting, make_requests()))
    for request in make_requests():
        ahead.submit(request)
    assert outcome(ahead, run_to_end(ahead, [])) == expected


@engines
@pytest.mark.parametrize("time_s", [0.05, 0.31, 4.2])
def test_a_core_copied_in_the_middle_of_a_run_goes_on_to_the_same_end(engine: str, time_s: float) -> None:
    core = build_core(make_config(**ENGINES[engine]), STEP_TIME)
    requests = make_requests()
    for request in requests:
        core.submit(request)
    before = []
    while ended := core.run_until(time_s):
        before += ended
    assert not core.is_idle
    copy = deepcopy(core)
    first = outcome(core, before + run_to_end(core, []))
    assert outcome(copy, before + run_to_end(copy, [])) == first
    assert all(request.finished_s is not None for request in requests)


def test_a_request_of_the_past_is_refused() -> None:
    core = build_core(make_config(num_gpu_blocks=500), STEP_TIME)
    first, second, *_ = make_requests()
    core.submit(first)
    core.run_until(inf)
    with pytest.raises(ValueError, match=r"arrives at 0.0 s but the engine is at .*; submit it before"):
        core.submit(second)


def test_an_engine_with_nothing_to_do_says_so() -> None:
    core = build_core(make_config(num_gpu_blocks=500), STEP_TIME)
    assert core.is_idle
    assert core.next_change_s == inf
    assert core.run_until(inf) == []
    core.submit(make_requests()[-1])
    assert core.next_change_s == pytest.approx(8.09)


QUIET = {
    "alone": ([20], True),
    "somebody waits without room": ([20, 500], True),
    "somebody waits without a seat": ([20, 20, 20], True),
    "all seats are taken, nobody waits": ([20, 20], True),
    "a prefill goes on": ([20, 300], False),
}


@pytest.mark.parametrize("name", QUIET)
def test_it_is_quiet_when_the_coming_steps_are_certain(name: str) -> None:
    lengths, is_quiet = QUIET[name]
    config = make_config(num_gpu_blocks=33, max_num_seqs=2, max_num_batched_tokens=120)
    cache = SegmentCache(33, block_size=16, watermark=0.0, enable_caching=True)
    scheduler, histories = FastScheduler(config, cache), Histories(16)
    for number, length in enumerate(lengths):
        history = histories.call(histories.begin(()), kept_tokens=0, context_tokens=length + 12)
        scheduler.add_request(Request(f"r{number}", number, 0, length, 12, history, 0, 0.0))
    for _ in range(2):
        scheduler.update_from_output(scheduler.schedule(), time_s=0.0)
    assert scheduler.is_quiet == is_quiet
    scheduler.add_request(Request("late", 9, 0, 10, 1, histories.begin(()), 0, 0.0))
    assert scheduler.is_quiet == (is_quiet and len(lengths) > len(scheduler.running))
