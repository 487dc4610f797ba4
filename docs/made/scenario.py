"""The page of the scenario file: every key with its type, bound, unit and default, from the models."""

import inspect
import json
import re
from collections.abc import Collection
from typing import Any, Final

from pydantic import BaseModel

from concur.sim.scenario.scenario import Scenario
from concur.sim.section import Section
from concur.sim.workload.generators import GENERATORS
from docs.made.laws import as_markdown

_UNITS: Final = {
    "_bytes_per_s": "bytes/s",
    "_per_s": "1/s",
    "_s": "s",
    "_tokens": "tokens",
    "_blocks": "blocks",
    "_frac": "0 to 1",
    "_bytes": "bytes",
}
_HEAD: Final = """# Scenario keys

One TOML file is one experiment. Every key has a bound, unknown keys are errors, and every default is written
into `run.json`. `--set section.key=value` changes any of them. `seed` stands above the sections. A law's
parameters may be written flat under `[controller]` ([the laws](../concepts/laws.md)), a generator's under
`[workload]`.
"""


def page() -> str:
    """Return the page: a table a section, and the parameters of the generators."""
    found = sections(Scenario)
    titles = [title_of(section) for section in found]
    parts = [
        _section(section, title if titles.count(title) == 1 else f"{title}, {_words(section)}")
        for section, title in zip(found, titles, strict=True)
    ]
    return "\n".join([_HEAD, *parts, _generators()])


def title_of(section: type[BaseModel]) -> str:
    """Return the section's name in a file, as its docstring begins; that of the class where it does not."""
    named = re.match(r"`(\[[^`]+\])`", section.__doc__ or "")
    return named[1] if named else _words(section)


def _words(section: type[BaseModel]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", section.__name__.removesuffix("Config")).lower()


def sections(model: type[BaseModel]) -> list[type[Section]]:
    """Return every section that a model reaches, each once."""
    found: dict[type[Section], None] = {}
    for field in model.model_fields.values():
        for part in _types_in(field.annotation):
            if issubclass(part, Section) and part not in found:
                found[part] = None
                found.update(dict.fromkeys(sections(part)))
    return list(found)


def _types_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [part for argument in arguments for part in _types_in(argument)]


def _section(model: type[BaseModel], title: str) -> str:
    text = as_markdown(inspect.cleandoc(model.__doc__ or ""))
    return f"## {title}\n\n{text}\n\n{schema_rows(model.model_json_schema(), without=('parameters',))}\n"


def schema_rows(schema: dict[str, Any], *, without: Collection[str] = ()) -> str:
    """Return a table of the fields of a JSON schema; sections within it have tables of their own."""
    required = schema.get("required", ())
    rows = [
        _row(name, each, is_required=name in required)
        for name, each in schema.get("properties", {}).items()
        if "$ref" not in each and name not in without
    ]
    return "\n".join(["| key | type | bound | unit | default |", "|---|---|---|---|---|", *rows])


def _row(name: str, schema: dict[str, Any], *, is_required: bool) -> str:
    unit = next((unit for ending, unit in _UNITS.items() if f"_{name}".endswith(ending)), "")
    told = "required" if is_required else _told(schema.get("default"))
    cells = (f"`{name}`", _type(schema), _bound(schema), unit, told)
    return f"| {' | '.join(cells)} |"


def _told(default: Any) -> str:
    return "none" if default is None else f"`{json.dumps(default)}`"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"`{value}`" for value in values)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        kinds = (
            "a table" if "$ref" in each else _type(each) for each in choices if each.get("type") != "null"
        )
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return (
            f"list of {_type(schema['items'])}" if "$ref" not in schema.get("items", {}) else "list of tables"
        )
    return str(schema.get("type", "table"))


def _bound(schema: dict[str, Any]) -> str:
    parts = [schema, *schema.get("anyOf", ()), schema.get("items", {})]
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {_number(part[key])}" for part in parts for key, sign in words.items() if key in part]
    return ", ".join(found)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def _generators() -> str:
    parts = [
        "## Generators\n\nWhere there is no trace. Their parameters are written flat under `[workload]`.\n"
    ]
    parts += [_section(GENERATORS[name], f"{name}").replace("## ", "### ", 1) for name in GENERATORS.own]
    return "\n".join(parts)
