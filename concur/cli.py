"""The `concur` command: one root, whose verbs the packages bring themselves.

A package registers its verbs under the entry-point group `concur.verbs`; so the root needs none of them, and
imports keep pointing one way.
"""

import sys
from importlib.metadata import entry_points

import typer

from concur.errors import ConcurError


def build_app() -> typer.Typer:
    """Return the command with the verbs of every installed package."""
    app = typer.Typer(
        name="concur",
        help="Agent-level admission control for LLM inference: simulate, compare, report.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for verbs in sorted(entry_points(group="concur.verbs"), key=lambda entry: entry.name):
        verbs.load()(app)
    return app


def main() -> None:
    """Run the command; exit status 2 and one line on stderr for anything that the user can mend.

    An interrupt (Ctrl-C) is status 130: records are renamed into place when they are whole.
    """
    try:
        build_app()()
    except ConcurError as error:
        print(f"concur: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
