"""Whether answers bring their `usage`: without it, a law that reads contexts is blind."""

from concur.signals import Snapshot


def calls_without_usage(snapshot: Snapshot) -> int:
    """Return how many calls have ended at the gate if no usage came with them, else 0.

    That is: of the agents here that have ended a call, none has any context tokens; or there is none of
    those, and all that have left took none with them. A loop that never sets `context_tokens` looks like
    this; so does, for a moment, one whose first call failed. It reads `Snapshot.agents`, see
    `Law.reads_agents`.
    """
    ended = [agent for agent in snapshot.agents if agent.steps_done > 0]
    left = snapshot.departed
    knows = any(agent.context_tokens > 0 for agent in ended) if ended else left.call_tokens > 0
    return 0 if knows else sum(agent.steps_done for agent in ended) + left.calls
