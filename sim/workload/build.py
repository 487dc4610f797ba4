"""From `[workload]` to the agents of a run, the same ones under every controller."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from concur.sim.errors import ScenarioError
from concur.sim.importers.foreign import read_own_trace
from concur.sim.traces.format import TraceAgent
from concur.sim.traces.trace import trace_sha256
from concur.sim.workload.config import Arrival, ClosedArrival, PoissonArrival, WorkloadConfig
from concur.sim.workload.from_trace import TraceSelection, select_agents
from concur.sim.workload.generators import GENERATORS, generate_agents, poisson_arrivals_s
from concur.sim.workload.losses import Limits, Losses, agents_left_out, loss_lines
from concur.sim.workload.spec import AgentSpec, ClosedLoop, StepSpec, Workload


def build(config: WorkloadConfig, seed: int) -> Workload:
    """Return the agents of `[workload]`.

    Raises
    ------
    TraceError
        If the trace breaks the format.
    ScenarioError
        If no agent is eligible, or under `strict` something is lost.
    """
    workload = _from_trace(config, seed) if config.trace is not None else _generated(config, seed)
    if config.strict and workload.warnings:
        raise ScenarioError(f"workload.strict = true, and {'; '.join(workload.warnings)}")
    if isinstance(config.arrival, ClosedArrival):
        return _in_closed_loop(workload, config.arrival)
    return replace(workload, agents=_with_arrivals(workload.agents, config.arrival, seed=seed))


def _from_trace(config: WorkloadConfig, seed: int) -> Workload:
    path = Path(config.trace or "")
    selection = TraceSelection(
        num_agents=config.num_agents,
        fresh_only=config.fresh_only,
        max_context_tokens=config.max_context_tokens,
        max_tool_latency_s=config.max_tool_latency_s,
        default_tool_latency_s=config.default_tool_latency_s,
        keeps_user_waits=config.user_waits == "kept",
        keeps_sub_agents=config.sub_agents == "kept",
        keeps_arrivals=config.arrival == "trace",
        max_new_tokens=config.max_new_tokens,
    )
    trace = read_own_trace(path)
    if config.arrival == "trace":
        _check_arrivals(trace, path)
    agents, losses = select_agents(trace, selection)
    num_roots = sum(agent.parent_step is None for agent in agents)
    if agents and num_roots < config.num_agents:
        left_out = "".join(f"; {line}" for line in agents_left_out(losses, selection))
        raise ScenarioError(
            f"workload.num_agents = {config.num_agents} but {path} has {num_roots} eligible agents; "
            f"lower it, or set it to 0 for all{left_out}"
        )
    if config.is_shuffled:
        agents = _shuffled_trees(agents, seed)
    return _workload(agents, losses, selection, source=path.name, sha256=trace_sha256(path))


def _check_arrivals(trace: Sequence[TraceAgent], path: Path) -> None:
    """Refuse a trace that does not say when its agents come."""
    silent = next((each for each in trace if each.arrival_s is None and not each.is_spawned), None)
    if silent is not None:
        raise ScenarioError(
            f'workload.arrival = "trace" but {path} has no arrival_s for {silent.agent_id!r}; '
            'record it, or choose "batch" or a process'
        )


def _shuffled_trees(agents: Sequence[AgentSpec], seed: int) -> list[AgentSpec]:
    """Return the trees in an order by the seed, each as it was, and number the agents anew."""
    trees: list[list[AgentSpec]] = []
    for agent in agents:
        if agent.parent_step is None:
            trees.append([])
        trees[-1].append(agent)
    order = _permutation(len(trees), seed)
    return [
        replace(agent, index=index)
        for index, agent in enumerate(agent for number in order for agent in trees[number])
    ]


def _permutation(number: int, seed: int) -> list[int]:
    order: list[int] = np.random.default_rng(np.random.SeedSequence([seed, 3])).permutation(number).tolist()
    return order


def _workload(
    agents: Sequence[AgentSpec], losses: Losses, limits: Limits, *, source: str, sha256: str | None = None
) -> Workload:
    """Return the agents with what was lost of them.

    Raises
    ------
    ScenarioError
        If nobody is left.
    """
    if not agents:
        raise ScenarioError(f"{source}: no agent is eligible: {'; '.join(agents_left_out(losses, limits))}")
    lost = {name: value for name, value in asdict(losses).items() if value}
    warnings = loss_lines(losses, limits)
    return Workload(tuple(agents), losses.num_agents_skipped, source, sha256, warnings, lost)


def _with_arrivals(
    agents: Sequence[AgentSpec], arrival: Arrival, *, seed: int, start_s: float = 0.0
) -> tuple[AgentSpec, ...]:
    """Return the agents with their arrival times, none before `start_s`; sub-agents are started by others."""
    roots = [agent for agent in agents if agent.parent_step is None]
    arrivals_s = [agent.arrival_s for agent in roots]
    if isinstance(arrival, PoissonArrival):
        arrivals_s = poisson_arrivals_s(len(roots), arrival.rate_per_s, seed=seed)
    arrival_of = {agent.index: start_s + each_s for agent, each_s in zip(roots, arrivals_s, strict=True)}
    return tuple(replace(agent, arrival_s=arrival_of.get(agent.index, 0.0)) for agent in agents)


def _generated(config: WorkloadConfig, seed: int) -> Workload:
    if config.parts:
        agents, name = _from_parts(config, seed), "+".join(part.generator for part in config.parts)
    else:
        name = config.generator or ""
        generator = GENERATORS[name](**config.parameters)
        agents = generate_agents(generator, name=name, num_agents=config.num_agents, seed=seed)
    limits = Limits(
        max_context_tokens=config.max_context_tokens, max_tool_latency_s=config.max_tool_latency_s
    )
    longest = config.max_context_tokens
    fitting = [agent for agent in agents if longest is None or agent.peak_context_tokens <= longest]
    cuts_s = [cut_s for agent in fitting for cut_s in _cuts_s(agent, config.max_tool_latency_s)]
    losses = Losses(num_too_long=len(agents) - len(fitting), num_cut_waits=len(cuts_s), cut_s=sum(cuts_s))
    numbered = [replace(agent, index=index) for index, agent in enumerate(fitting)]
    capped = [_cap_waits(agent, config.max_tool_latency_s) for agent in numbered]
    return _workload(capped, losses, limits, source=name)


def _in_closed_loop(workload: Workload, arrival: ClosedArrival) -> Workload:
    """Return the workload as often as asked for, each time under new names, to be started one by one."""
    agents = [
        replace(
            agent,
            agent_id=_again(agent.agent_id, number),
            index=number * len(workload.agents) + agent.index,
            parent=None if agent.parent is None else _again(agent.parent, number),
        )
        for number in range(arrival.repeats)
        for agent in workload.agents
    ]
    closed_loop = ClosedLoop(arrival.num_sessions, arrival.duration_s)
    return replace(workload, agents=tuple(agents), closed_loop=closed_loop)


def _again(agent_id: str, number: int) -> str:
    return agent_id if number == 0 else f"{agent_id}~{number + 1}"


def _from_parts(config: WorkloadConfig, seed: int) -> list[AgentSpec]:
    """Draw the parts one after the other, each from streams of its own; those of one prefix share it."""
    agents: list[AgentSpec] = []
    for number, part in enumerate(config.parts):
        generator = GENERATORS[part.generator](**part.parameters)
        stream = np.random.SeedSequence([seed, 2, number])
        part_seed = int(stream.generate_state(1)[0])
        drawn = generate_agents(
            generator, name=f"{part.generator}-{number}", num_agents=part.num_agents, seed=part_seed
        )
        prefix = f"{part.generator}-{generator.shared_prefix_tokens}"
        grouped = [
            replace(
                agent,
                prefix_group=None if agent.prefix_group is None else prefix,
                priority=part.priority,
            )
            for agent in drawn
        ]
        agents += _with_arrivals(grouped, part.arrival, seed=part_seed, start_s=part.start_s)
    if config.is_shuffled:
        agents = [agents[number] for number in _permutation(len(agents), seed)]
    return agents


def _cuts_s(agent: AgentSpec, max_tool_latency_s: float) -> list[float]:
    """Return what each wait that is too long loses; nobody sits through the one after the last step."""
    excesses_s = (step.tool_latency_s - max_tool_latency_s for step in agent.steps[:-1])
    return [excess_s for excess_s in excesses_s if excess_s > 0]


def _cap_waits(agent: AgentSpec, max_tool_latency_s: float) -> AgentSpec:
    def cap(step: StepSpec) -> StepSpec:
        return replace(step, tool_latency_s=min(step.tool_latency_s, max_tool_latency_s))

    return replace(agent, steps=tuple(cap(step) for step in agent.steps))
