"""The tokens that agents keep in the cache, as the gate's bound in tokens counts them: each prefix once."""

from collections.abc import Iterable, Mapping

from concur.gate.member import Member
from concur.measures.prefixes import prefix_levels
from concur.measures.residents import private_tokens
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
        self._prefixes: dict[str, _Shared] = {}
        self._forks: dict[str, _Shared] = {}

    @property
    def tokens(self) -> float:
        """What all of them keep."""
        if not self._forks:
            return self._tokens
        return self._tokens + sum(
            [fork.tokens for parent, fork in self._forks.items() if parent not in self._ids]
        )

    def enter(self, member: Member) -> None:
        """Enter a member, or what it keeps now."""
        tokens = self._own_tokens(member)
        self._tokens += tokens - member.held_tokens
        member.held_tokens = tokens
        if member.agent_id not in self._ids:
            self._ids.add(member.agent_id)
            for level in _levels(member):
                self._tokens += _share(self._prefixes, level)
            if member.fork is not None:
                _share(self._forks, member.fork)

    def strike(self, member: Member) -> None:
        """Take a member out, if it is in."""
        if member.agent_id not in self._ids:
            return
        self._ids.remove(member.agent_id)
        self._tokens -= member.held_tokens
        member.held_tokens = 0.0
        for level in _levels(member):
            self._tokens -= _unshare(self._prefixes, level.group)
        if member.fork is not None:
            _unshare(self._forks, member.fork.group)

    def tokens_with(self, member: Member) -> float:
        """Return what all would keep if this one came in."""
        if member.agent_id in self._ids:
            return self.tokens - member.held_tokens + self._own_tokens(member)
        new = sum([_missing(self._prefixes, level) for level in _levels(member)])
        if member.fork is not None and member.fork.group not in self._ids:
            new += _missing(self._forks, member.fork)
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
                shared = self._prefixes[level.group]
                counts[level.group] = counts.get(level.group, shared.num_members) - 1
                left -= 0 if counts[level.group] else shared.tokens
            number += 1
        return number

    def _own_tokens(self, member: Member) -> float:
        tokens = float(private_tokens(member))
        return tokens if member.steps_done else max(tokens, self.newcomer_tokens)


class _Shared:
    """What a group shares, and how many of it are in the books."""

    __slots__ = ("num_members", "tokens")

    def __init__(self) -> None:
        self.num_members = 0
        self.tokens = 0


def _levels(member: Member) -> tuple[Prefix, ...]:
    if member.prefix_group is None or member.fork is not None:  # a fork has all of it from its parent
        return ()
    return prefix_levels(member.prefix_group, member.shared_prefix_tokens, member.outer_prefixes)


def _missing(held: Mapping[str, _Shared], level: Prefix) -> int:
    shared = held.get(level.group)
    return level.tokens if shared is None else max(0, level.tokens - shared.tokens)


def _share(held: dict[str, _Shared], level: Prefix) -> int:
    """Count one more of a group; return the tokens that came with it."""
    new = _missing(held, level)
    shared = held.setdefault(level.group, _Shared())
    shared.num_members += 1
    shared.tokens += new
    return new


def _unshare(held: dict[str, _Shared], group: str) -> int:
    """Count one less of a group; return the tokens that nobody else keeps."""
    shared = held[group]
    shared.num_members -= 1
    return 0 if shared.num_members else held.pop(group).tokens
