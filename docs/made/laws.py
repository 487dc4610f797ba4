"""The page of the laws: what each module says of its own equation and source."""

import inspect
import re
from importlib import import_module
from typing import Final

from concur.controllers import CATALOG

_ORDER: Final = ("concur", "ledger", "turnover", "vegas", "gradient", "hybrid", "twin", "fleet_twin")
_HEAD: Final = """# The laws

A law answers one question every few seconds: how many agents may hold a slot (the *window*). Each is a file
of its own in `concur/controllers`, and what follows is what that file says of itself: the equation, its
source, and what is ours. `none`, `request_cap` and `agent_cap` are the baselines; they decide nothing.
"""


def page() -> str:
    """Return the page: every law with its equation, its source and its parameters."""
    return "\n".join([_HEAD, *(_law(name) for name in _ORDER)])


def _law(name: str) -> str:
    text = inspect.cleandoc(import_module(f"concur.controllers.{name}").__doc__ or "")
    params = CATALOG[name].params
    defaults = "\n".join(
        f"| `{each.name}` | `{each.default}` |" for each in params.__dataclass_fields__.values()
    )
    return (
        f"## {name}\n\n{as_markdown(text)}\n\n{_parameters(params)}\n\n"
        f"| parameter | default |\n|---|---|\n{defaults}\n"
    )


def _parameters(params: type) -> str:
    """Return what a law says of its parameters; where it has them in columns, as they stand."""
    text = inspect.cleandoc(params.__doc__ or "")
    is_in_columns = re.search(r"^`\w+`  +", text, re.MULTILINE) is not None
    return f"```text\n{text}\n```" if is_in_columns else as_markdown(text)


def as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its literal blocks fenced, which may then hold any sign."""
    lines: list[str] = []
    is_code = False
    for line in docstring.splitlines():
        if line.strip() and line.startswith("    ") != is_code:
            is_code = not is_code
            _fence(lines, is_code=is_code)
        if line != "::":
            lines.append(line[4:] if is_code else re.sub(r"::$", ":", line))
    if is_code:
        _fence(lines, is_code=False)
    return "\n".join(lines)


def _fence(lines: list[str], *, is_code: bool) -> None:
    """Open a block, or close one above the blank lines at its end."""
    if is_code:
        lines.append("```text")
        return
    end = len(lines)
    while not lines[end - 1].strip():
        end -= 1
    lines.insert(end, "```")
