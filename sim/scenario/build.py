"""The agents of a scenario: built from `[workload]`, and checked to fit `[engine]`."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from concur.sim.engine.config import AnyEngineConfig, EngineConfig
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.errors import ScenarioError
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.build import build
from concur.sim.workload.spec import AgentSpec, Workload


def build_workload(scenario: Scenario) -> Workload:
    """Return the agents of a scenario; a function of `workload` and `seed` alone, and checked to fit.

    Raises
    ------
    TraceError
        If the trace breaks the format.
    ScenarioError
        If no agent is eligible, or one can never run: longer than the model or than the block pool.
    """
    workload = build(scenario.workload, scenario.seed)
    check_fits_everywhere(workload, scenario)
    early = _num_early_ends(workload)
    if not early or isinstance(scenario.engine, SglangConfig) or not scenario.engine.async_scheduling:
        return workload
    warning = (
        f"{early:,} answers end before their max_new_tokens: under async scheduling an engine finds out one "
        "step late, which is not simulated"
    )
    return replace(workload, warnings=(*workload.warnings, warning))


def _num_early_ends(workload: Workload) -> int:
    """Count the calls whose limit is beyond their answer; without async scheduling vLLM treats them alike."""
    steps = (step for agent in workload.agents for step in agent.steps)
    return sum((step.max_new_tokens or 0) > step.output_tokens for step in steps)


def build_workloads(scenario: Scenario, seeds: Sequence[int]) -> dict[int, Workload]:
    """Return the agents of a scenario on each of the seeds."""
    return {seed: build_workload(scenario.with_seed(seed)) for seed in seeds}


def check_fits_everywhere(workload: Workload, scenario: Scenario) -> None:
    """Refuse a workload that could never end on one of the scenario's engines; see `check_fits`.

    Raises
    ------
    ScenarioError
        If there is such an engine.
    """
    for each in {id(engine): engine for engine in scenario.engines}.values():
        check_fits(workload, each.engine)


def check_fits(workload: Workload, engine: AnyEngineConfig) -> None:
    """Refuse a workload that could never end: an agent outgrows the model or the block pool.

    Raises
    ------
    ScenarioError
        If there is such an agent, one with a call that no engine could serve, or none at all.
    """
    if not workload.agents:
        raise ScenarioError(f"{workload.source}: has no agent; at least one is needed")
    for agent in workload.agents:
        _check_steps(agent)
    if isinstance(engine, SglangConfig):
        _check_fits_sglang(workload, engine)
    else:
        _check_fits_vllm(workload, engine)


def _check_fits_sglang(workload: Workload, engine: SglangConfig) -> None:
    """Refuse a call that SGLang would cut short, or not take."""
    for agent in workload.agents:
        for number, step in enumerate(agent.steps):
            if engine.refuses(step.prompt_tokens, step.output_tokens):
                raise ScenarioError(
                    f"agent {agent.agent_id}, step {number}: a prompt of {step.prompt_tokens} and an answer "
                    f"of {step.output_tokens} tokens, but with engine.max_total_num_tokens = "
                    f"{engine.max_total_num_tokens}, page_size = {engine.page_size} and context_length = "
                    f"{engine.context_length} SGLang takes at most {engine.max_prompt_tokens} and answers "
                    f"with {engine.max_new_tokens(step.prompt_tokens)}; raise them, or skip such agents with "
                    "workload.max_context_tokens"
                )


def _check_fits_vllm(workload: Workload, engine: EngineConfig) -> None:
    """Refuse an agent that outgrows the model or the pool."""
    longest = max(workload.agents, key=lambda agent: agent.peak_context_tokens)
    tokens = longest.peak_context_tokens
    if tokens > engine.max_model_len:
        raise ScenarioError(
            f"agent {longest.agent_id} needs {tokens} tokens of context but engine.max_model_len = "
            f"{engine.max_model_len}; raise it, or skip such agents with workload.max_context_tokens="
            f"{engine.max_model_len}"
        )
    blocks = engine.num_blocks_for(tokens) + 1
    if blocks > engine.num_gpu_blocks:
        raise ScenarioError(
            f"agent {longest.agent_id} needs {tokens} tokens of context but engine.num_gpu_blocks = "
            f"{engine.num_gpu_blocks} holds {engine.pool_tokens}; set it to at least {blocks}, or skip such "
            f"agents with workload.max_context_tokens={engine.pool_tokens}"
        )


def _check_steps(agent: AgentSpec) -> None:
    """Refuse calls that the trace format refuses too; agents made by hand have not come through it."""
    history = agent.starting_tokens
    for number, step in enumerate(agent.steps):
        if not 0 <= step.kept_tokens <= history:
            problem = f"kept_tokens = {step.kept_tokens} but the history so far is {history} tokens"
        elif step.new_prompt_tokens < 0 or step.prompt_tokens < 1:
            problem = f"new_prompt_tokens = {step.new_prompt_tokens} but a prompt has at least 1 token"
        elif step.output_tokens < 1:
            problem = f"output_tokens = {step.output_tokens} but must be at least 1"
        elif not 0 <= step.tool_latency_s < inf:
            problem = f"tool_latency_s = {step.tool_latency_s} but must be finite and at least 0"
        else:
            history = step.context_tokens
            continue
        raise ScenarioError(f"agent {agent.agent_id}, step {number}: {problem}")
