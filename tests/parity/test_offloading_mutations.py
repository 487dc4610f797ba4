"""Mutation proof of the host tier: each deliberate change of a rule is caught by the parity suite."""

from collections.abc import Callable
from typing import Any

import pytest

from concur.sim.engine.offload.connector import OffloadingConnector
from concur.sim.engine.offload.scheduler import ConnectedScheduler
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.kv.eviction import LRUCachePolicy
from concur.sim.kv.offload_manager import LookupResult, OffloadingManager
from concur.validate.parity.worlds import World, offloading_worlds
from tests.parity.mutating import Mutant, changed, is_caught_on, replace
from tests.parity.scenarios import CORNERS, TRACE_CASES, corner, offloading, shortened, twins_world

pytestmark = pytest.mark.vllm


def known_worlds() -> list[World]:
    """Short ones first: most mutants are caught by one of them."""
    made = []
    for is_async in (False, True):
        made += [shortened(case, is_async=is_async) for case in (TRACE_CASES[2], TRACE_CASES[4])]
        made += [corner(name, is_async=is_async) for name in CORNERS]
    tiers = (0.5, 10.0)
    twins = [twins_world(is_async=is_async) for is_async in (False, True)]
    return [offloading(world, tier=2.0, bandwidth_bytes_per_s=1e8) for world in twins] + [
        offloading(world, tier=tier, bandwidth_bytes_per_s=2e9) for world in made for tier in tiers
    ]


def is_caught() -> bool:
    return is_caught_on(known_worlds(), num_worlds=150, drawn_from=offloading_worlds)


def head_is_given_up_first(self: LRUCachePolicy, keys: Any, access: Any) -> None:
    for key in keys:
        if key in self._chunks:
            self._chunks.move_to_end(key)


def no_new_rank_at_the_end(self: LRUCachePolicy, keys: Any, access: Any) -> None:
    return None


def a_look_up_refreshes(original: Mutant) -> Mutant:
    def mutant(self: OffloadingManager, key: Any) -> LookupResult:
        found: LookupResult = original(self, key)
        if found is LookupResult.HIT and isinstance(self.policy, LRUCachePolicy):
            self.policy._chunks.move_to_end(key)
        return found

    return mutant


def pending_chunks_are_missing(original: Mutant) -> Mutant:
    def mutant(self: OffloadingManager, key: Any) -> LookupResult:
        found: LookupResult = original(self, key)
        return LookupResult.MISS if found is LookupResult.HIT_PENDING else found

    return mutant


def loads_are_not_shared(original: Mutant) -> Mutant:
    def mutant(self: OffloadingConnector, request: Request, num_computed_tokens: int) -> int | None:
        self._chunks_being_loaded.clear()
        found: int | None = original(self, request, num_computed_tokens)
        return found

    return mutant


def own_transfers_do_not_defer(original: Mutant) -> Mutant:
    def mutant(self: OffloadingConnector, request: Request, num_computed_tokens: int) -> int | None:
        state = self._states[request.request_id]
        held, state.transfer_jobs = state.transfer_jobs, set()
        found: int | None = original(self, request, num_computed_tokens)
        state.transfer_jobs = held
        return found

    return mutant


def store_what_fits(original: Mutant) -> Mutant:
    def mutant(self: OffloadingManager, keys: Any, access: Any) -> Any:
        found = original(self, keys, access)
        return found if found is not None else original(self, keys[:1], access)

    return mutant


def no_fences(self: OffloadingConnector, job_id: int, block_ids: Any) -> None:
    return None


def no_flush_of_preempted(original: Mutant) -> Mutant:
    def mutant(self: OffloadingConnector, output: Any) -> None:
        preempted, output.preempted = output.preempted, []
        original(self, output)
        output.preempted = preempted

    return mutant


