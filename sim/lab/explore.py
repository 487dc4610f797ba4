"""A small batch, simulated again at every turn of a knob; for the notebooks' explorer.

Pool and tier are shares of what all agents hold at their longest, so that a knob means the same at every
number of agents: below 1 the pool overflows without control. The batch is small, blocks are of 64 tokens and
caps are few, around what the pool holds, so that a turn takes under a second (with a tier, which is simulated
block by block, four); what was simulated before is kept. A number to rely on is one of `concur compare`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from concur.errors import require
from concur.sim.errors import ScenarioError
from concur.sim.lab.advise import demand_of
from concur.sim.record.record import RunRecord
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, parse_scenario, read_scenario
from concur.sim.workload.spec import Workload
from concur.sim.world.simulate import simulate

Engine = Literal["vLLM", "SGLang"]
BLOCK_TOKENS: Final = 64
_CAPS_OVER_POOL: Final = (1.25, 1.5, 1.75, 2.25)
"""Caps over the agents whose longest histories fill the pool: the knee is among them, as most are shorter."""
_KEPT: Final = 128  # runs of a batch this small are a few MB each at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What can be turned; pool and tier are shares of all histories at their longest."""

    agents: int = 40
    pool_frac: float = 0.4
    tier_frac: float = 0.0
    tool_s: float = 1.0
    engine: Engine = "vLLM"

    def __post_init__(self) -> None:
        require(2 <= self.agents <= 256, "agents", self.agents, "2 to 256, for it has to be quick")
        require(0.1 <= self.pool_frac <= 4, "pool_frac", self.pool_frac, "0.1 to 4")
        require(0 <= self.tier_frac <= 4, "tier_frac", self.tier_frac, "0 (no tier) to 4")
        require(0 < self.tool_s <= 1000, "tool_s", self.tool_s, "above 0, at most 1000 s")
        if self.engine == "SGLang" and self.tier_frac:
            raise ScenarioError(
                f"tier_frac = {self.tier_frac} but the explorer has no tier for SGLang; set it to 0, or "
                "take vLLM"
            )


class Explorer:
    """The batch of a scenario of `generator = "react"`, small; a policy on it beside no control and caps."""

    def __init__(self, scenario: Path) -> None:
        self._path = scenario
        self._world = lru_cache(_KEPT)(self._built)
        self._run = lru_cache(_KEPT)(self._simulated)

    def runs(self, policy: str, knobs: Knobs) -> list[RunRecord]:
        """Return no control, a few static caps, and last the policy (as `--controllers` takes it).

        Raises
        ------
        ConcurError
            If the policy is none, or the knobs make no scenario.
        """
        texts = ["none", *(f"agent_cap={cap}" for cap in _caps(knobs))]
        others = [text for text in texts if text != policy]
        return [self._run(text, knobs) for text in [*others, policy]]

    def _simulated(self, policy: str, knobs: Knobs) -> RunRecord:
        scenario, workload = self._world(knobs)
        (controller,) = scenario.policies(policy)
        return simulate(scenario.with_controller(controller), workload)

    def _built(self, knobs: Knobs) -> tuple[Scenario, Workload]:
        drawn = [f"workload.num_agents={knobs.agents}", f"workload.tool_latency_median_s={knobs.tool_s}"]
        raw = read_scenario(self._path, drawn)
        workload = build_workload(parse_scenario(raw))
        needed_tokens = demand_of(workload, pool_tokens=1).peak_tokens
        longest_tokens = max(agent.peak_context_tokens for agent in workload.agents)
        raw["engine"] = _engine(knobs, needed_tokens, longest_tokens)
        return parse_scenario(raw), workload


def _caps(knobs: Knobs) -> Sequence[int]:
    fitting = knobs.pool_frac * knobs.agents
    return sorted({min(max(1, round(times * fitting)), knobs.agents) for times in _CAPS_OVER_POOL})


def _engine(knobs: Knobs, needed_tokens: int, longest_tokens: int) -> dict[str, Any]:
    """Return `[engine]`; its pool holds the longest history at the least, or no run would come to its end."""
    length = BLOCK_TOKENS * (longest_tokens // BLOCK_TOKENS + 2)
    pool_tokens = max(round(knobs.pool_frac * needed_tokens), length)
    if knobs.engine == "SGLang":
        return {"kind": "sglang", "max_total_num_tokens": pool_tokens, "context_length": length}
    tier_tokens = round(knobs.tier_frac * needed_tokens)
    tier = {"host_cache": {"capacity_tokens": tier_tokens}} if tier_tokens else {}
    blocks = 1 + pool_tokens // BLOCK_TOKENS
    return {"block_size": BLOCK_TOKENS, "num_gpu_blocks": blocks, "max_model_len": length} | tier
