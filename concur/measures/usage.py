"""Whether answers bring their `usage`: without it, a law that reads contexts is blind."""

from concur.signals import Snapshot


def calls_without_usage(snapshot: Snapshot) -> int:
    """Return how many calls have ended at the gate if none of them ever brought `usage`, else 0.

    A loop that never sets `context_tokens` looks like this; so does, for a moment, one whose very first calls
    failed. It reads `Snapshot.agents`, which are there for laws with `reads_agents`.
    """
    agents, left = snapshot.agents, snapshot.departed
    if left.call_tokens > 0 or any(agent.context_tokens > 0 for agent in agents):
        return 0
    return left.calls + sum(agent.steps_done for agent in agents)
