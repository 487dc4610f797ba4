"""A closed loop of agents on a real engine: steps as they come, to judge a fit by, never to fit.

Each agent has a prefix shared by all and a task of its own, and makes several calls; its history grows by
what it generated and by an observation, which arrives after a tool wait. With a cap, only so many agents are
under way at once.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from concur.calib.measure.engine import Finished, StepEngine
from concur.calib.measure.grid import Limits
from concur.validate.steps.step_log import StepRow

_MIN_TOKEN_ID: Final = 10
_IDLE_S: Final = 0.001  # sleep between looks at the clock while every agent waits for its tool
_SHARES: Final = {"shared": 0.3, "first": 0.3, "observation": 0.35}  # of an agent's equal share of the pool


@dataclass(frozen=True, slots=True)
class ClosedLoopOptions:
    """The agents; `cap` = 0 lets all run at once. Tool waits are exponential with the given mean."""

    num_agents: int = 24
    num_calls: int = 6
    output_tokens: int = 16
    mean_tool_s: float = 0.3
    cap: int = 0
    seed: int = 7


@dataclass(slots=True)
class _Agent:
    """Waits for admission, then alternates between a call and a tool, then is gone."""

    history: list[int]
    rng: np.random.Generator
    calls: int = 0


def run_closed_loop(
    engine: StepEngine,
    options: ClosedLoopOptions,
    *,
    on_call: Callable[[int, int], None] = lambda done, total: None,
) -> list[StepRow]:
    """Run all agents to their end; return the recorded steps, with the phase `run:cap<N>`.

    Agents' tokens and tool waits are functions of the seed; when the calls arrive depends on the engine.
    """
    engine.take_rows()
    _ClosedLoop(engine, options, on_call).run()
    phase = f"run:cap{options.cap or 'none'}"
    return [replace(row, phase=phase) for row in engine.take_rows()]


class _ClosedLoop:
    """The agents' state around an engine's steps."""

    def __init__(
        self, engine: StepEngine, options: ClosedLoopOptions, on_call: Callable[[int, int], None]
    ) -> None:
        self._engine = engine
        self._options = options
        self._on_call = on_call
        limits = engine.limits
        share = _share_tokens(limits, options)
        self._observation_tokens = int(share * _SHARES["observation"])
        own = [options.seed, options.cap]  # another cap, other tokens: nothing is left of the run before
        prefix = self._tokens(np.random.default_rng(own), int(share * _SHARES["shared"]))
        rngs = [np.random.default_rng([*own, index]) for index in range(options.num_agents)]
        first_tokens = int(share * _SHARES["first"])
        self._agents = [_Agent(prefix + self._tokens(rng, first_tokens), rng) for rng in rngs]
        self._waiting = deque(range(options.num_agents))
        self._ready: list[tuple[float, int]] = []  # when a tool returns, which agent
        self._num_active = 0
        self._num_calls = 0

    def run(self) -> None:
        """Admit, submit what is ready, step; until every agent has ended."""
        while self._waiting or self._num_active:
            with self._engine.outside():
                self._admit()
            self._submit_ready()
            if not self._engine.has_unfinished_requests():
                time.sleep(_IDLE_S)
                continue
            finished = self._engine.step()
            with self._engine.outside():
                for call in finished:
                    self._take(call)

    def _admit(self) -> None:
        while self._waiting and (not self._options.cap or self._num_active < self._options.cap):
            heapq.heappush(self._ready, (0.0, self._waiting.popleft()))
            self._num_active += 1

    def _submit_ready(self) -> None:
        while self._ready and self._ready[0][0] <= time.perf_counter():
            _, index = heapq.heappop(self._ready)
            agent = self._agents[index]
            self._engine.submit(f"{index}.{agent.calls}", agent.history, self._options.output_tokens)

    def _take(self, call: Finished) -> None:
        index = int(call.request_id.split(".")[0])
        agent = self._agents[index]
        agent.calls += 1
        self._num_calls += 1
        self._on_call(self._num_calls, self._options.num_agents * self._options.num_calls)
        if agent.calls == self._options.num_calls:
            self._num_active -= 1
            return
        agent.history += [*call.output_token_ids, *self._tokens(agent.rng, self._observation_tokens)]
        wait_s = agent.rng.exponential(self._options.mean_tool_s)
        heapq.heappush(self._ready, (time.perf_counter() + wait_s, index))

    def _tokens(self, rng: np.random.Generator, num_tokens: int) -> list[int]:
        ids: list[int] = rng.integers(_MIN_TOKEN_ID, self._engine.vocab_size, num_tokens).tolist()
        return ids


def _share_tokens(limits: Limits, options: ClosedLoopOptions) -> float:
    """Return an agent's equal share of the pool, or less if its last call would be too long."""
    pool_tokens = limits.num_gpu_blocks * limits.block_size
    grown = _SHARES["shared"] + _SHARES["first"] + _SHARES["observation"] * (options.num_calls - 1)
    longest = limits.max_model_len - options.num_calls * options.output_tokens
    return min(pool_tokens / options.num_agents, longest / grown)
