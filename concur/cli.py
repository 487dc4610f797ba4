"""The `concur` command: one root, whose verbs the packages bring themselves.

A package registers its verbs under the entry-point group `concur.verbs`; so the root needs none of them, and
imports keep pointing one way.
"""

import sys
from importlib.metadata import entry_points
from typing import Any, Final, NoReturn

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


_UsageError: Final[Any] = typer.BadParameter.__bases__[
    0
]  # of click, or of the copy that typer has made of it


def main() -> None:
    """Run the command; exit status 2 and one line on stderr for anything that the user can mend.

    An interrupt (Ctrl-C) is status 130: records are renamed into place when they are whole.
    """
    try:
        status = build_app()(prog_name="concur", standalone_mode=False)
    except ConcurError as error:
        _refuse(str(error))
    except KeyboardInterrupt:  # while the packages load; within a verb it is the status already
        sys.exit(130)
    except typer.Abort:
        sys.exit(1)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            error.show()
            sys.exit(2)
        _refuse(_one_sentence(error))
    sys.exit(status if isinstance(status, int) else 0)


def _one_sentence(error: Any) -> str:
    """Return what is wrong with the usage, and where to read more."""
    problem = error.format_message().strip().rstrip(".").removeprefix("Invalid value: ")
    problem = problem.replace("Value error, ", "").replace("Input should", "must")
    command = getattr(error.ctx, "command_path", "concur")
    return f"{problem[:1].lower()}{problem[1:]}; see {command} --help"


def _refuse(problem: str) -> NoReturn:
    print(f"concur: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
