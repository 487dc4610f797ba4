"""Turn recorded agents into the agents of a run: pick, fit, fill in what was not recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from concur.signals import Prefix
from concur.sim.traces.format import TraceAgent, TraceStep
from concur.sim.workload.losses import Limits, Losses
from concur.sim.workload.spec import AgentSpec, StepSpec


@dataclass(frozen=True, slots=True)
class TraceSelection(Limits):
    """Which agents of a trace take part, and what stands where the recording is silent.

    `num_agents` = 0 takes all, else it counts those that arrive by themselves. Waits of people
    (`user_wait_s`) are left out unless asked for: a batch has no people in it. `max_new_tokens` = 0: the
    output itself.
    """

    num_agents: int = 0
    max_new_tokens: int = 0
    keeps_user_waits: bool = False
    keeps_sub_agents: bool = True
    keeps_arrivals: bool = False


def select_agents(trace: Sequence[TraceAgent], selection: TraceSelection) -> tuple[list[AgentSpec], Losses]:
    """Return the first `num_agents` eligible agents in file order with their sub-agents, and what was lost.

    Agents beyond those are not looked at: a part of the trace was asked for.
    """
    agents: list[AgentSpec] = []
    losses = Losses()
    fates: dict[str, bool] = {}  # by id: whether it takes part
    num_roots = 0
    for recorded in _parents_first(trace):
        if recorded.is_spawned:
            if recorded.parent not in fates:
                continue  # of a tree that was not asked for
            if not fates[recorded.parent]:
                fates[recorded.agent_id] = False
                losses = replace(losses, num_orphans=losses.num_orphans + 1)
                continue
        elif selection.num_agents and num_roots == selection.num_agents:
            continue
        agent = _agent(recorded, len(agents), selection)
        losses, takes_part = _eligible(recorded, agent, losses, selection)
        fates[recorded.agent_id] = takes_part
        if takes_part:
            agents.append(agent)
            num_roots += not recorded.is_spawned
            losses = _with_losses_of(recorded, losses, selection)
    return agents, losses


def _parents_first(trace: Sequence[TraceAgent]) -> list[TraceAgent]:
    """Return each tree together, where its root is in the file, every agent before its children."""
    children: dict[str, list[TraceAgent]] = {}
    for agent in trace:
        if agent.is_spawned and agent.parent is not None:
            children.setdefault(agent.parent, []).append(agent)
    ordered: list[TraceAgent] = []
    stack = [agent for agent in reversed(trace) if not agent.is_spawned]
    while stack:
        agent = stack.pop()
        ordered.append(agent)
        stack += reversed(children.get(agent.agent_id, []))
    return ordered


def _eligible(
    recorded: TraceAgent, agent: AgentSpec, losses: Losses, selection: TraceSelection
) -> tuple[Losses, bool]:
    """Tell whether an agent takes part, and count it if not."""
    if recorded.is_spawned and not selection.keeps_sub_agents:
        return replace(losses, num_sub_agents=losses.num_sub_agents + 1), False
    if selection.fresh_only and not recorded.fresh_start:
        return replace(losses, num_not_fresh=losses.num_not_fresh + 1), False
    limit = selection.max_context_tokens
    if limit is not None and agent.peak_context_tokens > limit:
        return replace(losses, num_too_long=losses.num_too_long + 1), False
    return losses, True


def _with_losses_of(recorded: TraceAgent, losses: Losses, selection: TraceSelection) -> Losses:
    """Add what is lost of an agent that takes part; nobody sits through a wait after its last step."""
    steps = recorded.steps[:-1]
    longest_s = selection.max_tool_latency_s
    waits_s = [step.tool_latency_s for step in steps if step.tool_latency_s is not None]
    cuts_s = [wait_s - longest_s for wait_s in waits_s if wait_s > longest_s]
    user_waits_s = [step.user_wait_s for step in steps if step.user_wait_s]
    if selection.keeps_user_waits:
        user_waits_s = []
    return replace(
        losses,
        num_parents=losses.num_parents + (recorded.parent is not None and not recorded.is_spawned),
        num_arrivals=losses.num_arrivals + (bool(recorded.arrival_s) and not selection.keeps_arrivals),
        num_cut_waits=losses.num_cut_waits + len(cuts_s),
        cut_s=losses.cut_s + sum(cuts_s),
        num_default_waits=losses.num_default_waits + len(steps) - len(waits_s),
        num_user_waits=losses.num_user_waits + len(user_waits_s),
        user_wait_s=losses.user_wait_s + sum(user_waits_s),
    )


def _agent(recorded: TraceAgent, index: int, selection: TraceSelection) -> AgentSpec:
    steps: list[StepSpec] = []
    history = recorded.starting_tokens
    for raw in recorded.steps:
        step = StepSpec(
            kept_tokens=history if raw.kept_tokens is None else raw.kept_tokens,
            new_prompt_tokens=raw.new_prompt_tokens,
            output_tokens=raw.output_tokens,
            tool_latency_s=_wait_s(raw, selection),
            max_new_tokens=_max_new_tokens(raw, selection),
        )
        history = step.context_tokens
        steps.append(step)
    *outer, own = recorded.levels or (None,)
    return AgentSpec(
        agent_id=recorded.agent_id,
        index=index,
        prefix_group=own.group if own is not None else recorded.prefix_group,
        shared_prefix_tokens=recorded.starting_tokens - recorded.fork_tokens,
        arrival_s=(recorded.arrival_s or 0.0) if selection.keeps_arrivals else 0.0,
        steps=tuple(steps),
        outer_prefixes=tuple(Prefix(level.group, level.tokens) for level in outer if level is not None),
        parent=recorded.parent if recorded.is_spawned else None,
        parent_step=recorded.parent_step,
        spawn_delay_s=recorded.spawn_delay_s,
        joins=recorded.joins,
        fork_tokens=recorded.fork_tokens,
        priority=recorded.priority,
    )


def _wait_s(step: TraceStep, selection: TraceSelection) -> float:
    recorded_s = step.tool_latency_s
    wait_s = selection.default_tool_latency_s if recorded_s is None else recorded_s
    user_wait_s = step.user_wait_s if selection.keeps_user_waits else None
    return min(wait_s, selection.max_tool_latency_s) + (user_wait_s or 0.0)


def _max_new_tokens(step: TraceStep, selection: TraceSelection) -> int | None:
    if step.max_new_tokens is not None or not selection.max_new_tokens:
        return step.max_new_tokens
    return max(selection.max_new_tokens, step.output_tokens)
