"""Mutation proof: each deliberate change of a rule is caught by the parity suite.

A mutant counts as caught if some world of the suite differs, or if the mutant breaks down on it. That the
unchanged scheduler is *not* caught by the same worlds is the first test.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from concur.cli import main
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.engine.vllm import scheduler as scheduler_module
from concur.sim.engine.vllm.policy import SchedulingPolicy
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.block_pool import BlockHashToBlockMap, BlockPool
from concur.sim.kv.history import History
from concur.sim.kv.kv_cache_manager import KVCacheManager
from tests.parity.mutating import Mutant, changed, is_caught_on, replace
from tests.parity.scenarios import CORNERS, corner

pytestmark = pytest.mark.vllm


def is_caught() -> bool:
    known = (corner(name, is_async=is_async) for name in CORNERS for is_async in (False, True))
    return is_caught_on(known, num_worlds=100)


def drop_last_block_rule(self: KVCacheManager, num_tokens: int) -> int:
    return num_tokens // self.block_size


def waiting_first(self: Scheduler[Any]) -> SchedulerOutput:
    output = SchedulerOutput()
    threshold = self._long_prefill_token_threshold()
    budget = self.config.max_num_batched_tokens
    already_running = list(self.running)
    self._schedule_waiting(output, budget, threshold)
    budget -= sum(num_tokens for _, num_tokens, _ in output.scheduled)
    admitted, self.running = self.running[len(already_running) :], already_running
    self._schedule_running(output, budget, threshold, 0)
    self.running += admitted
    return output


def preempt_first(self: SchedulingPolicy, running: list[Request]) -> Request:
    return running[0]


def forget_nothing(self: BlockHashToBlockMap, key: Any, block: Any) -> None:
    return None


def no_reservation(original: Mutant) -> Mutant:
    def mutant(self: Scheduler[Any], *args: Any) -> bool:
        config = self.config
        self.config = config.model_copy(update={"scheduler_reserve_full_isl": False})
        try:
            return bool(original(self, *args))
        finally:
            self.config = config

    return mutant


def uncached_blocks_to_the_end(self: BlockPool, ordered_blocks: Any) -> None:
    for block in ordered_blocks:
        block.ref_cnt -= 1
        if not block.ref_cnt:
            self.free_block_queue[block.block_id] = block
            self.num_cached_free_blocks += block.block_hash is not None


def cache_prompts_only(original: Mutant) -> Mutant:
    """The manager knows no prompts: the scheduler tells it where each one ends."""

    def mutant(self: Scheduler[Any], request: Request, *blocks: int) -> None:
        manager = self.kv_cache_manager
        if "ends" not in vars(manager):
            cache, manager.ends = manager.cache_blocks, {}
            manager.cache_blocks = lambda name, num_tokens: cache(name, min(num_tokens, manager.ends[name]))
        manager.ends[request.request_id] = request.num_prompt_tokens
        original(self, request, *blocks)

    return mutant


def no_watermark(self: Scheduler[Any]) -> int:
    return 0


def watermark_even_when_alone(self: Scheduler[Any]) -> int:
    return self.kv_cache_manager.watermark_blocks if self.running or not self.num_waiting else 1


def preempted_to_the_back(original: Mutant) -> Mutant:
    def mutant(self: Scheduler[Any], request: Request) -> None:
        original(self, request)
        self.waiting.rotate(-1)

    return mutant


def admit_after_preempting(original: Mutant) -> Mutant:
    def mutant(self: Scheduler[Any]) -> SchedulerOutput:
        output: SchedulerOutput = original(self)
        if output.preempted:
            used = sum(num_tokens for _, num_tokens, _ in output.scheduled)
            budget = self.config.max_num_batched_tokens - used
            self._schedule_waiting(output, budget, self._long_prefill_token_threshold())
        return output

    return mutant


def threshold_even_when_alone(self: Scheduler[Any]) -> int:
    return self.config.long_prefill_token_threshold


def last_duplicate_wins(self: BlockHashToBlockMap, key: Any, block: Any) -> None:
    self._cache[key] = block


def pop_if_it_is_the_one(self: BlockHashToBlockMap, key: Any, block: Any) -> None:
    if self._cache.get(key) is block:
        del self._cache[key]


def idle_hits_cost_nothing(
    self: KVCacheManager, history: History, num_hit_blocks: int, num_tokens: int, *, keep_free_blocks: int
) -> bool:
    needed = -(-num_tokens // self.block_size) - num_hit_blocks
    return needed + keep_free_blocks <= self.block_pool.get_num_free_blocks()


def schedule_past_the_last_token(request: Request) -> bool:
    return False


def skip_one_that_does_not_fit(original: Mutant) -> Mutant:
    def mutant(self: Scheduler[Any], output: Any, budget: int, threshold: int, skipped: list[Request]) -> Any:
        request = original(self, output, budget, threshold, skipped)
        if request is None and len(self.waiting) > 1:
            skipped.append(self.waiting.popleft())
            return original(self, output, budget, threshold, skipped)
        return request

    return mutant


def resume_with_stale_output(original: Mutant) -> Mutant:
    def mutant(self: Scheduler[Any], request: Request) -> None:
        original(self, request)
        request.num_stale_output_tokens = 0

    return mutant


def free_in_order(original: Mutant) -> Mutant:
    def mutant(self: KVCacheManager, request_id: str) -> None:
        self.get_blocks(request_id).reverse()
        original(self, request_id)

    return mutant


MUTANTS: dict[str, tuple[Any, str, Callable[[Mutant], Mutant]]] = {
    "blocks are freed head first": (KVCacheManager, "free", free_in_order),
    "the last block may be credited": (KVCacheManager, "max_hit_blocks", replace(drop_last_block_rule)),
    "waiting requests go before running ones": (Scheduler, "schedule", replace(waiting_first)),
    "the first running request is preempted": (SchedulingPolicy, "victim", replace(preempt_first)),
    "a hash survives eviction": (BlockHashToBlockMap, "pop", replace(forget_nothing)),
    "no full-prompt reservation": (Scheduler, "_admit", no_reservation),
    "uncached blocks are freed to the end": (BlockPool, "free_blocks", replace(uncached_blocks_to_the_end)),
    "generated tokens are not cached": (Scheduler, "_adopt", cache_prompts_only),
    "no watermark": (Scheduler, "_watermark_blocks", replace(no_watermark)),
    "watermark for a lone request": (Scheduler, "_watermark_blocks", replace(watermark_even_when_alone)),
    "preempted requests go to the back": (Scheduler, "_preempt", preempted_to_the_back),
    "admission in a step that preempted": (Scheduler, "schedule", admit_after_preempting),
    "threshold for a lone request": (
        Scheduler,
        "_long_prefill_token_threshold",
        replace(threshold_even_when_alone),
    ),
    "idle hits cost no room": (KVCacheManager, "can_admit", replace(idle_hits_cost_nothing)),
    "a request that does not fit is skipped": (Scheduler, "_next_admitted", skip_one_that_does_not_fit),
    "a step past the last token": (
        scheduler_module,
        "_is_last_token_in_flight",
        replace(schedule_past_the_last_token),
    ),
    "resumed with stale output in flight": (Scheduler, "_preempt", resume_with_stale_output),
}


def test_the_unchanged_scheduler_is_not_caught() -> None:
    assert not is_caught()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_is_caught(name: str) -> None:
    with changed(MUTANTS[name]):
        assert is_caught()


def test_the_first_of_two_duplicates_is_found() -> None:
    """Two attributes change together: the map keeps only the last block of a hash."""
    with (
        patch.object(BlockHashToBlockMap, "insert", last_duplicate_wins),
        patch.object(BlockHashToBlockMap, "pop", pop_if_it_is_the_one),
    ):
        assert is_caught()


def test_the_command_shows_the_first_differing_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = str(Path(__file__).parents[2] / "examples" / "react.toml")
    small = ["--set", "workload.num_agents=12", "--set", "engine.num_gpu_blocks=900"]
    command = ["concur", "validate", "parity", scenario, *small]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "steps identical to vLLM 0.32.0" in capsys.readouterr().out
    with patch.object(KVCacheManager, "free", free_in_order(KVCacheManager.free)):
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr().out
        assert ended.value.code == 1
        assert "differs from vLLM 0.32.0 in: " in printed
        assert "-- simulated" in printed
        assert "-- vLLM" in printed
        monkeypatch.setattr(sys, "argv", [*command, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert json.loads(capsys.readouterr().out)["identical"] is False


def test_there_are_at_least_ten_mutants() -> None:
    assert len(MUTANTS) >= 10
