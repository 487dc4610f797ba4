"""The contract of every router: which engine of a fleet serves a call.

A router is told what a call begins with and how loaded each engine is, and answers with an engine's number.
It has no clock and no I/O: `time_s` is an argument, and what it knows of the engines is handed to it. Where
it draws, it draws from `concur.routing.draws`, so that the same calls go the same ways again.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from concur.errors import NoEngineError, require

Part = tuple[Hashable, int]
"""A name for tokens that follow one another, and how many of them a prompt begins with."""
_MOST_DRAWS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RoutedCall:
    """A call that needs an engine.

    `session` is what belongs together: the root of the agent's tree. `prefix` are the parts of the prompt in
    order; two prompts share tokens exactly where they begin with the same parts.
    """

    agent_id: str
    session: str
    prompt_tokens: int
    prefix: tuple[Part, ...] = ()


@dataclass(slots=True)
class EngineLoad:
    """What a router may know of one engine; kept up to date by whoever calls the router.

    `num_in_flight` calls are with it by the router's own count, from when they were routed. The gauges are
    those of the last reading, and stay 0 for a router that asks for none.
    """

    num_in_flight: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_frac: float = 0.0
    is_up: bool = True


class Router(Protocol):
    """Choose an engine for each call.

    Life: `route` for every call, `ended` for every call that it has routed and that is over. A router with
    `reads_every_s` is told by `observe` of a new reading of all engines so often; one with `None` is not.
    """

    reads_every_s: float | None

    def observe(self, engines: Sequence[EngineLoad]) -> None:
        """Take note of a new reading of all engines."""
        ...

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the number of the engine that serves the call; one that is up.

        Raises
        ------
        NoEngineError
            If no engine is up.
        """
        ...

    def ended(self, call: RoutedCall, engine: int) -> None:
        """Take note that a call is over."""
        ...

    def lost(self, engine: int) -> None:
        """Take note that an engine has died, and its cache with it."""
        ...


class PlainRouter:
    """What most routers do not need: readings, and the ends of calls."""

    reads_every_s: float | None = None

    def observe(self, engines: Sequence[EngineLoad]) -> None:
        """Do nothing: it reads the engines when it routes."""

    def ended(self, call: RoutedCall, engine: int) -> None:
        """Do nothing: what is in flight is counted for it."""

    def lost(self, engine: int) -> None:
        """Do nothing: it remembers no cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterParams:
    """Parameters that every router has: `seed` of what it draws, if it draws."""

    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.seed <= _MOST_DRAWS, "seed", self.seed, f"0 to {_MOST_DRAWS}")


def check_interval(interval_s: float) -> None:
    """Refuse an interval between two readings that is none.

    Raises
    ------
    ParameterError
        If it is out of bounds.
    """
    require(1e-3 <= interval_s <= 1e6, "stats_interval_s", interval_s, "1e-3 to 1e6 s")


def those_up(engines: Sequence[EngineLoad]) -> list[int]:
    """Return the numbers of the engines that are up.

    Raises
    ------
    NoEngineError
        If none is.
    """
    up = [number for number, engine in enumerate(engines) if engine.is_up]
    if not up:
        raise NoEngineError(f"none of the {len(engines)} engines is up; a call can go nowhere")
    return up
