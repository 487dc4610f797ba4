"""vLLM's scheduling rules, one story each; tokens are counted by hand."""

from itertools import count
from typing import Any

from concur.signals import Prefix
from concur.sim.engine.config import EngineConfig
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.vllm.build import build_reference_scheduler
from concur.sim.engine.vllm.hybrid import HybridScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.history import BlockHash, Histories, History
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.sim.kv.tier import HostCache

_numbers = count()
_histories = Histories(16)  # one for all tests: names never collide
OurScheduler = Scheduler[KVCacheManager]


def make_scheduler(*, num_blocks: int = 101, **engine: Any) -> OurScheduler:
    """A scheduler whose pool has `num_blocks` - 1 usable blocks of 16 tokens."""
    config = EngineConfig(
        **({"num_gpu_blocks": num_blocks, "max_num_batched_tokens": 1000, "max_model_len": 4096} | engine)
    )
    scheduler = build_reference_scheduler(config)
    assert not isinstance(scheduler, HybridScheduler)
    return scheduler


class Agent:
    """Whose calls these are: what it keeps of its history has the same names."""

    def __init__(self, group: str | None = None, shared_prefix_tokens: int = 0) -> None:
        self.history: History = _histories.begin(
            [Prefix(group, shared_prefix_tokens)] if group is not None else ()
        )


def make_request(prompt: int, outputs: int = 4, *, agent: Agent | None = None, kept: int = 0) -> Request:
    number = next(_numbers)
    agent = agent or Agent()
    agent.history = _histories.call(agent.history, kept_tokens=kept, context_tokens=prompt + outputs)
    return Request(f"r{number}", number, 0, prompt, outputs, agent.history, 0, arrival_s=0.0)


def step(scheduler: OurScheduler) -> SchedulerOutput:
    output = scheduler.schedule()
    scheduler.update_from_output(output, time_s=0.0)
    return output


def tokens(output: SchedulerOutput) -> list[int]:
    return [num_tokens for _, num_tokens, _ in output.scheduled]


def run_to_end(scheduler: OurScheduler) -> list[SchedulerOutput]:
    outputs = []
    while scheduler.has_unfinished_requests():
        outputs.append(step(scheduler))
        assert len(outputs) < 10_000
    return outputs


def test_a_prompt_longer_than_the_budget_is_chunked_and_then_decodes_one_by_one() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=300)
    scheduler.add_request(make_request(700, outputs=3))
    assert [tokens(output) for output in run_to_end(scheduler)] == [[300], [300], [100], [1], [1]]


def test_running_requests_take_the_budget_before_waiting_ones() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=300)
    first, second, third = (make_request(prompt) for prompt in (250, 500, 10))
    for request in (first, second, third):
        scheduler.add_request(request)
    assert step(scheduler).scheduled == [(first, 250, True), (second, 50, False)]
    assert step(scheduler).scheduled == [(first, 1, True), (second, 299, False)]
    assert step(scheduler).scheduled == [(first, 1, True), (second, 151, True), (third, 10, True)]


def test_max_num_seqs_bounds_what_runs() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    for _ in range(3):
        scheduler.add_request(make_request(10))
    assert tokens(step(scheduler)) == [10, 10]
    assert tokens(step(scheduler)) == [1, 1]


def test_long_prefills_are_capped_unless_alone() -> None:
    scheduler = make_scheduler(long_prefill_token_threshold=100)
    agents = Agent(), Agent()
    scheduler.add_request(make_request(500, agent=agents[0]))
    assert tokens(step(scheduler)) == [500]
    scheduler.add_request(make_request(500, agent=agents[1]))
    assert tokens(step(scheduler)) == [1, 100]


def test_the_next_call_finds_its_history_generated_tokens_included() -> None:
    scheduler = make_scheduler()
    agent = Agent()
    scheduler.add_request(make_request(100, outputs=60, agent=agent))
    run_to_end(scheduler)
    later = make_request(200, agent=agent, kept=160)
    scheduler.add_request(later)
    output = step(scheduler)
    # 159 tokens were computed (the last sampled one was not): 9 full blocks
    assert later.num_cached_tokens == 144
    assert tokens(output) == [56]


