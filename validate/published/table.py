"""A published table as data: what was run, what was measured, and how near a prediction has to come.

One TOML file each, in `tables/`. `[sessions]` says how the agents were made, `[engine]`, `[step_time]` and
`[gate]` are those of a scenario file; each `[[arm]]` has a policy, what was measured of it, run by run, and
in `within` the rule, stated before anything is predicted: for rates and shares an absolute difference, for
all else one relative to the measured mean.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import explain, read_toml
from concur.sim.workload.spec import AgentSpec, StepSpec, Workload
from concur.validate.errors import PublishedError

FOLDER: Final = Path(__file__).with_name("tables")
SHARES: Final = ("hit_rate", "peak_kv_cache_usage_frac")
"""Metrics whose errors are differences; those of all others are relative."""

_Metrics = dict[str, Annotated[tuple[float, ...], Field(min_length=1)]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Draw(_Part):
    """A normal distribution, cut at both ends."""

    mean: float
    sd: float
    least: int
    most: int

    def draw(self, rng: np.random.Generator) -> int:
        """Return a whole number of tokens."""
        return min(self.most, max(self.least, round(rng.normal(self.mean, self.sd))))


class Sessions(_Part):
    """Closed-loop sessions that start evenly spread, each turn a little longer than the one before."""

    number: int
    start_over_s: float
    think_s: float
    first_prompt_tokens: Draw
    new_tokens: int
    answer_tokens: tuple[Draw, ...]

    def workload(self, seed: int) -> Workload:
        """Return the sessions of a seed."""
        rng = np.random.default_rng(seed)
        gap_s = self.start_over_s / self.number
        agents = [
            AgentSpec(f"session-{n}", n, None, 0, n * gap_s, self._steps(rng)) for n in range(self.number)
        ]
        return Workload(tuple(agents), source="published sessions")

    def _steps(self, rng: np.random.Generator) -> tuple[StepSpec, ...]:
        steps: list[StepSpec] = []
        for answer in self.answer_tokens:
            kept = steps[-1].context_tokens if steps else 0
            new = self.new_tokens if steps else self.first_prompt_tokens.draw(rng)
            steps.append(StepSpec(kept, new, answer.draw(rng), self.think_s))
        return tuple(steps)


class Arm(_Part):
    """One row: a policy, what was measured of it (nothing: nobody did), and the rule that judges us."""

    name: str
    policy: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)
    measured: _Metrics = Field(default_factory=dict)
    within: dict[str, float] = Field(default_factory=dict)


class PublishedTable(_Part):
    """A table, where it is from, and what we assume because it does not say."""

    title: str
    source: str
    assumed: tuple[str, ...]
    sessions: Sessions
    engine: dict[str, Any]
    step_time: dict[str, Any]
    gate: dict[str, Any] = Field(default_factory=dict)
    arm: tuple[Arm, ...]

    def scenario(self, arm: Arm, seed: int) -> Scenario:
        """Return the experiment of one arm; its workload is `sessions.workload(seed)`."""
        raw: dict[str, Any] = {
            "seed": seed,
            "workload": {"generator": "react", "num_agents": self.sessions.number},
            "engine": self.engine,
            "step_time": self.step_time,
            "gate": self.gate | arm.gate,
            "controller": {"kind": "none"},
            "record": {"timeline_interval_s": 2.0},
        }
        scenario = parse_scenario(raw, origin=self.title)
        (controller,) = scenario.policies(arm.policy, origin=f"{self.title}: {arm.name}:")
        own = controller.model_dump(mode="json")
        own["parameters"] |= arm.parameters
        return scenario.with_controller(ControllerConfig.model_validate(own))


def table_names() -> list[str]:
    """Return the names of the tables that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def load_table(name: str) -> PublishedTable:
    """Read a table by its name.

    Raises
    ------
    PublishedError
        If there is no such table, or its file is not one.
    """
    path = FOLDER / f"{name}.toml"
    if not path.exists():
        raise PublishedError(f"no published table is called {name!r}; there are {', '.join(table_names())}")
    raw: Mapping[str, Any] = read_toml(path, what="published table")
    try:
        return PublishedTable.model_validate(raw)
    except ValidationError as error:
        raise PublishedError(str(explain(error, str(path), can_set=False))) from None