def offers_begin_behind_pool_hits(original: Mutant) -> Mutant:
    def mutant(self: OffloadingConnector, request: Request, num_computed_tokens: int) -> int | None:
        state = self._states[request.request_id]
        found: int | None = original(self, request, num_computed_tokens)
        state.next_stored_chunk_idx = max(
            state.next_stored_chunk_idx, num_computed_tokens // self._tokens_per_chunk
        )
        return found

    return mutant


def preemption_begins_anew(original: Mutant) -> Mutant:
    def mutant(self: ConnectedScheduler, request: Request) -> None:
        original(self, request)
        assert isinstance(self.connector, OffloadingConnector)
        self.connector._states[request.request_id].next_stored_chunk_idx = 0

    return mutant


def whole_prompts_are_not_found(original: Mutant) -> Mutant:
    def mutant(self: OffloadingConnector, request: Request, num_computed_tokens: int) -> int | None:
        found: int | None = original(self, request, num_computed_tokens)
        if found and num_computed_tokens + found == request.num_tokens:
            return found - self._tokens_per_chunk
        return found

    return mutant


def loaded_requests_need_no_room(self: Any, request: Request, budget: int, threshold: int) -> bool:
    return True


def no_reservation_for_loads(self: ConnectedScheduler) -> int:
    return 0


def deferred_requests_block(original: Mutant) -> Mutant:
    def mutant(self: ConnectedScheduler, request: Request, budget: int, threshold: int) -> bool | None:
        fits: bool | None = original(self, request, budget, threshold)
        is_deferred = fits is None and request.num_computed_tokens == 0
        return False if is_deferred else fits

    return mutant


def preempt_who_is_in_flight(self: ConnectedScheduler, victim: Request, output: SchedulerOutput) -> bool:
    return True


MUTANTS: dict[str, tuple[Any, str, Callable[[Mutant], Mutant]]] = {
    "a prefix is given up from its head": (
        LRUCachePolicy,
        "on_request_finished",
        replace(head_is_given_up_first),
    ),
    "a request's end ranks nothing": (LRUCachePolicy, "on_request_finished", replace(no_new_rank_at_the_end)),
    "a look-up refreshes": (OffloadingManager, "lookup", a_look_up_refreshes),
    "what is being written is a miss": (OffloadingManager, "lookup", pending_chunks_are_missing),
    "two requests load the same": (OffloadingConnector, "get_num_new_matched_tokens", loads_are_not_shared),
    "own transfers do not matter": (
        OffloadingConnector,
        "get_num_new_matched_tokens",
        own_transfers_do_not_defer,
    ),
    "an offer is cut to what fits": (OffloadingManager, "prepare_store", store_what_fits),
    "blocks of stores are not watched": (OffloadingConnector, "_fence", replace(no_fences)),
    "a preempted request's stores go on": (
        OffloadingConnector,
        "build_connector_meta",
        no_flush_of_preempted,
    ),
    "offers begin behind the pool's hits": (
        OffloadingConnector,
        "get_num_new_matched_tokens",
        offers_begin_behind_pool_hits,
    ),
    "a preemption begins the offers anew": (ConnectedScheduler, "_preempt", preemption_begins_anew),
    "the last chunk of a prompt is not found": (
        OffloadingConnector,
        "get_num_new_matched_tokens",
        whole_prompts_are_not_found,
    ),
    "a loaded request needs no room": (
        ConnectedScheduler,
        "_can_start_loaded",
        replace(loaded_requests_need_no_room),
    ),
    "loads reserve nothing": (ConnectedScheduler, "_reserved_blocks", replace(no_reservation_for_loads)),
    "a deferred request blocks those behind it": (ConnectedScheduler, "_try", deferred_requests_block),
    "who is in flight is preempted": (ConnectedScheduler, "_may_preempt", replace(preempt_who_is_in_flight)),
}


def test_the_unchanged_tier_is_not_caught() -> None:
    assert not is_caught()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_is_caught(name: str) -> None:
    with changed(MUTANTS[name]):
        assert is_caught()
