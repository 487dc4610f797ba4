"""What releases of vLLM decide differently, one story each; tokens are counted by hand."""

from collections.abc import Iterable
from math import inf
from typing import Any

import pytest

from concur.sim.engine.config import RELEASES, EngineConfig
from concur.sim.engine.core import EngineCore
from concur.sim.engine.offload.connector import OffloadingConnector
from concur.sim.engine.offload.scheduler import ConnectedScheduler
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.vllm.build import build_core, build_reference_core, build_reference_scheduler
from concur.sim.engine.vllm.hybrid import HybridScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.eviction import LRUCachePolicy, RequestAccess
from concur.sim.kv.history import BlockHash, Histories
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.sim.kv.offload_manager import OffloadingManager
from concur.sim.kv.request_lru import RequestLRUCachePolicy
from concur.sim.step_time.step_time import LinearStepTime

STEP_TIME = LinearStepTime(0.01, 0.0, 0.0, 0.0, 0.0)
UNTIL_0_26, UNTIL_0_32 = RELEASES[:2], RELEASES[:-1]


def make_config(num_blocks: int, **engine: Any) -> EngineConfig:
    """An engine with so many blocks of 16 tokens."""
    given = {"num_gpu_blocks": 1 + num_blocks, "max_num_batched_tokens": 512, "max_model_len": 4096}
    return EngineConfig.model_validate(given | engine)


def make_requests(*lengths: tuple[int, int, int]) -> list[Request]:
    """Requests of so many prompt and output tokens, and with that priority; nobody shares anything."""
    histories = Histories(16)
    return [
        Request(
            str(number),
            number,
            0,
            prompt,
            outputs,
            histories.call(histories.begin(()), kept_tokens=0, context_tokens=prompt + outputs),
            0,
            arrival_s=0.0,
            priority=priority,
        )
        for number, (prompt, outputs, priority) in enumerate(lengths)
    ]


def make_scheduler(config: EngineConfig) -> Scheduler[KVCacheManager]:
    scheduler = build_reference_scheduler(config)
    assert not isinstance(scheduler, HybridScheduler)
    return scheduler


def admit(scheduler: Scheduler[KVCacheManager], *requests: Request) -> SchedulerOutput:
    """Decide a step that admits these."""
    for request in requests:
        scheduler.add_request(request)
    output = scheduler.schedule()
    assert output.admitted == [*requests]
    return output


def names(requests: Iterable[Request]) -> list[str]:
    return [request.request_id for request in requests]


def last_step(config: EngineConfig, first: Request, *others: Request) -> tuple[list[str], list[str]]:
    """Who is in the step after that which admits the others, and who makes way for it."""
    scheduler = make_scheduler(config)
    scheduler.update_from_output(admit(scheduler, first), time_s=0.0)
    output = admit(scheduler, *others)
    if not config.async_scheduling:
        scheduler.update_from_output(output, time_s=0.0)
    output = scheduler.schedule()
    return names(request for request, _, _ in output.scheduled), names(output.preempted)


@pytest.mark.parametrize("release", RELEASES)
def test_until_0_26_one_who_is_not_in_the_step_and_makes_way_costs_somebody_a_turn(release: str) -> None:
    """The first has its last token in flight, the second needs its block, the third has room."""
    config = make_config(3, release=release, scheduling_policy="priority", async_scheduling=True)
    scheduled, preempted = last_step(config, *make_requests((14, 2, 5), (16, 4, 0), (10, 4, 1)))
    assert preempted == ["0"]
    assert scheduled == (["1"] if release in UNTIL_0_26 else ["1", "2"])


@pytest.mark.parametrize("release", RELEASES)
def test_who_is_in_the_step_and_makes_way_costs_nobody_a_turn(release: str) -> None:
    config = make_config(3, release=release, scheduling_policy="priority")
    requests = make_requests((10, 4, 5), (16, 4, 0), (10, 4, 1))
    assert last_step(config, *requests) == (["1", "2"], ["0"])


@pytest.mark.parametrize("release", RELEASES)
def test_since_0_33_those_behind_one_who_made_way_for_itself_have_their_turn(release: str) -> None:
    config = make_config(2, release=release, scheduling_policy="priority")
    requests = make_requests((15, 4, 5), (10, 4, 0))
    assert last_step(config, *requests) == ([] if release in UNTIL_0_32 else ["1"], ["0"])


def test_since_0_33_the_tokens_of_those_who_made_way_are_there_for_those_behind() -> None:
    """Of 40 tokens the first has one; it makes way for the second, which then makes way for itself."""
    prefills = {"long_prefill_token_threshold": 40, "scheduler_reserve_full_isl": False}
    scheduler = make_scheduler(make_config(9, release="0.33", scheduling_policy="priority", **prefills))
    for request in make_requests((10, 9, 8), (200, 4, 7), (200, 4, 0)):
        scheduler.update_from_output(admit(scheduler, request), time_s=0.0)
    output = SchedulerOutput()
    scheduler._fill(output, 40)
    assert names(output.preempted) == ["0", "1"]
    assert [(request.request_id, num_tokens) for request, num_tokens, _ in output.scheduled] == [("2", 40)]


@pytest.mark.parametrize("build", [build_core, build_reference_core], ids=["fast", "reference"])
def test_a_step_that_only_preempts_takes_its_place_in_the_queue_of_steps(build: Any) -> None:
    """`step_with_batch_queue`: two are in it, so that the one in flight is waited for.

    The first request has its last token in flight, the second makes way for itself, and the third would fit.
    """
    core: EngineCore = build(make_config(2, async_scheduling=True), STEP_TIME)
    requests = make_requests((16, 1, 0), (16, 4, 0), (10, 2, 0))
    for request in requests:
        core.submit(request)
    while core.run_until(inf):
        pass
    assert [request.num_preemptions for request in requests] == [0, 1, 0]
    assert requests[2].scheduled_s is not None
    assert requests[2].scheduled_s > 0.01


