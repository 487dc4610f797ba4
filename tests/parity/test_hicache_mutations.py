"""The comparison with SGLang's HiCache notices a wrong rule: each of these is changed, and has to be caught.

SGLang's steps are those of the unchanged corners, taken once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest

from concur.sim.engine.sglang.hicache_core import HiCacheCore
from concur.sim.engine.sglang.prefill_adder import PrefillAdder
from concur.sim.engine.sglang.req import Req
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.kv import hiradix
from concur.sim.kv.hiradix import HiRadixTree
from concur.sim.kv.radix import Key, Node
from concur.validate.parity.sglang_parity import Step, first_difference, sglangs_steps
from concur.validate.parity.worlds import World
from tests.parity.hicache_scenarios import HICACHE_CORNERS, POLICIES, SLOW
from tests.parity.mutating import changed

pytestmark = pytest.mark.sglang
Mutant = Callable[..., Any]


@cache
def expected(name: str, policy: str) -> tuple[World, list[Step]]:
    is_overlapped = policy != "write_through_selective"
    world = HICACHE_CORNERS[name](
        is_overlapped=is_overlapped,
        page_size=1 if is_overlapped else 16,
        hicache_write_policy=policy,
        bandwidth_bytes_per_s=SLOW,
    )
    return world, sglangs_steps(*world)[0]


def is_caught() -> bool:
    for name in HICACHE_CORNERS:
        for policy in POLICIES:
            (scenario, workload), steps = expected(name, policy)
            try:
                if first_difference(scenario, workload, steps) is not None:
                    return True
            except (AssertionError, KeyError):  # the changed rule breaks an invariant
                return True
    return False


def every_insert_counts(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, key: Key, *, owned_from: int, counted_from: int) -> Node:
        node: Node = original(self, key, owned_from=owned_from, counted_from=0)
        return node

    return mutant


def ancestors_are_left_out(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, node: Node) -> None:
        if self._reserve(node):
            self.lock(node)
            self._writes.ask(node, node.num_tokens)

    return mutant


def what_is_backed_up_is_deleted(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, node: Node) -> Node:
        if node in self._backed_up and not node.children:
            self._backed_up.remove(node)
            self.host_available_tokens += node.num_tokens
        parent: Node = original(self, node)
        return parent

    return mutant


def the_host_gives_up_the_most_recent(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, num_tokens: int) -> int:
        freed = self._give_up_twins(num_tokens) if self._is_write_back else 0
        while freed < num_tokens and self._host_leaves:
            node = max(self._host_leaves, key=lambda each: each.last_access)
            freed += node.num_tokens
            self._forget([node])
        return freed

    return mutant


def twins_are_kept(self: HiRadixTree, num_tokens: int) -> int:
    return 0


def a_load_takes_what_fits(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, node: Node) -> bool:
        while node.parent in self._away and node.num_tokens < 40:
            node = node.parent
        is_coming: bool = original(self, node)
        return is_coming

    return mutant


def hosts_hits_are_computed(original: Mutant) -> Mutant:
    def mutant(self: PrefillAdder, req: Req, away_tokens: int) -> Any:
        return self._select(req, 0)

    return mutant


def what_is_away_does_not_come_back(original: Mutant) -> Mutant:
    def mutant(self: HiRadixTree, node: Node) -> None:
        self.available_tokens += node.num_tokens

    return mutant


def transfers_run_at_once(original: Mutant) -> Mutant:
    def mutant(self: HostTransfers, link: Any, num_tokens: int) -> float:
        return self.time_s

    return mutant


def nothing_waits_for_what_computes(original: Mutant) -> Mutant:
    def mutant(self: HostTransfers, *, time_s: float, computed_s: float) -> None:
        original(self, time_s=time_s, computed_s=0.0)

    return mutant


def nobody_waits(self: HostTransfers, time_s: float) -> None:
    return None


def it_rests_with_transfers(self: HiCacheCore) -> bool:
    return self._scheduler.has_unfinished_requests()


MUTANTS: dict[str, tuple[type, str, Callable[[Mutant], Mutant]]] = {
    "every insert is a hit": (HiRadixTree, "insert", every_insert_counts),
    "ancestors are not backed up": (HiRadixTree, "_back_up_path", ancestors_are_left_out),
    "what is backed up is deleted": (HiRadixTree, "_evict", what_is_backed_up_is_deleted),
    "the most recent leaves the host": (
        HiRadixTree,
        "_make_host_room",
        the_host_gives_up_the_most_recent,
    ),
    "copies of what is in the pool stay": (HiRadixTree, "_give_up_twins", lambda _: twins_are_kept),
    "a part is loaded": (HiRadixTree, "load_back", a_load_takes_what_fits),
    "nothing is loaded": (PrefillAdder, "_load_back", hosts_hits_are_computed),
    "nothing comes back with an insert": (HiRadixTree, "_come_back", what_is_away_does_not_come_back),
    "transfers take no time": (HostTransfers, "_submit", transfers_run_at_once),
    "transfers do not wait for batches": (HostTransfers, "go_on", nothing_waits_for_what_computes),
    "nobody waits for a copy": (HostTransfers, "wait_until", lambda _: nobody_waits),
    "the engine rests with transfers": (HiCacheCore, "_has_work", lambda _: it_rests_with_transfers),
}


def test_the_unchanged_rules_are_not_caught() -> None:
    assert not is_caught()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_is_caught(name: str) -> None:
    with changed(MUTANTS[name]):
        assert is_caught()


def test_a_changed_threshold_is_caught() -> None:
    with patch.object(hiradix, "LOAD_BACK_THRESHOLD_TOKENS", 1):
        assert is_caught()
