"""The options that verbs have in common: one word for one thing, with one meaning everywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from concur.sim.cli.examples import or_example

ScenarioFile = Annotated[
    Path,
    typer.Argument(
        metavar="SCENARIO.toml", help="The experiment, or a packaged example.", callback=or_example
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable.")
]
Controllers = Annotated[
    list[str] | None,
    typer.Option(
        "--controllers",
        metavar="POLICY...",
        help="none, request_cap=N[,N], agent_cap=N[,N] or FIRST..LAST[..STEP], concur, hybrid, ..., "
        "oracle (the best static cap, by search); all that follow belong to it.",
    ),
]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="N[,N]|N..N", help="Seeds of the agents.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Runs at once; default: one per core.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Wide = Annotated[bool, typer.Option("--wide", help="All columns of the table, not only the key ones.")]

TAKES_POLICIES: Final = {"allow_extra_args": True, "ignore_unknown_options": False}
"""Context settings of a verb whose `--controllers` takes all words that follow."""


def policy_texts(context: typer.Context, controllers: Sequence[str] | None) -> list[str]:
    """Join what `--controllers` took with the bare policies after it."""
    if context.args and not controllers:
        raise typer.BadParameter(f"unexpected {context.args[0]!r}; policies come after --controllers")
    return [*(controllers or ()), *context.args]
