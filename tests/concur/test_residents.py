"""What the gate counts of groups within groups and of forks: each token once."""

from concur.gate import AgentGate
from concur.measures.residents import prefix_tokens, private_tokens, read_ledger
from concur.signals import Prefix

SYSTEM = Prefix("system", 600)


def admitted(*agents: dict[str, object]) -> AgentGate:
    gate = AgentGate(len(agents))
    for number, agent in enumerate(agents):
        agent_id = f"a{number}"
        gate.arrive(agent_id, time_s=0.0, **agent)  # type: ignore[arg-type]
        gate.request_step(agent_id, time_s=0.0)
        gate.step_done(agent_id, time_s=1.0, context_tokens=2000)
    return gate


def test_a_prefix_of_all_counts_once_beside_those_of_groups() -> None:
    nested = {"shared_prefix_tokens": 1000, "outer_prefixes": (SYSTEM,)}
    gate = admitted(
        {"prefix_group": "t0"} | nested, {"prefix_group": "t0"} | nested, {"prefix_group": "t1"} | nested
    )
    ledger = read_ledger(gate.views(), block_size=16)
    assert ledger.shared_tokens == 600 + 400 + 400
    assert ledger.private_tokens == 3 * (1000 + 8)


def test_what_a_fork_shares_counts_with_its_parent() -> None:
    fork = {"parent": "a0", "fork": Prefix("a0", 1500)}
    gate = admitted({}, fork, fork)
    views = list(gate.views())
    assert [prefix_tokens(view) for view in views] == [0, 1500, 1500]
    assert [private_tokens(view) for view in views] == [2000, 500, 500]
    ledger = read_ledger(views, block_size=16)
    assert ledger.shared_tokens == 0
    assert ledger.private_tokens == 3000 + 3 * 8


def test_forks_of_a_parent_that_has_left_keep_its_history_once() -> None:
    fork = {"parent": "a0", "fork": Prefix("a0", 1500)}
    gate = admitted({}, fork, {"parent": "a0", "fork": Prefix("a0", 900)})
    gate.leave("a0", time_s=2.0)
    ledger = read_ledger(gate.views(), block_size=16)
    assert ledger.shared_tokens == 1500
    assert ledger.private_tokens == 500 + 1100 + 2 * 8
