"""What a section of the scenario file is: frozen, every key known, every value bounded."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_AGENTS: Final = 1_000_000
"""Bound of a run: an agent takes 5 to 12 kB, so that this many fit the memory of one machine with 24 GB."""
MAX_BLOCKS: Final = 50_000_000
"""Bound of a pool: where it is kept block by block, a block takes 0.2 to 0.4 kB."""
MAX_TOKENS: Final = 1_000_000_000
"""Bound of everything that is counted in tokens, as in traces; no machine holds more."""
MAX_SEED: Final = 2**63 - 1
"""Bound of a seed: what a column of a table holds."""

Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""A duration, or a time since the start of the run."""


class Section(BaseModel):
    """A table of the scenario file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ParameterSection(Section):
    """A section with `parameters` whose keys may be written flat, beside its own."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        return _gather_parameters(raw, cls.model_fields)


def _gather_parameters(raw: Any, known: Iterable[str]) -> Any:
    """Move the flat keys that are not the section's own into `parameters`."""
    if not isinstance(raw, dict):
        return raw
    own = {key: value for key, value in raw.items() if key in known}
    flat = {key: value for key, value in raw.items() if key not in known}
    given = own.get("parameters", {})
    return own | {"parameters": given | flat} if isinstance(given, dict) else raw
