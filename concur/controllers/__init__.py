"""The catalog: every control law by name, with its parameters and the gate that its window applies to.

A new law is a new file and one line in `CATALOG`; a law in a package of its own is a `ControllerSpec` under
the entry-point group `concur.controllers` (`concur.catalog`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from concur.catalog import Catalog
from concur.controllers.base import (
    Controller,
    ControllerParams,
    Law,
    LogValue,
    budget_of,
    does_read_calls,
    hurry_of,
    interval_of,
)
from concur.controllers.concur import Concur, ConcurParams
from concur.controllers.fixed import CapParams, NoParams, no_control, static_cap
from concur.controllers.fleet_twin import twins
from concur.controllers.gradient import Gradient, GradientParams
from concur.controllers.hybrid import Hybrid, HybridParams
from concur.controllers.ledger import LedgerLaw, LedgerParams
from concur.controllers.parameters import fitted_params
from concur.controllers.turnover import Turnover, TurnoverParams
from concur.controllers.twin import Twin, TwinParams
from concur.controllers.vegas import Vegas, VegasParams
from concur.controllers.wrappers import AppLimited, Fresh
from concur.errors import ParameterError
from concur.gate import AgentGate, Gate, RequestGate

__all__ = [
    "CATALOG",
    "WRAPPERS",
    "Controller",
    "ControllerParams",
    "ControllerSpec",
    "Law",
    "LogValue",
    "budget_of",
    "controller_params",
    "does_read_calls",
    "hurry_of",
    "interval_of",
    "make_controller",
    "make_controllers",
    "make_gate",
]


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """One line of the catalog: parameters, constructor, and the gate that holds the slots.

    `build_all`, of a law that decides for several gates together, makes one for each; it is told how many
    there are, and after which wait agents move to another gate, `None` if they never do by themselves.
    """

    params: type[ControllerParams]
    build: Callable[[Any], Controller]
    gate: type[Gate] = AgentGate
    build_all: Callable[[Any, int, float | None], Sequence[Controller]] | None = None


_OWN: Final = {
    "none": ControllerSpec(NoParams, no_control),
    "request_cap": ControllerSpec(CapParams, static_cap, RequestGate),
    "agent_cap": ControllerSpec(CapParams, static_cap),
    "concur": ControllerSpec(ConcurParams, Concur),
    "ledger": ControllerSpec(LedgerParams, LedgerLaw),
    "turnover": ControllerSpec(TurnoverParams, Turnover),
    "vegas": ControllerSpec(VegasParams, Vegas),
    "gradient": ControllerSpec(GradientParams, Gradient),
    "hybrid": ControllerSpec(HybridParams, Hybrid),
    "twin": ControllerSpec(TwinParams, Twin),
    "fleet_twin": ControllerSpec(TwinParams, Twin, build_all=twins),
}
CATALOG: Final[Catalog[ControllerSpec]] = Catalog(
    "concur.controllers",
    _OWN,
    what="kind",
    fits=lambda entry: isinstance(entry, ControllerSpec),
    holds="a concur.ControllerSpec",
)
WRAPPERS: Final[Mapping[str, Callable[[Controller], Controller]]] = {
    "app_limited": AppLimited,
    "fresh": Fresh,
}


def controller_params(kind: str, given: Mapping[str, Any]) -> ControllerParams:
    """Return the parameters of `kind`, defaults filled in.

    Raises
    ------
    ParameterError
        If `kind` or a key of `given` is unknown, a value has the wrong type or is out of bounds, or a
        parameter without default is missing.
    """
    return fitted_params(CATALOG[kind].params, given, of=kind, section="controller")


def make_controller(kind: str, *, wrappers: tuple[str, ...] = (), **given: Any) -> Controller:
    """Build a controller by name, inside the named guards (the last one outermost).

    Raises
    ------
    ParameterError
        See `controller_params`; or if a wrapper is unknown.
    """
    return _guarded(CATALOG[kind].build(controller_params(kind, given)), wrappers)


def make_controllers(
    kind: str,
    number: int,
    *,
    move_after_s: float | None = None,
    wrappers: tuple[str, ...] = (),
    **given: Any,
) -> list[Controller]:
    """Build a controller for each of several gates, those of one law that decides for all of them together.

    `move_after_s`: the seconds after which agents that wait may go to another gate, `None` if they stay.

    Raises
    ------
    ParameterError
        As `make_controller`.
    """
    spec, params = CATALOG[kind], controller_params(kind, given)
    if spec.build_all is None:
        return [_guarded(spec.build(params), wrappers) for _ in range(number)]
    return [_guarded(each, wrappers) for each in spec.build_all(params, number, move_after_s)]


def _guarded(controller: Controller, wrappers: tuple[str, ...]) -> Controller:
    for name in wrappers:
        if name not in WRAPPERS:
            raise ParameterError(f"wrapper = {name!r} but must be one of {', '.join(WRAPPERS)}")
        controller = WRAPPERS[name](controller)
    return controller


def make_gate(kind: str, window: int, **options: Any) -> Gate:
    """Build the gate that the windows of `kind` apply to; `options` go to the gate."""
    gate = CATALOG[kind].gate
    if gate is RequestGate:
        for name in ("orders", "lease_s"):  # calls are first come, first served, and never silent
            options.pop(name, None)
    return gate(window, **options)
