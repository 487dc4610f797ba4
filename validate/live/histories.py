"""Token histories of live agents: prompts drawn per agent, answers as the engine generated them.

The prompt of a call is the first `kept_tokens` ids of the history, then new ids. New ids come from a stream
of the agent's own (seeded by the run's seed and the agent's index), a group's shared prefix from one of the
group's: what an agent sends depends on nothing that other agents do. Two blocks of drawn ids are equal by
accident with a probability of 2000^-16, so whatever the prefix cache credits was sent before.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from concur.signals import Prefix
from concur.sim.workload.spec import AgentSpec, Workload

TOKEN_IDS: Final = range(10, 2010)
"""Ids that every model's vocabulary has, the special ones at its beginning left out."""


class TokenHistory:
    """One agent's history. Life: (prompt of call n -> its answer) for n = 0, 1, ..."""

    def __init__(self, spec: AgentSpec, shared_prefix: Sequence[int], rng: np.random.Generator) -> None:
        self._spec = spec
        self._tokens = list(shared_prefix)
        self._rng = rng

    def fork(self, parent: "TokenHistory") -> None:
        """Begin with what the parent's history is now."""
        self._tokens = parent._tokens[: self._spec.fork_tokens]

    def prompt(self, call_index: int) -> list[int]:
        """Return the prompt of the agent's next call."""
        step = self._spec.steps[call_index]
        self._tokens = self._tokens[: step.kept_tokens] + _draw(self._rng, step.new_prompt_tokens)
        return self._tokens

    def answered(self, token_ids: Sequence[int]) -> None:
        """Add the engine's answer to the prompt before."""
        self._tokens = [*self._tokens, *token_ids]


def token_histories(workload: Workload, seed: int) -> dict[int, TokenHistory]:
    """Return every agent's history, at its shared prefix, by index; a fork's is empty until it starts."""
    shared = _shared_prefixes(workload, seed)
    histories = {}
    for agent in workload.agents:
        rng = np.random.default_rng([seed, 0, agent.index])
        prefix: list[int] = []
        for path, level in _paths(agent):
            prefix += shared[path][: level.tokens]
        if agent.prefix_group is None:
            prefix = _draw(rng, agent.shared_prefix_tokens)
        histories[agent.index] = TokenHistory(agent, prefix, rng)
    return histories


def _shared_prefixes(workload: Workload, seed: int) -> dict[str, list[int]]:
    """Draw what groups share, each as long as its longest, by their place among the groups around them."""
    lengths: dict[str, int] = {}
    for agent in workload.agents:
        for path, level in _paths(agent):
            lengths[path] = max(lengths.get(path, 0), level.tokens)
    return {path: _draw(_group_rng(seed, path), length) for path, length in lengths.items()}


def _paths(agent: AgentSpec) -> Iterator[tuple[str, Prefix]]:
    """Yield each level of what an agent shares, with a name for where it is: its group and those around."""
    above = ""
    for level in agent.levels:
        yield above + level.group, level
        above += f"{level.group}:{level.tokens}/"


def _group_rng(seed: int, path: str) -> np.random.Generator:
    digest = hashlib.sha256(path.encode()).digest()
    return np.random.default_rng([seed, 1, int.from_bytes(digest[:8], "big")])


def _draw(rng: np.random.Generator, num_tokens: int) -> list[int]:
    tokens: list[int] = rng.integers(TOKEN_IDS.start, TOKEN_IDS.stop, num_tokens).tolist()
    return tokens
