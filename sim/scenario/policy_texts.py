"""Policies by their text, as `--controllers` and `[compare]` name them."""

from typing import Any, Final

from pydantic import ValidationError

from concur.sim.errors import ScenarioError
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import explain, toml_value

_MOST_CAPS: Final = 10_000  # of one `first..last`


def parse_controllers(
    text: str, base: ControllerConfig, *, interval_s: float | None = None, origin: str = "--controllers"
) -> list[ControllerConfig]:
    """Read one `--controllers` item: `none`, `agent_cap=8,16,32`, `agent_cap=8..64..4`, `concur+app_limited`.

    Parameters given in `[controller]` of the scenario (`base`) stay in force for the same `kind`, and are
    nothing to any other: a law's run in a comparison is its run alone. `interval_s`, that of `[compare]`,
    holds for every kind.

    Raises
    ------
    ScenarioError
        If the kind, a wrapper or a cap is not one.
    """
    name, _, values = text.partition("=")
    kind, *wrappers = name.split("+")
    given = dict(base.parameters) if kind == base.kind else {}
    if interval_s is not None:
        given["interval_s"] = interval_s
    raws: list[dict[str, Any]] = [given | {"kind": kind, "wrappers": wrappers}]
    if values:
        raws = [raws[0] | {"cap": value} for part in values.split(",") for value in _caps(part)]
    try:
        return [ControllerConfig.model_validate(raw) for raw in raws]
    except ValidationError as error:
        message = str(explain(error, f"{origin} {text}")).replace(": scenario:", ":")
        raise ScenarioError(f"{message}; e.g. none, agent_cap=8,16, concur") from None


def _caps(text: str) -> list[Any]:
    """Read one cap, or a sweep `first..last` or `first..last..step`, both ends included."""
    if ".." not in text:
        return [toml_value(text)]
    numbers = [toml_value(part) for part in text.split("..")]
    if len(numbers) > 3 or any(type(number) is not int or number < 1 for number in numbers):
        return [text]  # for the catalog to refuse by name
    first, last, step = (*numbers, 1)[:3]
    caps = range(first, last + 1, step)[: _MOST_CAPS + 1]
    return list(caps) if 0 < len(caps) <= _MOST_CAPS else [text]
