"""vLLM's `OffloadingConnector` without vLLM: transfers, policies, one engine from end to end."""

from copy import deepcopy
from math import inf

import pytest

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.offload.core import ConnectedCore
from concur.sim.engine.offload.transfers import ConnectorOutput, FifoLink, OffloadingWorker, TransferJob
from concur.sim.engine.request import Request
from concur.sim.engine.vllm.build import build_core
from concur.sim.kv.eviction import ARCCachePolicy, LRUCachePolicy, RequestAccess
from concur.sim.kv.history import BlockHash, Histories
from concur.sim.kv.offload_manager import LookupResult, OffloadingManager
from concur.sim.show.figures import time_split
from concur.sim.show.tables import comparison_table
from concur.sim.step_time.step_time import LinearStepTime
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload

STEP_TIME = LinearStepTime(0.01, 1e-5, 1e-5, 0.0, 0.0)


def keys(*numbers: int) -> list[BlockHash]:
    return [BlockHash(number) for number in numbers]


def stored(manager: OffloadingManager, *numbers: int) -> RequestAccess:
    """A request that stores these chunks and ends."""
    access = RequestAccess()
    taken = manager.prepare_store(keys(*numbers), access)
    assert taken is not None
    manager.complete_store(taken)
    manager.on_request_finished(keys(*numbers), access)
    return access


def test_transfers_of_one_direction_wait_for_one_another() -> None:
    link = FifoLink(bandwidth_bytes_per_s=100.0)
    link.submit(1, 200, time_s=1.0)
    link.submit(2, 100, time_s=1.0)
    link.submit(3, 100, time_s=10.0)
    assert link.take_done(2.9) == []
    assert link.take_done(4.0) == [1, 2]
    assert link.take_done(11.0) == [3]


def test_a_store_is_submitted_one_step_late_and_at_once_if_it_is_flushed() -> None:
    worker = OffloadingWorker(bandwidth_bytes_per_s=100.0, block_bytes=100)
    first, second, third = ConnectorOutput(), ConnectorOutput(), ConnectorOutput()
    first.store_jobs = [TransferJob(0, "a", 2)]
    assert worker.begin_step(first, time_s=0.0) == 0.0
    assert worker.take_done(9.0) == []
    assert worker.begin_step(second, time_s=10.0) == 10.0
    third.store_jobs, third.jobs_to_flush = [TransferJob(1, "a", 3)], {0, 1}
    assert worker.begin_step(third, time_s=11.0) == 15.0, "2 s from 10 s on, then 3 s"
    assert worker.take_done(15.0) == [0, 1]
    assert worker.traffic.host_flush_stall_s == 4.0


def test_lru_gives_up_the_tail_of_the_oldest_request_first() -> None:
    manager = OffloadingManager(6, LRUCachePolicy(), store_threshold=0)
    stored(manager, 1, 2, 3)
    stored(manager, 4, 5, 6)
    assert [key for key, _ in manager.policy.residents()] == [3, 2, 1, 6, 5, 4]
    stored(manager, 7, 8)
    assert [key for key, _ in manager.policy.residents()] == [1, 6, 5, 4, 8, 7]


def test_an_offer_is_taken_whole_or_not_at_all_and_spares_what_is_pinned() -> None:
    manager = OffloadingManager(4, LRUCachePolicy(), store_threshold=0)
    stored(manager, 1, 2, 3, 4)
    manager.prepare_load(keys(3, 4), RequestAccess())
    assert manager.prepare_store(keys(5, 6, 7), RequestAccess()) is None
    assert sorted(key for key, _ in manager.policy.residents()) == [1, 2, 3, 4]
    assert manager.prepare_store(keys(1, 5), RequestAccess()) == keys(5), "2 goes: 1 is of the offer"
    assert manager.lookup(BlockHash(5)) is LookupResult.HIT_PENDING
    assert manager.lookup(BlockHash(2)) is LookupResult.MISS


def test_under_a_threshold_a_chunk_is_stored_from_that_offer_on() -> None:
    manager = OffloadingManager(4, LRUCachePolicy(), store_threshold=2)
    assert manager.prepare_store(keys(1, 2), RequestAccess()) == []
    assert manager.prepare_store(keys(1), RequestAccess()) == keys(1)


