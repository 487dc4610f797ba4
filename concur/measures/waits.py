"""The starvation bound of a law: a slot for everyone who has waited too long."""

from concur.signals import UNLIMITED, Snapshot


def open_for_overdue(window: int, snapshot: Snapshot, *, active: int, max_wait_s: float) -> int:
    """Return the window with a slot more for each agent that has waited for `max_wait_s`.

    Beside those who are in: some of them may be on their way out, and only leave when their call ends.
    """
    overdue = sum(
        agent.waiting_since_s is not None and snapshot.time_s - agent.waiting_since_s >= max_wait_s
        for agent in snapshot.agents
    )
    return min(max(window, active) + overdue if overdue else window, UNLIMITED)
