"""Routers that keep a session where it is: consistent hashing, and the same with a rule for moving.

Consistent hashing (Karger et al., 1997): every engine has `virtual_nodes` places on a ring, and a session
belongs to the first place after its own. If an engine is down, only its sessions go elsewhere: each to the
next engine on the ring. Nothing else ever moves, whatever the load: that is what locks an engine into thrash
(prime-rl #3255).

The rule for moving is that of SGLang's router (`concur.routing.cache_aware`), for whole sessions: they leave
an engine that has more than `balance_abs_threshold` calls more than another one, and more than
`balance_rel_threshold` times as many.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from concur.errors import require
from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, RouterParams, those_up
from concur.routing.draws import draw


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParams(RouterParams):
    """Parameters of `session`: places of each engine on the ring; 160 as in common hash rings (ketama)."""

    virtual_nodes: int = 160

    def __post_init__(self) -> None:
        RouterParams.__post_init__(self)
        require(1 <= self.virtual_nodes <= 10_000, "virtual_nodes", self.virtual_nodes, "1 to 10,000")


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingSessionParams(SessionParams):
    """Parameters of `session_moving`: when a session leaves its engine; the thresholds are SGLang's."""

    balance_abs_threshold: int = 64
    balance_rel_threshold: float = 1.5

    def __post_init__(self) -> None:
        SessionParams.__post_init__(self)
        check_balance(self.balance_abs_threshold, self.balance_rel_threshold)


def check_balance(absolute: int, relative: float) -> None:
    """Refuse thresholds that are none.

    Raises
    ------
    ParameterError
        If one is out of bounds.
    """
    require(absolute >= 0, "balance_abs_threshold", absolute, "at least 0 calls")
    require(relative >= 1, "balance_rel_threshold", relative, "at least 1")


class Session(PlainRouter):
    """The engine that a session's name stands for, as long as it is up."""

    def __init__(self, params: SessionParams) -> None:
        self._params = params
        self._ring: list[tuple[int, int]] = []
        self._num_engines = 0

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the first engine that is up, from the session's place on."""
        if self._num_engines != len(engines):
            self._lay_out(len(engines))
        up = set(those_up(engines))
        start = bisect_right(self._ring, (draw(self._params.seed, call.session), -1))
        places = (self._ring[(start + n) % len(self._ring)][1] for n in range(len(self._ring)))
        return next(engine for engine in places if engine in up)

    def _lay_out(self, num_engines: int) -> None:
        params = self._params
        self._num_engines = num_engines
        self._ring = sorted(
            (draw(params.seed, engine, place), engine)
            for engine in range(num_engines)
            for place in range(params.virtual_nodes)
        )


class MovingSession(Session):
    """The same, until its engine is out of balance; then the least loaded one, and that is its engine."""

    def __init__(self, params: MovingSessionParams) -> None:
        super().__init__(params)
        self._moving = params
        self._moved: dict[str, int] = {}

    def route(self, call: RoutedCall, engines: Sequence[EngineLoad], *, time_s: float) -> int:
        """Return the session's engine, after it has moved if it has to."""
        own = self._moved.get(call.session)
        if own is None or not engines[own].is_up:
            self._moved.pop(call.session, None)
            own = super().route(call, engines, time_s=time_s)
        least = min(those_up(engines), key=lambda each: (engines[each].num_in_flight, each))
        load, least_load = engines[own].num_in_flight, engines[least].num_in_flight
        is_far_above = load - least_load > self._moving.balance_abs_threshold
        if is_far_above and load > self._moving.balance_rel_threshold * least_load:
            self._moved[call.session] = own = least
        return own
