"""Token histories of live agents: prompts drawn per agent, answers as the engine generated them.

The prompt of a call is the first `kept_tokens` ids of the history, then new ids. New ids come from a stream
of the agent's own (seeded by the run's seed and the agent's index), a group's shared prefix from one of the
group's: what an agent sends depends on nothing that other agents do. Two blocks of drawn ids are equal by
accident with a probability of 2000^-16, so whatever the prefix cache credits was sent before.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from concur.sim.workload.spec import AgentSpec, Workload

TOKEN_IDS: Final = range(10, 2010)
"""Ids that every model's vocabulary has, the special ones at its beginning left out."""


class TokenHistory:
    """One agent's history. Life: (prompt of call n -> its answer) for n = 0, 1, ..."""

    def __init__(self, spec: AgentSpec, shared_prefix: Sequence[int], rng: np.random.Generator) -> None:
        self._spec = spec
        self._tokens = list(shared_prefix)
        self._rng = rng

    def prompt(self, call_index: int) -> list[int]:
        """Return the prompt of the agent's next call."""
        step = self._spec.steps[call_index]
        self._tokens = self._tokens[: step.kept_tokens] + _draw(self._rng, step.new_prompt_tokens)
        return self._tokens

    def answered(self, token_ids: Sequence[int]) -> None:
        """Add the engine's answer to the prompt before."""
        self._tokens = [*self._tokens, *token_ids]


def token_histories(workload: Workload, seed: int) -> dict[int, TokenHistory]:
    """Return every agent's history, at its shared prefix, by agent index."""
    lengths: dict[str, int] = {}
    for agent in workload.agents:
        if agent.prefix_group is not None:
            longest = max(lengths.get(agent.prefix_group, 0), agent.shared_prefix_tokens)
            lengths[agent.prefix_group] = longest
    shared = {group: _draw(_group_rng(seed, group), length) for group, length in lengths.items()}
    histories = {}
    for agent in workload.agents:
        rng = np.random.default_rng([seed, 0, agent.index])
        if agent.prefix_group is None:
            prefix = _draw(rng, agent.shared_prefix_tokens)
        else:
            prefix = shared[agent.prefix_group][: agent.shared_prefix_tokens]
        histories[agent.index] = TokenHistory(agent, prefix, rng)
    return histories


def _group_rng(seed: int, group: str) -> np.random.Generator:
    digest = hashlib.sha256(group.encode()).digest()
    return np.random.default_rng([seed, 1, int.from_bytes(digest[:8], "big")])


def _draw(rng: np.random.Generator, num_tokens: int) -> list[int]:
    tokens: list[int] = rng.integers(TOKEN_IDS.start, TOKEN_IDS.stop, num_tokens).tolist()
    return tokens