def keys(*numbers: int) -> list[BlockHash]:
    return [BlockHash(number) for number in numbers]


def access_of(*numbers: int) -> RequestAccess:
    """A request whose keys these are, head first."""
    return RequestAccess(positions={key: place for place, key in enumerate(keys(*numbers))})


def residents(manager: OffloadingManager) -> list[int]:
    return [int(key) for key, _ in manager.policy.residents()]


@pytest.mark.parametrize("since_0_33", [False, True])
def test_since_0_33_the_tail_of_a_request_that_stores_bit_by_bit_goes_first(since_0_33: bool) -> None:
    policy = RequestLRUCachePolicy() if since_0_33 else LRUCachePolicy()
    manager = OffloadingManager(4, policy, store_threshold=0)
    access = access_of(1, 2, 3)
    for bit in (keys(1, 2), keys(3)):
        assert manager.prepare_store(bit, access) == bit
        manager.complete_store(bit)
    assert residents(manager) == ([3, 2, 1] if since_0_33 else [1, 2, 3])
    assert manager.prepare_store(keys(8, 9), access_of(8, 9)) == keys(8, 9)
    assert residents(manager) == ([2, 1, 9, 8] if since_0_33 else [2, 3, 8, 9])


def test_since_0_33_what_a_request_uses_has_its_rank_at_once() -> None:
    manager = OffloadingManager(3, RequestLRUCachePolicy(), store_threshold=0)
    manager.prepare_store(keys(1, 2, 3), access_of(1, 2, 3))
    manager.complete_store(keys(1, 2, 3))
    assert manager.prepare_store(keys(3), access_of(3)) == []
    assert residents(manager) == [2, 1, 3]
    assert manager.prepare_store(keys(4), access_of(4)) == keys(4)
    assert residents(manager) == [1, 3, 4], "3 is not given up for the rank that it had"


def test_since_0_33_a_chunk_of_a_later_request_keeps_its_rank() -> None:
    manager = OffloadingManager(3, RequestLRUCachePolicy(), store_threshold=0)
    first, second = access_of(1, 2), access_of(2)
    for number, access in ((1, first), (2, second)):
        manager.prepare_store(keys(number), access)
        manager.complete_store(keys(number))
    assert manager.prepare_store(keys(2), first) == []
    assert residents(manager) == [1, 2]


def test_at_a_requests_end_what_it_used_is_ranked_anew() -> None:
    manager = OffloadingManager(4, RequestLRUCachePolicy(), store_threshold=0)
    first, second = access_of(1, 2), access_of(3)
    manager.prepare_store(keys(1, 2), first)
    manager.prepare_store(keys(3), second)
    assert residents(manager) == [2, 1, 3]
    manager.on_request_finished(keys(1, 2), first)
    assert residents(manager) == [3, 2, 1]


@pytest.mark.parametrize("release", RELEASES)
def test_since_0_33_the_lru_is_another(release: str) -> None:
    host = {"kind": "offloading", "capacity_tokens": 64}
    scheduler = make_scheduler(make_config(20, release=release, host_cache=host))
    assert isinstance(scheduler, ConnectedScheduler)
    assert isinstance(scheduler.connector, OffloadingConnector)
    expected = LRUCachePolicy if release in UNTIL_0_32 else RequestLRUCachePolicy
    assert type(scheduler.connector.manager.policy) is expected


def test_since_0_33_what_is_pinned_keeps_its_rank_and_is_passed_over() -> None:
    manager = OffloadingManager(3, RequestLRUCachePolicy(), store_threshold=0)
    access = access_of(1, 2, 3)
    manager.prepare_store(keys(1, 2, 3), access)
    manager.complete_store(keys(1, 2, 3))
    manager.prepare_load(keys(3), access)
    assert manager.prepare_store(keys(4, 5, 6), access_of(4, 5, 6)) is None
    assert residents(manager) == [3, 2, 1]
    assert manager.prepare_store(keys(4), access_of(4)) == keys(4)
    assert residents(manager) == [3, 1, 4]


def test_a_key_that_is_ranked_over_and_over_is_given_up_once() -> None:
    policy = RequestLRUCachePolicy()
    manager = OffloadingManager(2, policy, store_threshold=0)
    manager.prepare_store(keys(1, 2), access_of(1, 2))
    manager.complete_store(keys(1, 2))
    for _ in range(200):
        manager.on_request_finished(keys(2), access := access_of(2))
        manager.prepare_store(keys(2), access)
    assert len(policy._heap) <= 70
    assert policy.evict(2, set())
    assert residents(manager) == []


@pytest.mark.parametrize("release", ["0.32", "0.33"])
def test_since_0_33_a_preempted_request_offers_its_chunks_anew(release: str) -> None:
    host = {"kind": "offloading", "capacity_tokens": 64}
    scheduler = make_scheduler(make_config(20, release=release, host_cache=host))
    assert isinstance(scheduler, ConnectedScheduler)
    assert isinstance(scheduler.connector, OffloadingConnector)
    (request,) = make_requests((64, 9, 0))
    scheduler.add_request(request)
    output = scheduler.schedule()
    assert [job.num_blocks for job in output.store_jobs] == [4]
    output.completed_jobs = [job.job_id for job in output.store_jobs]
    scheduler.update_from_output(output, time_s=0.0)
    scheduler.running.remove(request)
    scheduler._preempt(request)
    assert scheduler.connector.manager.policy.evict(4, set())
    stored = [job.num_blocks for job in scheduler.schedule().store_jobs]
    assert stored == ([4] if release == "0.33" else [])
