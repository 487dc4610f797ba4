"""Which engine of a fleet serves a call: the catalog of routers, the same in both worlds.

A new router is a new file and one line in `ROUTERS`; one in a package of its own is a `RouterSpec` under the
entry-point group `concur.routers` (`concur.catalog`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from concur.catalog import Catalog
from concur.controllers.parameters import fitted_params
from concur.routing.base import EngineLoad, PlainRouter, RoutedCall, Router, RouterParams
from concur.routing.cache_aware import CacheAware, CacheAwareParams
from concur.routing.kv_aware import KvAware, KvAwareParams
from concur.routing.scorers import Scorers, ScorersParams
from concur.routing.spread import LeastLoaded, PowerOfTwo, RoundRobin
from concur.routing.sticky import MovingSession, MovingSessionParams, Session, SessionParams
from concur.routing.vllm_dp import VllmDp, VllmDpParams

__all__ = [
    "ROUTERS",
    "EngineLoad",
    "PlainRouter",
    "RoutedCall",
    "Router",
    "RouterParams",
    "RouterSpec",
    "make_router",
    "router_params",
]


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """One line of the catalog: parameters and constructor."""

    params: type[RouterParams]
    build: Callable[[Any], Router]


ROUTERS: Final[Catalog[RouterSpec]] = Catalog(
    "concur.routers",
    {
        "round_robin": RouterSpec(RouterParams, RoundRobin),
        "least_loaded": RouterSpec(RouterParams, LeastLoaded),
        "power_of_two": RouterSpec(RouterParams, PowerOfTwo),
        "session": RouterSpec(SessionParams, Session),
        "session_moving": RouterSpec(MovingSessionParams, MovingSession),
        "cache_aware": RouterSpec(CacheAwareParams, CacheAware),
        "kv_aware": RouterSpec(KvAwareParams, KvAware),
        "scorers": RouterSpec(ScorersParams, Scorers),
        "vllm_dp": RouterSpec(VllmDpParams, VllmDp),
    },
    what="routing",
    fits=lambda entry: isinstance(entry, RouterSpec),
    holds="a concur.routing.RouterSpec",
)


def router_params(name: str, given: Mapping[str, Any]) -> RouterParams:
    """Return the parameters of a router, defaults filled in.

    Raises
    ------
    ParameterError
        If the router or a key of `given` is unknown, or a value has the wrong type or is out of bounds.
    """
    return fitted_params(ROUTERS[name].params, given, of=name, section="fleet")


def make_router(name: str, **given: Any) -> Router:
    """Build a router by name.

    Raises
    ------
    ParameterError
        See `router_params`.
    """
    return ROUTERS[name].build(router_params(name, given))
