"""The verb `concur example`: what scenarios come with the package."""

from typing import Annotated

import typer

from concur.sim.cli.examples import folder, names
from concur.sim.errors import ScenarioError

app = typer.Typer()


@app.command()
def example(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME.toml", help="Print this one; none: list them all.")
    ] = None,
) -> None:
    """List the packaged examples, or print one: `concur example react.toml > mine.toml`.

    Verbs take an example by its name too, where there is no file of that name.
    """
    if name is None:
        for known in names():
            print(f"{known:<28} {_first_comment(known)}")
        return
    if name not in names():
        raise ScenarioError(f"{name}: no such example; choose from {', '.join(names())}")
    print((folder() / name).read_text(encoding="utf-8"), end="")


def _first_comment(name: str) -> str:
    first = (folder() / name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
