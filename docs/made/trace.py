"""The page of the trace format: its own words, and a table of the fields from its schema."""

import inspect
from typing import Any

from concur.sim.traces import format as trace_format
from docs.made.laws import as_markdown
from docs.made.scenario import schema_rows


def page() -> str:
    """Return the page."""
    schema = trace_format.schema()
    parts = [_table("A line: one agent", schema)]
    parts += [_table(name, part) for name, part in schema.get("$defs", {}).items()]
    text = as_markdown(inspect.cleandoc(trace_format.__doc__ or ""))
    return "\n".join(["# Trace schema\n", text, "", *parts])


def _table(title: str, schema: dict[str, Any]) -> str:
    return f"## {title}\n\n{schema.get('description', '')}\n\n{schema_rows(schema)}\n"