def test_arc_keeps_what_several_requests_used() -> None:
    policy = ARCCachePolicy(3)
    manager = OffloadingManager(3, policy, store_threshold=0)
    stored(manager, 1)
    stored(manager, 1)
    stored(manager, 2, 3)
    stored(manager, 4)
    assert list(policy.t2) == [1]
    assert list(policy.b1) == [3], "the tail of what one request used"
    stored(manager, 3)
    assert policy.target_t1_size == 1.0, "it would have been kept, had t1 been longer"


def make_config(**engine: object) -> EngineConfig:
    given = {"num_gpu_blocks": 12, "max_num_batched_tokens": 512, "max_model_len": 4096, "model_runner": "v1"}
    host = {"kind": "offloading", "capacity_tokens": 1600, "bandwidth_bytes_per_s": 1e9}
    return EngineConfig.model_validate(given | {"host_cache": host} | engine)


def visits(config: EngineConfig) -> tuple[ConnectedCore, list[Request]]:
    """An agent of 8 blocks, another that pushes it out, and the first one again with the same prompt."""
    core = build_core(config, STEP_TIME)
    assert isinstance(core, ConnectedCore)
    histories = Histories(16)
    mine = histories.call(histories.begin(()), kept_tokens=0, context_tokens=130)
    others = histories.call(histories.begin(()), kept_tokens=0, context_tokens=162)
    again = histories.call(mine, kept_tokens=128, context_tokens=130)
    requests = [
        Request("a/0", 0, 0, 128, 2, mine, 0, 0.0),
        Request("b/0", 1, 0, 160, 2, others, 0, 1.0),
        Request("a/1", 0, 1, 128, 2, again, 128, 2.0),
    ]
    for request in requests:
        core.submit(request)
    while core.run_until(inf):
        pass
    return core, requests


def test_a_prompt_that_comes_back_is_loaded_whole_and_its_last_token_computed() -> None:
    core, (_, _, again) = visits(make_config())
    assert again.num_cached_tokens == 128
    assert again.num_host_tokens == 128
    assert core.host_metrics()["num_host_loads"] == 1
    assert core.host_metrics()["host_loaded_blocks"] == 8
    assert core.host_metrics()["host_stored_blocks"] == 18
    stats = core.stats
    assert stats.external_prefix_cache_hits_tokens == 128
    assert stats.external_prefix_cache_queries_tokens == 128 + 160 + 128


def test_a_load_takes_its_time_and_the_later_model_runner_takes_longer() -> None:
    at_8_blocks_s = 8 * 16 * 262_144 / 1e9
    for runner in ("v1", "v2"):
        _, (_, _, again) = visits(make_config(model_runner=runner))
        assert again.scheduled_s is not None
        assert 2.0 + at_8_blocks_s <= again.scheduled_s <= 2.003 + at_8_blocks_s


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_the_time_in_which_an_engine_only_reloads_is_told(runner: str) -> None:
    """The third call is alone: nothing is computed while its 8 blocks come back."""
    core, _ = visits(make_config(model_runner=runner))
    metrics = core.host_metrics()
    assert metrics["host_load_s"] == pytest.approx(8 * 16 * 262_144 / 1e9)
    assert metrics["host_reload_wait_s"] == pytest.approx(metrics["host_load_s"])


@pytest.mark.parametrize(("blocks_per_chunk", "is_put_off"), [(1, True), (2, False)])
def test_only_what_could_be_loaded_is_waited_for(blocks_per_chunk: int, is_put_off: bool) -> None:
    """Of a prompt of 96 tokens the pool finds 80; a chunk of 32, still being written, holds the rest.

    `_lookup_complete_chunks` gives up before it looks where less than a chunk is missing.
    """
    host = {"kind": "offloading", "capacity_tokens": 1600, "bandwidth_bytes_per_s": 1e7}
    config = make_config(num_gpu_blocks=40, host_cache=host | {"blocks_per_chunk": blocks_per_chunk})
    core, histories = build_core(config, STEP_TIME), Histories(16)
    history = histories.call(histories.begin(()), kept_tokens=0, context_tokens=116)
    first = Request("a/0", 0, 0, 96, 20, history, 0, 0.0)
    again = histories.call(history, kept_tokens=96, context_tokens=98)
    second = Request("b/0", 1, 0, 96, 2, again, 96, 0.1)
    core.submit(first)
    core.submit(second)
    while core.run_until(inf):
        pass
    store_s = 6 * 16 * 262_144 / 1e7
    assert second.scheduled_s is not None
    assert (second.scheduled_s > store_s) is is_put_off


