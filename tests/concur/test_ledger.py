"""Whose history is counted: holders, lenders, and everyone's calls."""

from dataclasses import replace

from concur.controllers import make_controller
from concur.gate import AgentGate
from concur.measures.residents import read_ledger
from tests.helpers import make_snapshot


def family() -> AgentGate:
    """A parent of 4,000 tokens, its child of 1,000 in two calls in its slot, and a stranger outside."""
    gate = AgentGate(1)
    gate.arrive("p", time_s=0.0)
    gate.request_step("p", time_s=0.0)
    gate.step_done("p", time_s=1.0, context_tokens=4000)
    gate.arrive("c", time_s=1.0, parent="p")
    gate.request_step("c", time_s=1.0)
    gate.step_done("c", time_s=2.0, context_tokens=1000)
    for _ in range(2):
        gate.request_step("c", time_s=3.0)
    gate.arrive("stranger", time_s=3.0)
    gate.request_step("stranger", time_s=3.0)
    return gate


def test_a_lender_holds_no_slot_and_keeps_its_history() -> None:
    ledger = read_ledger(family().views(), block_size=16)
    assert (ledger.num_agents, ledger.num_in_step, ledger.num_calls) == (1, 1, 2)
    assert ledger.private_tokens == 4000 + 1000 + 2 * 8
    assert ledger.in_step_tokens == 1000 + 8


def test_the_ledger_law_counts_what_families_hold_and_lets_no_lender_in_again() -> None:
    law = make_controller("ledger", buffer_tokens=0)
    snapshot = make_snapshot(
        5.0, agents=tuple(family().views()), num_gpu_blocks=1000, block_size=16, generation_tokens=1
    )
    assert law.update(snapshot, active=1) == 2, "the slot there is, and one for the stranger"
    assert law.log_state()["used_tokens"] == 5000
    tight = replace(snapshot, time_s=6.0, num_gpu_blocks=300, generation_tokens=2)
    assert law.update(tight, active=1) == 1, "5,000 tokens are over 4,800"
