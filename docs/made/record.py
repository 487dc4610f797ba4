"""The page of metrics and columns: the words of the functions and classes that make them."""

import inspect
from typing import Any, Final

from concur.sim.record import rows
from concur.sim.record.phases import RULE
from concur.sim.show.glossary import metric_meanings

_HEAD: Final = """# Metrics and columns

`metrics` in `run.json`, from the tables alone and by the same formulas for a simulated and a live engine.
Where the record does not hold what a metric needs it is null, never 0.
"""


def page() -> str:
    """Return the page: the metrics, the phases' rule, and the columns of each table."""
    tables = [each for each in vars(rows).values() if isinstance(each, type) and hasattr(each, "_fields")]
    parts = [_HEAD, _metrics(), f"\n**Phases.** {RULE}.\n", *(_columns(each) for each in tables)]
    return "\n".join(parts)


def _metrics() -> str:
    lines = (f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in metric_meanings().items())
    return "\n".join(["| metric | meaning |", "|---|---|", *lines])


def _columns(table: Any) -> str:
    text = inspect.cleandoc(table.__doc__ or "")
    lines = (f"| `{name}` | {_type(kind)} |" for name, kind in table.__annotations__.items())
    return f"## {table.__name__}\n\n{text}\n\n| column | type |\n|---|---|\n" + "\n".join(lines) + "\n"


def _type(kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return name.replace(" | None", ", or null")
