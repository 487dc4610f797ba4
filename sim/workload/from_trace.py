"""Turn recorded agents into the agents of a run: pick, fit, fill in what was not recorded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from concur.sim.traces.format import TraceAgent
from concur.sim.workload.losses import Limits, Losses
from concur.sim.workload.spec import AgentSpec, StepSpec


@dataclass(frozen=True, slots=True)
class TraceSelection(Limits):
    """Which agents of a trace take part, and what stands where the recording is silent.

    `num_agents = 0` takes all. Waits of people (`user_wait_s`) are left out: a batch has no people in it.
    """

    num_agents: int = 0


def select_agents(trace: Iterable[TraceAgent], selection: TraceSelection) -> tuple[list[AgentSpec], Losses]:
    """Return the first `num_agents` eligible agents in file order, and what was lost of the trace so far."""
    agents: list[AgentSpec] = []
    losses = Losses()
    for recorded in trace:
        if selection.num_agents and len(agents) == selection.num_agents:
            break
        if selection.fresh_only and not recorded.fresh_start:
            losses = replace(losses, num_not_fresh=losses.num_not_fresh + 1)
            continue
        agent = _agent(recorded, len(agents), selection)
        limit = selection.max_context_tokens
        if limit is not None and agent.peak_context_tokens > limit:
            losses = replace(losses, num_too_long=losses.num_too_long + 1)
            continue
        agents.append(agent)
        losses = _with_losses_of(recorded, losses, selection)
    return agents, losses


def _with_losses_of(recorded: TraceAgent, losses: Losses, selection: TraceSelection) -> Losses:
    """Add what is lost of an agent that takes part; nobody sits through a wait after its last step."""
    steps = recorded.steps[:-1]
    longest_s = selection.max_tool_latency_s
    waits_s = [step.tool_latency_s for step in steps if step.tool_latency_s is not None]
    cuts_s = [wait_s - longest_s for wait_s in waits_s if wait_s > longest_s]
    user_waits_s = [step.user_wait_s for step in steps if step.user_wait_s]
    return replace(
        losses,
        num_parents=losses.num_parents + (recorded.parent is not None),
        num_cut_waits=losses.num_cut_waits + len(cuts_s),
        cut_s=losses.cut_s + sum(cuts_s),
        num_default_waits=losses.num_default_waits + len(steps) - len(waits_s),
        num_user_waits=losses.num_user_waits + len(user_waits_s),
        user_wait_s=losses.user_wait_s + sum(user_waits_s),
    )


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