def test_a_fully_cached_prompt_recomputes_its_last_block() -> None:
    scheduler = make_scheduler()
    agent = Agent()
    scheduler.add_request(make_request(65, outputs=1, agent=agent))
    run_to_end(scheduler)
    again = make_request(64, outputs=1, agent=agent, kept=64)
    scheduler.add_request(again)
    assert tokens(step(scheduler)) == [16]
    assert again.num_cached_tokens == 48


def test_a_prefix_is_found_in_the_very_step_that_computes_it() -> None:
    scheduler = make_scheduler()
    for agent in (Agent("g", 64), Agent("g", 64)):
        scheduler.add_request(make_request(80, agent=agent, kept=64))
    assert tokens(step(scheduler)) == [80, 16]


def test_without_prefix_caching_nothing_is_found() -> None:
    scheduler = make_scheduler(enable_prefix_caching=False)
    agent = Agent()
    scheduler.add_request(make_request(100, agent=agent))
    run_to_end(scheduler)
    scheduler.add_request(make_request(100, agent=agent, kept=100))
    assert tokens(step(scheduler)) == [100]
    assert scheduler.make_stats().prefix_cache_queries_tokens == 0


def test_the_last_running_request_is_preempted_and_resumes_first() -> None:
    scheduler = make_scheduler(num_blocks=9, max_num_batched_tokens=256)  # 8 blocks, 128 tokens
    first, second, third = (make_request(62, outputs=40) for _ in range(3))
    for request in (first, second, third):
        scheduler.add_request(request)
    assert tokens(step(scheduler)) == [62, 62]  # 4 + 4 blocks; the third does not fit
    assert [tokens(step(scheduler)) for _ in range(2)] == [[1, 1], [1, 1]]
    output = step(scheduler)  # token 65 needs a ninth block
    assert output.preempted == [second]
    assert tokens(output) == [1]
    assert list(scheduler.waiting) == [second, third]  # to the front
    assert (second.status, second.num_computed_tokens) == (RequestStatus.PREEMPTED, 0)
    run_to_end(scheduler)
    assert scheduler.make_stats().num_preemptions == second.num_preemptions == 1


def test_preemption_recomputes_what_was_evicted_and_counts_it() -> None:
    scheduler = make_scheduler(num_blocks=9, max_num_batched_tokens=256)
    first, second = (make_request(62, outputs=40) for _ in range(2))
    scheduler.add_request(first)
    scheduler.add_request(second)
    run_to_end(scheduler)
    # Its fourth block was taken at once, the third at token 81, the second at 97: 16 tokens were left.
    # 64 had been computed, 48 of them are computed again; the counters of hits are not touched.
    assert second.num_recomputed_tokens == 48
    assert scheduler.make_stats().prefix_cache_queries_tokens == 124
    assert scheduler.make_stats().prefix_cache_hits_tokens == 0


def test_nothing_is_admitted_in_a_step_that_preempts() -> None:
    scheduler = make_scheduler(num_blocks=9, max_num_batched_tokens=256)
    first, second, tiny = (make_request(prompt, outputs=40) for prompt in (62, 62, 1))
    scheduler.add_request(first)
    scheduler.add_request(second)
    for _ in range(3):
        step(scheduler)
    scheduler.add_request(tiny)
    output = step(scheduler)
    assert output.preempted == [second]
    assert output.admitted == []


def test_the_full_prompt_is_reserved_at_admission() -> None:
    for reserve, expected in ((True, [64]), (False, [64, 36])):
        scheduler = make_scheduler(
            num_blocks=9, max_num_seqs=8, max_num_batched_tokens=100, scheduler_reserve_full_isl=reserve
        )
        agents = Agent(), Agent()
        scheduler.add_request(make_request(64, agent=agents[0]))
        scheduler.add_request(make_request(100, agent=agents[1]))  # 7 of the 4 blocks left
        assert tokens(step(scheduler)) == expected


