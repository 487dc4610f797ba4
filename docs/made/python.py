"""The page of the Python API: the names that the packages show, with signature and docstring."""

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from docs.made.laws import as_markdown

_FACES: Final = ("concur", "concur.sim")
_MODULES: Final = {"concur.live.engine_gate": ("engine_gate",), "concur.live.decorate": ("gated", "as_agent")}


def page() -> str:
    """Return the page."""
    parts = ["# Python API\n"]
    for name in _FACES:
        face = import_module(name)
        parts.append(f"## {name}\n\n{as_markdown(inspect.cleandoc(face.__doc__ or ''))}\n")
        parts += [_entry(face, each) for each in face.__all__ if not each.startswith("_")]
    for name, entries in _MODULES.items():
        parts.append(f"## {name}\n")
        parts += [_entry(import_module(name), each) for each in entries]
    return "\n".join(parts)


def _entry(module: ModuleType, name: str) -> str:
    thing = getattr(module, name)
    if not callable(thing):
        return f"### {name}\n\n`{name} = {thing!r}`\n"
    text = as_markdown(inspect.getdoc(thing) or "")
    return f"### {name}\n\n```python\n{name}{_signature(thing)}\n```\n\n{text}\n"


def _signature(thing: Any) -> str:
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    return "" if text == "(*args, **kwargs)" else text.replace("<factory>", "...")
