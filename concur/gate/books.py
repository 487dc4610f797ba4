"""The tokens that agents keep in the cache, as the gate's bound in tokens counts them: each prefix once."""

from collections.abc import Iterable

from concur.gate.member import Member
from concur.measures.prefixes import prefix_levels
from concur.measures.residents import private_tokens
from concur.measures.shares import Shares
from concur.signals import Prefix


class Books:
    """Who keeps what, of the members that hold a slot or have lent it.

    Counted are the private tokens of each (`concur.measures.residents.private_tokens`), with
    `newcomer_tokens` for whoever has not called yet; what groups share, once for all of them; and what forks
    share with a parent that is not in the books itself.
    """

    __slots__ = ("_forks", "_ids", "_prefixes", "_tokens", "newcomer_tokens")

    def __init__(self) -> None:
        self.newcomer_tokens = 0.0
        self._tokens = 0.0
        self._ids: set[str] = set()
        self._prefixes = Shares()
        self._forks = Shares()

    @property
    def tokens(self) -> float:
        """What all of them keep."""
        forks = [tokens for parent, tokens in self._forks.items() if parent not in self._ids]
        return self._tokens + sum(forks)

    def enter(self, member: Member) -> None:
        """Enter a member, or what it keeps now."""
        tokens = self._own_tokens(member)
        self._tokens += tokens - member.held_tokens
        member.held_tokens = tokens
        if member.agent_id not in self._ids:
            self._ids.add(member.agent_id)
            for level in _levels(member):
                self._tokens += self._prefixes.enter(level.group, level.tokens)
            if member.fork is not None:
                self._forks.enter(member.fork.group, member.fork.tokens)

    def strike(self, member: Member) -> None:
        """Take a member out, if it is in."""
        if member.agent_id not in self._ids:
            return
        self._ids.remove(member.agent_id)
        self._tokens -= member.held_tokens
        member.held_tokens = 0.0
        for level in _levels(member):
            self._tokens -= self._prefixes.leave(level.group)
        if member.fork is not None:
            self._forks.leave(member.fork.group)

    def tokens_with(self, member: Member) -> float:
        """Return what all would keep if this one came in."""
        if member.agent_id in self._ids:
            return self.tokens - member.held_tokens + self._own_tokens(member)
        new = sum([self._prefixes.missing(level.group, level.tokens) for level in _levels(member)])
        if member.fork is not None and member.fork.group not in self._ids:
            new += self._forks.missing(member.fork.group, member.fork.tokens)
        return self.tokens + self._own_tokens(member) + new

    def num_to_strike(self, members: Iterable[Member], most_tokens: float) -> int:
        """Return how many of the members, the first ones, have to go until the rest keep at most so much."""
        left = self.tokens
        counts: dict[str, int] = {}
        number = 0
        for member in members:
            if left <= most_tokens:
                break
            left -= member.held_tokens
            for level in _levels(member):
                prefixes, group = self._prefixes, level.group
                counts[group] = counts.get(group, prefixes.num_members(group)) - 1
                left -= 0 if counts[group] else prefixes.tokens(group)
            number += 1
        return number

    def _own_tokens(self, member: Member) -> float:
        tokens = float(private_tokens(member))
        return tokens if member.steps_done else max(tokens, self.newcomer_tokens)


def _levels(member: Member) -> tuple[Prefix, ...]:
    if member.prefix_group is None or member.fork is not None:  # a fork has all of it from its parent
        return ()
    return prefix_levels(member.prefix_group, member.shared_prefix_tokens, member.outer_prefixes)
