"""`[fleet]` of the scenario file: several engines, and what stands in front of them."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from concur.routing import router_params
from concur.sim.section import ParameterSection, Seconds, Section

MAX_ENGINES: Final = 1024
_OF_PLACEMENT: Final = ("placement", "move_after_s")


class EngineOverrides(Section):
    """`[[fleet.engines]]`: `count` engines that differ from `[engine]` and `[step_time]` in these keys.

    Of another `kind` than `[engine]`, an engine is described by `engine` alone, with nothing taken over.
    """

    count: int = Field(1, ge=1, le=MAX_ENGINES)
    engine: dict[str, Any] = Field(default_factory=dict)
    step_time: dict[str, Any] = Field(default_factory=dict)


class Outage(Section):
    """`[[fleet.outages]]`: an engine dies at `at_s`, and is back at `until_s`, its cache empty, or never.

    Its calls are aborted and made again elsewhere; see `concur.sim.world.outages`.
    """

    engine: int = Field(ge=0)
    at_s: Seconds
    until_s: Seconds | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(
                f"until_s = {self.until_s} but must be later than at_s = {self.at_s}; leave it out for never"
            )
        return self


class FleetConfig(ParameterSection):
    """`[fleet]`: engines behind a router, and one gate or one for each.

    `num_engines` like the one of `[engine]`, or `engines`, a list of different ones. `routing` is a router of
    the catalog (`concur.routing`); its parameters may be written flat. `gate`: `global` is one gate with one
    law, which sees the sum of the fleet; `per_engine` and `placement` are a gate and a law each. With
    `placement` there is no router: new agents go to the engine with the most room, others back to theirs, and
    after waiting there for `move_after_s` to another one with room (8 s: what a published run found to give
    the best tail); `placement = "most_room"` asks for the most room first. See `concur.gate.placement`.
    `outages`: engines that die, and may come back.
    """

    num_engines: int | None = Field(None, ge=1, le=MAX_ENGINES)
    engines: tuple[EngineOverrides, ...] = ()
    routing: str = "round_robin"
    gate: Literal["global", "per_engine", "placement"] = "global"
    placement: Literal["origin", "most_room"] = "origin"
    move_after_s: Annotated[float, Field(ge=0, le=1e9)] = 8.0
    outages: tuple[Outage, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.num_engines is None) == (not self.engines):
            raise ValueError(
                "num_engines and engines: give one of them, the number of engines or a list of different ones"
            )
        if self.size > MAX_ENGINES:
            raise ValueError(f"engines are {self.size} but must be at most {MAX_ENGINES}")
        self._check_outages()
        if self.gate == "placement":
            if self.routing != type(self).model_fields["routing"].default or self.parameters:
                raise ValueError(
                    'gate = "placement" asks no router; leave routing and its parameters out, or choose '
                    'gate = "per_engine"'
                )
            return self
        given = [name for name in _OF_PLACEMENT if name in self.model_fields_set]
        if given and any(getattr(self, name) != type(self).model_fields[name].default for name in given):
            raise ValueError(f'{given[0]} is for gate = "placement"; leave it out or choose that')
        params = router_params(self.routing, self.parameters)
        names = type(params).__dataclass_fields__.keys() - {"seed"}
        self.parameters.update({name: getattr(params, name) for name in sorted(names)})
        return self

    def _check_outages(self) -> None:
        ends: dict[int, float] = {}
        for outage in sorted(self.outages, key=lambda each: each.at_s):
            if outage.engine >= self.size:
                raise ValueError(
                    f"outages: engine = {outage.engine} but must be below {self.size}, the number of engines"
                )
            if outage.at_s <= ends.get(outage.engine, -1.0):
                raise ValueError(
                    f"outages: engine {outage.engine} dies at {outage.at_s} s and has not been back since an "
                    "earlier outage; let that end before"
                )
            ends[outage.engine] = math.inf if outage.until_s is None else outage.until_s
        if list(ends.values()).count(math.inf) == self.size:
            raise ValueError(
                f"outages: all {self.size} engines die and none comes back, so that the run would never end; "
                "give one of them until_s"
            )

    @property
    def size(self) -> int:
        """Number of engines."""
        return self.num_engines or sum(each.count for each in self.engines)

    @property
    def label(self) -> str:
        """Short name for tables: `4 x session, per_engine`."""
        how = self.placement if self.gate == "placement" else self.routing
        return f"{self.size} x {how}, {self.gate}"

    def overrides(self) -> Iterator[EngineOverrides]:
        """Yield what is different about each engine, one by one."""
        if not self.engines:
            yield from [EngineOverrides()] * self.size
        for each in self.engines:
            yield from [each] * each.count


def overridden(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with some keys of its own; of another `kind`, with nothing of the base."""
    kind = "profile" if "profile" in changes else base.get("kind")
    if changes and changes.get("kind", kind) != base.get("kind"):
        return dict(changes)
    merged = dict(base)
    for key, value in changes.items():
        is_table = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overridden(merged[key], value) if is_table else value
    return merged
