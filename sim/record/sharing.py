"""What agents share at the beginning of their histories, read off the table of agents."""

import json
from collections.abc import Sequence
from math import isnan

from concur.measures.prefixes import prefix_levels
from concur.signals import Prefix
from concur.sim.record.tables import Columns


def outer_prefixes_text(prefixes: Sequence[Prefix]) -> str | None:
    """Return wider groups' prefixes as the column `outer_prefixes` has them."""
    return json.dumps([[each.group, each.tokens] for each in prefixes]) if prefixes else None


def levels_of(agents: Columns) -> list[tuple[Prefix, ...]]:
    """Return what each agent shares with groups, from the outermost in, each with its own tokens."""
    columns = (agents[name].tolist() for name in ("prefix_group", "shared_prefix_tokens", "outer_prefixes"))
    return [_levels(*row) for row in zip(*columns, strict=True)]


def parents_of(agents: Columns) -> dict[int, tuple[int, int]]:
    """Return, by the index of a fork, index and call of the parent whose history it starts with."""
    index_of = dict(zip(agents["agent_id"].tolist(), agents["agent_index"].tolist(), strict=True))
    names = ("agent_index", "parent", "parent_step", "fork_tokens")
    rows = zip(*(agents[name].tolist() for name in names), strict=True)
    return {
        index: (index_of[parent], int(step))
        for index, parent, step, fork_tokens in rows
        if fork_tokens and parent in index_of and not isnan(step)
    }


def _levels(group: str | None, shared_tokens: int, outer_text: str | None) -> tuple[Prefix, ...]:
    outer = [Prefix(name, tokens) for name, tokens in json.loads(outer_text)] if outer_text else []
    return prefix_levels(group, shared_tokens, outer)
