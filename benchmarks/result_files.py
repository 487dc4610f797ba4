"""The committed results, `examples/results/NAME.json`: policy -> metric -> number, or mean and half width."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from concur.sim.runs.policies import best_static_cap, is_static_cap

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "examples" / "results"

Result = dict[str, Any]


def read(name: str) -> Result:
    """Return a committed result."""
    result: Result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def write(name: str, result: Mapping[str, Any]) -> None:
    """Write a result, one policy a line, so that a change reads as one."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(row)}" for key, row in result.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def best_cap(result: Mapping[str, Any]) -> str | None:
    """Return the static cap with the shortest makespan; `None` if there is no cap."""
    return best_static_cap({policy: mean(row["makespan_s"]) for policy, row in result.items()})


def is_shown(policy: str, result: Mapping[str, Any]) -> bool:
    """Tell whether a policy is no static cap, or the best one."""
    return not is_static_cap(policy) or policy == best_cap(result)


def mean(value: Any) -> float:
    """Return a number, of an interval its mean."""
    return float(value["mean"] if isinstance(value, Mapping) else value)
