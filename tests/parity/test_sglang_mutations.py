"""The comparison with SGLang notices a wrong rule: each of these is changed, and has to be caught.

SGLang's steps are those of the unchanged corners, taken once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from concur.sim.engine.sglang.policy import SchedulePolicy
from concur.sim.engine.sglang.prefill_adder import PrefillAdder
from concur.sim.engine.sglang.ratio import NewTokenRatio
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.scheduler import Scheduler
from concur.sim.engine.sglang.slots import Slots
from concur.sim.kv.radix import Key, Node, RadixTree
from concur.validate.parity.sglang_parity import Step, first_difference, sglangs_steps
from concur.validate.parity.worlds import World
from tests.parity.mutating import changed
from tests.parity.sglang_scenarios import CORNERS, trace_world

pytestmark = pytest.mark.sglang
Mutant = Callable[..., Any]


@cache
def expected(name: str, is_overlapped: bool) -> tuple[World, list[Step]]:
    page_size = 1 if is_overlapped else 16
    if name in CORNERS:
        world = CORNERS[name](is_overlapped=is_overlapped, page_size=page_size)
    else:
        world = trace_world(name, "starved", is_overlapped=is_overlapped)
    return world, sglangs_steps(*world)[0]


def is_caught() -> bool:
    for name in (*CORNERS, "tau_airline"):
        for is_overlapped in (True, False):
            (scenario, workload), steps = expected(name, is_overlapped)
            try:
                if first_difference(scenario, workload, steps) is not None:
                    return True
            except AssertionError:  # the changed rule breaks an invariant
                return True
    return False


def retracted_to_the_front(original: Mutant) -> Mutant:
    def mutant(self: Scheduler, req: Req) -> None:
        original(self, req)
        self.waiting.insert(0, self.waiting.pop())

    return mutant


def only_prompts_are_cached(original: Mutant) -> Mutant:
    def mutant(self: Slots, req: Req, up_to: int) -> None:
        original(self, req, min(up_to, req.request.num_prompt_tokens))

    return mutant


def the_last_token_is_cached(original: Mutant) -> Mutant:
    def mutant(self: Slots, req: Req, up_to: int) -> None:
        original(self, req, min(up_to, req.request.num_tokens - 1))

    return mutant


def prompts_are_no_nodes(original: Mutant) -> Mutant:
    def mutant(self: RadixTree, key: Key, *, owned_from: int, counted_from: int) -> Node | None:
        ends_at_prompt = owned_from and sum(end - first for _, first, end in key) == owned_from
        node: Node | None = None
        if not ends_at_prompt:
            node = original(self, key, owned_from=owned_from, counted_from=counted_from)
        return node

    return mutant


def a_split_leaves_the_suffix_old(original: Mutant) -> Mutant:
    def mutant(self: RadixTree, node: Node, num_tokens: int) -> Node:
        last_access = node.last_access
        parent: Node = original(self, node, num_tokens)
        node.last_access = last_access
        return parent

    return mutant


def a_match_refreshes_nothing(self: RadixTree, node: Node) -> None:
    self._next_tick()


def the_most_recent_goes_first(original: Mutant) -> Mutant:
    def mutant(self: RadixTree, num_tokens: int) -> None:
        while self.available_tokens < num_tokens and self._leaves:
            self._evict(max(self._leaves, key=lambda node: node.last_access))

    return mutant


def duplicates_are_kept(original: Mutant) -> Mutant:
    def mutant(self: RadixTree, key: Key, *, owned_from: int, counted_from: int) -> Node:
        available = self.available_tokens
        node: Node = original(self, key, owned_from=owned_from, counted_from=counted_from)
        self.available_tokens = min(available, self.available_tokens)
        return node

    return mutant


def nothing(self: Any, *arguments: Any) -> None:
    return None


def nobody_finishes_in_flight(self: Scheduler) -> set[Req]:
    return set()


def no_page_per_request(original: Mutant) -> Mutant:
    def mutant(self: PrefillAdder, req: Req, num_new_tokens: int) -> None:
        original(self, req, num_new_tokens)
        self._expected_tokens -= self._page_size

    return mutant


def all_is_expected(original: Mutant) -> Mutant:
    def mutant(self: PrefillAdder, *arguments: Any, new_token_ratio: float, num_mixed: int) -> None:
        original(self, *arguments, new_token_ratio=1.0, num_mixed=num_mixed)

    return mutant


def decodes_do_not_join(self: Scheduler, output: Any) -> None:
    return None


def the_longest_match_is_all(original: Mutant) -> Mutant:
    def mutant(self: SchedulePolicy, waiting: list[Req]) -> None:
        before = list(waiting)
        original(self, waiting)
        waiting[:] = sorted(before, key=lambda req: -req.num_matched_tokens)

    return mutant


def every_pass_refreshes(original: Mutant) -> Mutant:
    def mutant(self: SchedulePolicy, waiting: list[Req]) -> None:
        self._num_passes = 0
        original(self, waiting)

    return mutant


MUTANTS: dict[str, tuple[type, str, Callable[[Mutant], Mutant]]] = {
    "who is retracted goes first": (Scheduler, "_requeue", retracted_to_the_front),
    "answers are not cached": (Slots, "checkpoint", only_prompts_are_cached),
    "an early end has no last token": (Slots, "checkpoint", the_last_token_is_cached),
    "a prompt is no node of its own": (RadixTree, "insert", prompts_are_no_nodes),
    "a split leaves the suffix old": (RadixTree, "_split", a_split_leaves_the_suffix_old),
    "a match refreshes nothing": (RadixTree, "_refresh_path", lambda _: a_match_refreshes_nothing),
    "the most recent is evicted first": (RadixTree, "make_room", the_most_recent_goes_first),
    "duplicates are kept": (RadixTree, "insert", duplicates_are_kept),
    "the estimate does not fall": (NewTokenRatio, "decay_step", lambda _: nothing),
    "the estimate outlives idleness": (NewTokenRatio, "reset", lambda _: nothing),
    "ends are not foreseen": (Scheduler, "_finishing_in_flight", lambda _: nobody_finishes_in_flight),
    "a request costs no page": (PrefillAdder, "_charge", no_page_per_request),
    "all that may be written is expected": (PrefillAdder, "__init__", all_is_expected),
    "decodes do not join": (Scheduler, "_mix_in", lambda _: decodes_do_not_join),
    "who begins alike is tried together": (
        SchedulePolicy,
        "_sort_by_longest_prefix",
        the_longest_match_is_all,
    ),
    "every pass refreshes the queue": (SchedulePolicy, "_refresh", every_pass_refreshes),
}


def test_the_unchanged_rules_are_not_caught() -> None:
    assert not is_caught()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_is_caught(name: str) -> None:
    with changed(MUTANTS[name]):
        assert is_caught()
