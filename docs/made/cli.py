"""The page of the command line: every verb with its arguments and options, from the command itself."""

from typing import Any, Final

import typer

from concur.cli import build_app

_HEAD: Final = """# Command line

Every verb with what it takes. In short, with examples: [the commands](commands.md). Exit status 2 and one
line on stderr say what the user can mend; 130 is an interrupt. Results go to stdout, progress and warnings
to stderr.
"""


def page() -> str:
    """Return the page: a section a verb, those of groups too."""
    root: Any = typer.main.get_command(build_app())
    context = root.make_context("concur", [], resilient_parsing=True)
    verbs = [root.resolve_command(context, [name])[:2] for name in root.list_commands(context)]
    return "\n".join([_HEAD, *(_verb(f"concur {name}", command, context) for name, command in verbs)])


def _verb(name: str, command: Any, above: Any) -> str:
    context = command.make_context(name, [], parent=above, resilient_parsing=True)
    inner = getattr(command, "commands", {})
    if inner:
        parts = [_verb(f"{name} {each}", verb, context) for each, verb in inner.items()]
        return "\n".join([f"## {name}\n\n{_paragraphs(command.help)}\n", *parts])
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    rows = "\n".join(_row(each) for each in command.params if not getattr(each, "hidden", False))
    level = "##" if name.count(" ") == 1 else "###"
    return (
        f"{level} {name}\n\n{_paragraphs(command.help)}\n\n```text\n{usage}\n```\n\n"
        f"| | what | default |\n|---|---|---|\n{rows}\n"
    )


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    named = (
        (parameter.metavar or parameter.name.upper())
        if is_argument
        else ", ".join([*parameter.opts, *parameter.secondary_opts])
    )
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    return f"| `{named}` | {text} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or callable(value) or value in ("", (), []) or "UNSET" in repr(value):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
