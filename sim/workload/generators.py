"""Seeded synthetic agents, for when there is no trace: `react` (short) and `coding` (long).

A generator is a frozen model of parameters with their bounds. Each agent draws from a stream of its own
(`SeedSequence.spawn`), so adding agents or changing the controller leaves the others' draws untouched.

Lengths and waits are log-normal, given by median and sigma (the standard deviation of the logarithm);
the mean is median * exp(sigma^2 / 2). Every default names its source; those without one are ours.

A generator in a package of its own is a subclass of `Generator` under the entry-point group
`concur.generators` (`concur.catalog`).
"""

from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from concur.catalog import Catalog
from concur.sim.workload.spec import AgentSpec, StepSpec


class Generator(BaseModel):
    """Parameters that can draw one agent's steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shared_prefix_tokens: int = Field(0, ge=0, le=10_000_000)

    def draw_steps(self, rng: np.random.Generator) -> tuple[StepSpec, ...]:
        """Draw the steps of one agent."""
        raise NotImplementedError


class React(Generator):
    """Parameters of short reasoning-and-acting agents: the paper's setting.

    `mean_steps` = 10 and a history of about 5.7k tokens at the end: CONCUR (arXiv:2601.22705) Fig. 1, whose
    1.5 GB per Qwen3-32B agent are 5.7k tokens at 256 KiB per token. `shared_prefix_tokens` = 1200: the
    system prompts of public ReAct (HotpotQA, 1,150 tokens) and tau-bench airline (1,256 tokens) logs.
    Output and observation lengths are ours, chosen to reach that history. The paper does not give tool
    latencies: a median of 1 s with sigma 1 is ours.
    """

    mean_steps: float = Field(10.0, ge=1, le=1e5)
    shared_prefix_tokens: int = Field(1200, ge=0, le=10_000_000)
    question_median_tokens: float = Field(60.0, gt=0, le=1e7)
    output_median_tokens: float = Field(180.0, gt=0, le=1e7)
    output_sigma: float = Field(0.6, ge=0, le=10)
    observation_median_tokens: float = Field(200.0, gt=0, le=1e7)
    observation_sigma: float = Field(0.8, ge=0, le=10)
    tool_latency_median_s: float = Field(1.0, ge=0, le=1e7)
    tool_latency_sigma: float = Field(1.0, ge=0, le=10)

    def draw_steps(self, rng: np.random.Generator) -> tuple[StepSpec, ...]:
        """Draw one agent: 1 + Poisson(mean_steps - 1) steps, appending to one history."""
        num_steps = 1 + int(rng.poisson(self.mean_steps - 1.0))
        new = _lognormal_tokens(rng, self.observation_median_tokens, self.observation_sigma, num_steps)
        new[0] = _lognormal_tokens(rng, self.question_median_tokens, 0.5, 1)[0]
        outputs = _lognormal_tokens(rng, self.output_median_tokens, self.output_sigma, num_steps)
        waits = _lognormal_s(rng, self.tool_latency_median_s, self.tool_latency_sigma, num_steps)
        return _append_only(self.shared_prefix_tokens, new, outputs, waits)


class Coding(Generator):
    """Parameters of long coding agents with heavy-tailed tool waits.

    Source of the defaults: 486 Claude Code sessions recorded from their start (public traces of
    callanjfox/kv-cache-tester, Apache-2.0). Their medians: 39 steps, shared prefix 15,102 tokens, first new
    prompt 3,680, output 212 (p90 811), later new prompts 421 (p90 3,889), tool wait 1.1 s (p90 55 s with
    human approvals in it: cap it at 60 s). Sigmas match the p90 of a log-normal with that median:
    sigma = ln(p90 / p50) / 1.2816. `end_at_context_tokens` ends an agent before it outgrows the model.
    """

    median_steps: float = Field(39.0, gt=0, le=1e5)
    steps_sigma: float = Field(0.9, ge=0, le=10)
    shared_prefix_tokens: int = Field(15_102, ge=0, le=10_000_000)
    question_median_tokens: float = Field(3680.0, gt=0, le=1e7)
    output_median_tokens: float = Field(212.0, gt=0, le=1e7)
    output_sigma: float = Field(1.05, ge=0, le=10)
    observation_median_tokens: float = Field(421.0, gt=0, le=1e7)
    observation_sigma: float = Field(1.73, ge=0, le=10)
    tool_latency_median_s: float = Field(1.1, ge=0, le=1e7)
    tool_latency_sigma: float = Field(3.05, ge=0, le=10)
    end_at_context_tokens: int = Field(131_071, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end_at_context_tokens < self.shared_prefix_tokens + 2:
            raise ValueError(
                f"end_at_context_tokens = {self.end_at_context_tokens} but must be at least "
                f"shared_prefix_tokens + 2 = {self.shared_prefix_tokens + 2}"
            )
        return self

    def draw_steps(self, rng: np.random.Generator) -> tuple[StepSpec, ...]:
        """Draw one agent, cut off before its history would exceed `end_at_context_tokens`."""
        num_steps = max(1, round(self.median_steps * float(np.exp(self.steps_sigma * rng.standard_normal()))))
        new = _lognormal_tokens(rng, self.observation_median_tokens, self.observation_sigma, num_steps)
        new[0] = _lognormal_tokens(rng, self.question_median_tokens, 1.0, 1)[0]
        outputs = _lognormal_tokens(rng, self.output_median_tokens, self.output_sigma, num_steps)
        waits = _lognormal_s(rng, self.tool_latency_median_s, self.tool_latency_sigma, num_steps)
        room = self.end_at_context_tokens - self.shared_prefix_tokens
        new[0] = min(new[0], room - 1)
        outputs[0] = min(outputs[0], room - new[0])
        steps = _append_only(self.shared_prefix_tokens, new, outputs, waits)
        return tuple(step for step in steps if step.context_tokens <= self.end_at_context_tokens)


GENERATORS: Final[Catalog[type[Generator]]] = Catalog(
    "concur.generators",
    {"react": React, "coding": Coding},
    what="generator",
    fits=lambda entry: isinstance(entry, type) and issubclass(entry, Generator),
    holds="a subclass of concur.sim.workload.generators.Generator",
)


def generate_agents(generator: Generator, *, name: str, num_agents: int, seed: int) -> list[AgentSpec]:
    """Draw `num_agents` agents that share one prefix; the k-th is the same for any `num_agents` > k."""
    streams = np.random.SeedSequence(seed).spawn(num_agents)
    return [
        AgentSpec(
            agent_id=f"{name}-{index}",
            index=index,
            prefix_group=name if generator.shared_prefix_tokens else None,
            shared_prefix_tokens=generator.shared_prefix_tokens,
            arrival_s=0.0,
            steps=generator.draw_steps(np.random.default_rng(stream)),
        )
        for index, stream in enumerate(streams)
    ]


def poisson_arrivals_s(num_agents: int, rate_per_s: float, *, seed: int) -> list[float]:
    """Return increasing arrival times of a Poisson process, in seconds; a stream apart from the agents'."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    return [float(t) for t in np.cumsum(rng.exponential(1.0 / rate_per_s, num_agents))]


def _lognormal_tokens(rng: np.random.Generator, median: float, sigma: float, size: int) -> list[int]:
    return [max(1, round(x)) for x in median * np.exp(sigma * rng.standard_normal(size))]


def _lognormal_s(rng: np.random.Generator, median_s: float, sigma: float, size: int) -> list[float]:
    return [float(x) for x in median_s * np.exp(sigma * rng.standard_normal(size))]


def _append_only(
    shared_tokens: int, new: list[int], outputs: list[int], waits_s: list[float]
) -> tuple[StepSpec, ...]:
    steps: list[StepSpec] = []
    history = shared_tokens
    for new_tokens, output_tokens, wait_s in zip(new, outputs, waits_s, strict=True):
        step = StepSpec(history, new_tokens, output_tokens, wait_s)
        history = step.context_tokens
        steps.append(step)
    return tuple(steps)
