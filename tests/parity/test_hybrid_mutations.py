"""Mutation proof of pools with several groups: each deliberate change of a rule is caught."""

from collections.abc import Callable
from typing import Any

import pytest

from concur.sim.engine.cache_groups import KVCacheGroupConfig
from concur.sim.engine.request import Request
from concur.sim.engine.vllm.hybrid import HybridScheduler
from concur.sim.engine.vllm.scheduler import Scheduler
from concur.sim.kv.block_pool import KVCacheBlock
from concur.sim.kv.groups import CacheGroup, FullAttention, SlidingWindow
from concur.sim.kv.history import BlockHash, History
from concur.sim.kv.hybrid import HybridKVCacheManager
from concur.validate.parity.worlds import World, hybrid_worlds
from tests.parity.mutating import Mutant, changed, is_caught_on, replace
from tests.parity.scenarios import CORNERS, MODELS, corner, with_groups

pytestmark = pytest.mark.vllm


def known_worlds() -> list[World]:
    return [
        with_groups(corner(name, is_async=is_async), MODELS[model])
        for is_async in (False, True)
        for name in CORNERS
        for model in ("gpt-oss", *(name for name in MODELS if "block sizes" in name), "two windows")
    ]


def is_caught() -> bool:
    return is_caught_on(known_worlds(), num_worlds=150, drawn_from=hybrid_worlds)


def one_key_for_all_groups(self: HybridKVCacheManager, name: BlockHash, number: int) -> BlockHash:
    return name


def windows_need_every_block(original: Mutant) -> Mutant:
    def mutant(self: SlidingWindow, is_cached: Any, max_tokens: int, alignment_tokens: int) -> int:
        return FullAttention(self.block_size).find(is_cached, max_tokens, alignment_tokens)

    return mutant


def the_window_is_one_block_longer(self: SlidingWindow) -> int:
    return -(-(self.sliding_window - 1) // self.block_size) + 1


def the_token_itself_is_not_in_the_window(self: SlidingWindow, num_tokens: int) -> int:
    return max(0, num_tokens - self.sliding_window)


def a_beginning_is_no_hit(original: Mutant) -> Mutant:
    def mutant(self: SlidingWindow, is_cached: Any, max_tokens: int, alignment_tokens: int) -> int:
        found: int = original(self, is_cached, max_tokens, alignment_tokens)
        return found if found >= self.num_hit_blocks * self.block_size else 0

    return mutant


def hits_end_anywhere(original: Mutant) -> Mutant:
    def mutant(self: CacheGroup, is_cached: Any, max_tokens: int, alignment_tokens: int) -> int:
        found: int = original(self, is_cached, max_tokens, self.block_size)
        return found

    return mutant


def every_block_is_worth_finding(self: SlidingWindow, block_index: int, alignment_tokens: int) -> bool:
    return True


def nothing_leaves_the_window(self: HybridKVCacheManager, request_id: str, num_tokens: int) -> None:
    return None


def freed_for_steps_in_flight_too(original: Mutant) -> Mutant:
    def mutant(self: HybridScheduler, request: Request, num_new_tokens: int, output: Any) -> Any:
        self.kv_cache_manager.remove_skipped_blocks(request.request_id, request.num_computed_tokens)
        return original(self, request, num_new_tokens, output)

    return mutant


def freed_after_the_room_is_made(
    self: HybridScheduler, request: Request, num_tokens: int, output: Any
) -> tuple[bool, int, int]:
    made = Scheduler._make_room(self, request, num_tokens, output)
    if made[0]:
        done = request.num_computed_tokens - request.num_in_flight_tokens
        self.kv_cache_manager.remove_skipped_blocks(request.request_id, done)
    return made


def what_leaves_is_freed_head_first(self: HybridKVCacheManager, request_id: str, num_tokens: int) -> None:
    null = self.block_pool.blocks[0]
    for group, blocks in zip(self.groups, self.get_tables(request_id), strict=True):
        last = min(group.num_skipped_tokens(num_tokens) // group.block_size, len(blocks))
        freed: list[KVCacheBlock] = []
        for index in range(last):
            if blocks[index] is not null:
                freed.append(blocks[index])
                blocks[index] = null
        self.block_pool.free_blocks(freed)


def whole_sequences_are_reserved(original: Mutant) -> Mutant:
    def mutant(self: HybridKVCacheManager, *args: Any, **kwargs: Any) -> bool:
        return self.can_admit(*args, **kwargs)

    return mutant


def the_next_chunk_is_not_asked_for(original: Mutant) -> Mutant:
    def mutant(
        self: HybridKVCacheManager, history: History, num_hit_blocks: int, num_tokens: int, **kwargs: Any
    ) -> bool:
        return True

    return mutant


def the_last_group_is_freed_first(self: HybridKVCacheManager, request_id: str) -> None:
    null = self.block_pool.blocks[0]
    for table in reversed(self._holdings.pop(request_id).tables):
        self.block_pool.free_blocks(block for block in reversed(table.blocks) if block is not null)


def one_block_less(original: Mutant) -> Mutant:
    def mutant(self: KVCacheGroupConfig, **lengths: int) -> int:
        most_blocks: int = original(self, **lengths)
        return most_blocks - (self.kind == "sliding_window")

    return mutant


MUTANTS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "groups share their blocks": (HybridKVCacheManager, "_key", replace(one_key_for_all_groups)),
    "a window needs the whole prefix": (SlidingWindow, "find", windows_need_every_block),
    "a window is a block longer": (
        SlidingWindow,
        "num_hit_blocks",
        replace(property(the_window_is_one_block_longer)),
    ),
    "a token is not in its own window": (
        SlidingWindow,
        "num_skipped_tokens",
        replace(the_token_itself_is_not_in_the_window),
    ),
    "a beginning shorter than the window is no hit": (SlidingWindow, "find", a_beginning_is_no_hit),
    "hits of full attention end anywhere": (FullAttention, "find", hits_end_anywhere),
    "blocks between boundaries are cached": (
        SlidingWindow,
        "is_reachable",
        replace(every_block_is_worth_finding),
    ),
    "nothing leaves a window": (
        HybridKVCacheManager,
        "remove_skipped_blocks",
        replace(nothing_leaves_the_window),
    ),
    "blocks of steps in flight are freed": (HybridScheduler, "_make_room", freed_for_steps_in_flight_too),
    "blocks are freed after room is made": (
        HybridScheduler,
        "_make_room",
        replace(freed_after_the_room_is_made),
    ),
    "what leaves a window is freed head first": (
        HybridKVCacheManager,
        "remove_skipped_blocks",
        replace(what_leaves_is_freed_head_first),
    ),
    "a reservation is of the whole sequence": (
        HybridKVCacheManager,
        "can_reserve",
        whole_sequences_are_reserved,
    ),
    "the next chunk needs no room": (HybridKVCacheManager, "can_admit", the_next_chunk_is_not_asked_for),
    "the last group is freed first": (HybridKVCacheManager, "free", replace(the_last_group_is_freed_first)),
    "the reservation of a window is a block short": (
        KVCacheGroupConfig,
        "max_blocks",
        one_block_less,
    ),
}


def test_the_unchanged_rules_are_not_caught() -> None:
    assert not is_caught()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_is_caught(name: str) -> None:
    with changed(MUTANTS[name]):
        assert is_caught()