def test_what_is_loaded_while_others_compute_is_not_waited_for() -> None:
    config = make_config()
    core, histories, requests = build_core(config, STEP_TIME), Histories(16), []
    for number, (prompt, outputs, arrival_s) in enumerate([(128, 2, 0.0), (160, 2, 1.0), (128, 2, 2.0)]):
        if number != 2:
            history = histories.call(histories.begin(()), kept_tokens=0, context_tokens=prompt + outputs)
            requests.append(history)
        given = requests[0] if number == 2 else history
        core.submit(Request(f"{number}/0", number, 0, prompt, outputs, given, 0, arrival_s))
    beside = histories.call(histories.begin(()), kept_tokens=0, context_tokens=48)
    core.submit(Request("beside/0", 9, 0, 16, 32, beside, 0, 1.9))
    while core.run_until(inf):
        pass
    metrics = core.host_metrics()
    assert metrics["num_host_loads"] == 1
    assert metrics["host_reload_wait_s"] == 0.0


def test_an_engine_in_the_middle_of_a_transfer_can_be_copied() -> None:
    core = build_core(make_config(), STEP_TIME)
    histories = Histories(16)
    for number in range(3):
        history = histories.call(histories.begin(()), kept_tokens=0, context_tokens=130)
        core.submit(Request(f"{number}/0", number, 0, 128, 2, history, 0, 0.0))
    core.run_until(0.02)
    assert isinstance(core, ConnectedCore)
    assert core.worker.traffic.host_stored_blocks, "stores are under way"
    copies = [core, deepcopy(core)]
    ends = []
    for each in copies:
        while each.run_until(inf):
            pass
        ends.append((each.time_s, each.host_metrics(), each.totals))
    assert ends[0] == ends[1]


def test_a_run_says_what_went_over_the_link_if_there_is_a_connector() -> None:
    agents = [make_agent(number, [(100, 5)] * 4, wait_s=0.5) for number in range(6)]
    engine = {"num_gpu_blocks": 60, "max_num_batched_tokens": 512}
    host = {"kind": "offloading", "capacity_tokens": 50_000, "kv_bytes_per_token": 1000}
    plain = simulate(make_scenario(engine=engine), make_workload(*agents))
    hosted = simulate(make_scenario(engine=engine | {"host_cache": host}), make_workload(*agents))
    assert "num_host_loads" not in plain.metrics
    assert hosted.metrics["num_host_loads"] > 0
    assert hosted.metrics["host_tokens"] > 0
    assert hosted.metrics["makespan_s"] <= plain.metrics["makespan_s"]
    assert 0.0 < hosted.metrics["host_reload_wait_s"] <= hosted.metrics["host_load_s"]
    split = time_split([plain, hosted])
    waits_s = split["waiting for reloads"].tolist()
    assert waits_s == [0.0, hosted.metrics["host_reload_wait_s"]]
    assert sum(widths[1] for widths in split.values()) == pytest.approx(hosted.metrics["makespan_s"])
    assert "waiting for reloads" not in time_split([plain])
    assert "reloaded" in [column.header for column in comparison_table([plain, hosted]).columns]
    assert "reloaded" not in [column.header for column in comparison_table([plain]).columns]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            {"kind": "victim", "capacity_tokens": 99, "blocks_per_chunk": 4},
            "blocks_per_chunk = 4 but a host cache of kind victim",
        ),
        (
            {"kind": "offloading", "capacity_tokens": 40, "blocks_per_chunk": 4},
            "block_size x blocks_per_chunk = 64",
        ),
    ],
)
def test_settings_that_cannot_act_are_refused(host: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(host_cache=host)
