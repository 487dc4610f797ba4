"""The verbs `concur trace describe`, `check`, `import` and `schema`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.trace_import import import_traces
from concur.sim.errors import TraceError
from concur.sim.files import whole_file
from concur.sim.importers.foreign import read_own_trace
from concur.sim.show.tables import print_tables, trace_table
from concur.sim.traces.format import TraceAgent
from concur.sim.traces.format import schema as line_schema
from concur.sim.workload.describe import default_losses, describe_trace
from concur.sim.workload.trees import trees_of

app = typer.Typer(no_args_is_help=True, help="Look at agent traces, and make them of recordings.")
app.command("import")(import_traces)
_Trace = Annotated[Path, typer.Argument(metavar="FILE", help="A trace, .jsonl or .jsonl.gz.")]


@app.command()
def describe(
    trace: _Trace,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="PNG", help="Draw the trees of the trace into a file.")
    ] = None,
) -> None:
    """Print the distributions of a trace; of one with sub-agents, also those of its trees."""
    agents = read_own_trace(trace)
    print_tables(trace_table(describe_trace(agents), trace.name))
    if figure is not None:
        _draw(agents, trace.name, figure)


@app.command()
def check(trace: _Trace) -> None:
    """Check that a trace keeps to the format."""
    agents = read_own_trace(trace)
    print(f"{trace}: ok, {len(agents)} agents, {sum(len(agent.steps) for agent in agents)} calls")
    for line in default_losses(agents):
        print(f"by default: {line}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a line of a trace."""
    print(json.dumps(line_schema(), indent=1))


def _draw(agents: Sequence[TraceAgent], name: str, path: Path) -> None:
    from concur.sim.show.figures import png_bytes, style  # Matplotlib takes a second
    from concur.sim.show.trace_figure import trace_figure

    with style():
        drawn = png_bytes(trace_figure(trees_of(agents), name))
    with whole_file(path, TraceError) as place:
        place.write_bytes(drawn)
    print(f"figure: {path}")
