"""A run that meets what the fast engine cannot do starts again, block by block, and says so."""

from collections.abc import Callable, Sequence

from concur.controllers import Law
from concur.sim.engine.request import Request
from concur.sim.errors import ScenarioError
from concur.sim.kv.segments import DuplicateBlockError
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import Workload

OnProgress = Callable[[int, int], None]
"""Called with (agents finished, agents in all)."""


def why_again(
    duplicate: DuplicateBlockError, call: Request, scenario: Scenario, workload: Workload, *, time_s: float
) -> str:
    """Say whose call asked at `time_s` for what the fast engine cannot do, and what that costs."""
    ids = {spec.index: spec.agent_id for spec in workload.agents}
    whose = f"agent {ids[call.agent_index]!r}" if call.agent_index in ids else "the tenant"
    if call.num_tokens == scenario.vllm.block_size * (duplicate.block_index + 1):
        why = "sent a prompt of whole blocks that was cached to its end, and its last block is computed again"
    else:
        why = "computed blocks of a shared prefix that another call was computing too"
        if threshold := scenario.vllm.long_prefill_token_threshold:
            why += f", as engine.long_prefill_token_threshold = {threshold} lets them"
    return (
        "simulated block by block from its start, with the same result but up to 50 times slower: at "
        f"{time_s:,.1f} s call {call.call_index} of {whose} {why}"
    )


def others(new_laws: Callable[[], Sequence[Law]], *, than: Sequence[Law]) -> list[Law]:
    """Return controllers that have not decided anything yet.

    Raises
    ------
    ScenarioError
        If the law gives an old one again, which remembers the run that was given up.
    """
    controllers = list(new_laws())
    if any(one is old for one in controllers for old in than):
        raise ScenarioError(
            "this run has to start again, but `law` returned the controller that has already decided in it; "
            "let it make a new one whenever it is called"
        )
    return controllers


def forward_only(on_progress: OnProgress) -> OnProgress:
    """Return progress that never goes back: a run that starts again is silent until it is further."""
    furthest = 0

    def advance(num_finished: int, num_agents: int) -> None:
        nonlocal furthest
        if num_finished > furthest:
            furthest = num_finished
            on_progress(num_finished, num_agents)

    return advance
