"""What goes with an agent from one gate to another."""

from dataclasses import dataclass
from typing import Self

from concur.gate.member import Member
from concur.signals import Prefix


@dataclass(frozen=True, slots=True)
class Moved:
    """An agent between two gates: who it is, and what the first one knew of it; see `concur.gate.member`."""

    agent_id: str
    arrived_s: float
    admitted_s: float | None
    gave_up: tuple[float, float] | None
    prefix_group: str | None
    shared_prefix_tokens: int
    outer_prefixes: tuple[Prefix, ...]
    fork: Prefix | None
    context_tokens: int
    steps_done: int
    call_tokens: int
    num_pauses: int
    heard_s: float

    @classmethod
    def of(cls, member: Member) -> Self:
        """Return what is known of an agent that goes."""
        return cls(
            agent_id=member.agent_id,
            arrived_s=member.arrived_s,
            admitted_s=member.admitted_s,
            gave_up=member.gave_up,
            prefix_group=member.prefix_group,
            shared_prefix_tokens=member.shared_prefix_tokens,
            outer_prefixes=member.outer_prefixes,
            fork=member.fork,
            context_tokens=member.context_tokens,
            steps_done=member.steps_done,
            call_tokens=member.call_tokens,
            num_pauses=member.num_pauses,
            heard_s=member.heard_s,
        )

    def hand_to(self, member: Member) -> None:
        """Tell it to the gate where the agent has come."""
        member.arrived_s = self.arrived_s
        member.admitted_s = self.admitted_s
        member.gave_up = self.gave_up
        member.context_tokens = self.context_tokens
        member.steps_done = self.steps_done
        member.call_tokens = self.call_tokens
        member.num_pauses = self.num_pauses
        member.heard_s = self.heard_s
