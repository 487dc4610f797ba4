"""The `concur` command: one root, whose verbs the packages bring themselves.

A package names its verbs under the entry-point group `concur.verbs`; so the root needs none of them, and
imports keep pointing one way. A verb is loaded when it is run, or asked for its help: the list of all of them
costs no more than their names.
"""

import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any, Final, NoReturn

from concur.errors import ConcurError
from concur.verbs import Verb

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
    from typer.main import get_command
except ImportError as error:  # the control layer alone needs nothing, and has no verbs
    if sys.argv[1:] == ["--version"]:
        print(f"concur {version('concur-admission')}")
        sys.exit(0)
    print(f"concur: {error.name} is not installed here; pip install 'concur-admission[lab]'", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Iterator


def verbs() -> "Iterator[Verb]":
    """Yield the verbs of every installed package."""
    for entry in sorted(entry_points(group="concur.verbs"), key=lambda entry: entry.value):
        yield from entry.load()


class Root(TyperGroup):
    """The verbs by name; for a list of them they are stubs with a line of help each."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        return [verb.name for verb in verbs()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the stub of a verb."""
        found = {verb.name: verb for verb in verbs()}.get(cmd_name)
        return None if found is None else TyperCommand(found.name, help=found.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the verb that is to be run."""
        name, stub, rest = super().resolve_command(ctx, args)
        if stub is None:  # a shell asks how a word goes on
            return name, stub, rest
        (verb,) = (verb for verb in verbs() if verb.name == stub.name)
        return name, get_command(_application(verb)), rest


def _application(verb: Verb) -> Any:
    module, _, attribute = verb.application.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "concur":
            raise
        from concur.sim.errors import how_to_install

        needed = f"concur {verb.name} needs {error.name}, which is not installed here"
        _refuse(f"{needed}; {how_to_install(verb.extra)}")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from concur.sim.record.provenance import git_commit, short_commit

        commit = git_commit()
        told = f" (commit {short_commit(commit)})" if commit else ""
        print(f"concur {version('concur-admission')}{told}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Return the command."""
    app = typer.Typer(
        name="concur",
        cls=Root,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback(no_args_is_help=True)
    def root(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ) -> None:
        """Agent-level admission control for LLM inference: simulate, compare, report."""

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
