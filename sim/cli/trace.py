"""The verbs `concur trace describe`, `check` and `import`."""

from pathlib import Path
from typing import Annotated

import typer

from concur.sim.cli.trace_import import import_traces
from concur.sim.importers.foreign import read_own_trace
from concur.sim.show.tables import print_tables, trace_table
from concur.sim.workload.describe import default_losses, describe_trace

app = typer.Typer(no_args_is_help=True, help="Look at agent traces, and make them of recordings.")
app.command("import")(import_traces)
_Trace = Annotated[Path, typer.Argument(metavar="FILE", help="A trace, .jsonl or .jsonl.gz.")]


@app.command()
def describe(trace: _Trace) -> None:
    """Print the distributions of a trace."""
    print_tables(trace_table(describe_trace(read_own_trace(trace)), trace.name))


@app.command()
def check(trace: _Trace) -> None:
    """Check that a trace keeps to the format."""
    agents = read_own_trace(trace)
    print(f"{trace}: ok, {len(agents)} agents, {sum(len(agent.steps) for agent in agents)} calls")
    for line in default_losses(agents):
        print(f"by default: {line}")
