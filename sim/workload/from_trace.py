"""Turn recorded agents into the agents of a run: pick, fit, fill in what was not recorded."""

from collections.abc import Iterable
from dataclasses import dataclass

from sim.workload.spec import AgentSpec, StepSpec
from sim.workload.trace import TraceAgent


@dataclass(frozen=True, slots=True)
class TraceSelection:
    """Which agents of a trace take part, and what stands where the recording is silent.

    `num_agents = 0` takes all. Waits of people (`user_wait_s`) are left out: a batch has no people in it.
    """

    num_agents: int = 0
    fresh_only: bool = True
    max_context_tokens: int | None = None
    max_tool_latency_s: float = 60.0
    default_tool_latency_s: float = 1.0


def select_agents(trace: Iterable[TraceAgent], selection: TraceSelection) -> tuple[list[AgentSpec], int]:
    """Return the first `num_agents` eligible agents in file order, and how many were too long to fit."""
    agents: list[AgentSpec] = []
    num_skipped = 0
    for recorded in trace:
        if selection.num_agents and len(agents) == selection.num_agents:
            break
        if selection.fresh_only and not recorded.fresh_start:
            continue
        agent = _agent(recorded, len(agents), selection)
        limit = selection.max_context_tokens
        if limit is not None and agent.peak_context_tokens > limit:
            num_skipped += 1
            continue
        agents.append(agent)
    return agents, num_skipped


def _agent(recorded: TraceAgent, index: int, selection: TraceSelection) -> AgentSpec:
    steps: list[StepSpec] = []
    history = recorded.shared_prefix_tokens
    for raw in recorded.steps:
        wait_s = selection.default_tool_latency_s if raw.tool_latency_s is None else raw.tool_latency_s
        step = StepSpec(
            kept_tokens=history if raw.kept_tokens is None else raw.kept_tokens,
            new_prompt_tokens=raw.new_prompt_tokens,
            output_tokens=raw.output_tokens,
            tool_latency_s=min(wait_s, selection.max_tool_latency_s),
        )
        history = step.context_tokens
        steps.append(step)
    return AgentSpec(
        agent_id=recorded.agent_id,
        index=index,
        prefix_group=recorded.prefix_group,
        shared_prefix_tokens=recorded.shared_prefix_tokens,
        arrival_s=0.0,
        steps=tuple(steps),
    )