def test_the_watermark_stays_free_unless_nothing_runs() -> None:
    scheduler = make_scheduler(num_blocks=11, watermark=0.2)  # int(0.2 * 11) = 2 of 10 blocks
    agents = Agent(), Agent()
    scheduler.add_request(make_request(100, agent=agents[0]))  # 7 blocks
    scheduler.add_request(make_request(20, agent=agents[1]))  # 2 of 3 left, but 2 stay free
    assert tokens(step(scheduler)) == [100]

    alone = make_scheduler(num_blocks=11, watermark=0.2)
    alone.add_request(make_request(159, outputs=1))
    assert tokens(step(alone)) == [159]


def test_cached_idle_blocks_that_a_hit_takes_count_as_needed() -> None:
    scheduler = make_scheduler(num_blocks=9)  # 8 blocks
    agents = Agent(), Agent()
    scheduler.add_request(make_request(80, outputs=1, agent=agents[0]))
    run_to_end(scheduler)  # 5 blocks cached and idle
    holder = make_request(40, outputs=50, agent=agents[1])
    scheduler.add_request(holder)
    step(scheduler)  # takes 3 of 8
    back = make_request(95, agent=agents[0], kept=80)  # 5 idle hits + 1 new = 6 > 5 free
    scheduler.add_request(back)
    assert back not in [request for request, *_ in step(scheduler).scheduled]


def test_first_come_first_served_stops_at_the_first_that_does_not_fit() -> None:
    scheduler = make_scheduler(num_blocks=9)
    for prompt in (64, 100, 10):
        scheduler.add_request(make_request(prompt))
    assert tokens(step(scheduler)) == [64]


def test_evicted_blocks_come_back_from_host_memory() -> None:
    scheduler = make_scheduler(num_blocks=9, host_cache={"kind": "victim", "capacity_tokens": 1600})
    agents = Agent(), Agent()
    scheduler.add_request(make_request(96, outputs=1, agent=agents[0]))
    run_to_end(scheduler)
    scheduler.add_request(make_request(96, outputs=1, agent=agents[1]))  # evicts 4 of the first's 6
    run_to_end(scheduler)
    back = make_request(110, outputs=1, agent=agents[0], kept=96)
    scheduler.add_request(back)
    output = scheduler.schedule()
    assert output.scheduled == []
    # 2 blocks are left on the GPU; taking 4 more evicts others, never those
    assert output.loads == [(back, 64)]
    assert (back.num_cached_tokens, back.num_host_tokens) == (96, 64)
    scheduler.finish_load(back)
    assert tokens(step(scheduler)) == [14]


def test_host_memory_keeps_the_most_recent_blocks() -> None:
    host = HostCache(2)
    hashes = [BlockHash(number) for number in range(3)]
    for block_hash in hashes:
        host.store(block_hash)
    assert len(host) == 2
    assert host.count_hits(hashes) == 0
    assert host.count_hits(hashes[1:]) == 2


def test_a_refused_admission_leaves_host_memory_as_it_was() -> None:
    """Asking is not using: who waits for room again and again must not keep its blocks young."""
    scheduler = make_scheduler(num_blocks=9, host_cache={"kind": "victim", "capacity_tokens": 96})  # 6 blocks
    agents = Agent(), Agent(), Agent()
    for agent in agents[:2]:
        scheduler.add_request(make_request(96, outputs=1, agent=agent))
        run_to_end(scheduler)  # the second evicts blocks 5 to 2 of the first
    asked, holder = (
        make_request(110, outputs=1, agent=agents[0], kept=96),
        make_request(20, 9, agent=agents[2]),
    )
    scheduler.add_request(holder)
    step(scheduler)
    host = scheduler.tier
    assert host is not None
    scheduler.add_request(asked)  # 7 blocks of the 6 that are left
    for _ in range(3):
        assert step(scheduler).loads == []
    for stranger in (BlockHash(-1), BlockHash(-2)):  # the oldest two go: blocks 5 and 4 of the first
        host.store(stranger)
    assert host.count_hits(asked.history.block_hashes(2, 6)) == 2
