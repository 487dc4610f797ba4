"""TOML files and what overrides them: reading, setting one key, and saying in one line what is wrong."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from concur.sim.errors import ScenarioError

# vLLM's own names for what the simulated engine does not do.
_NOT_SIMULATED: Final = {
    f"engine.{name}"
    for name in (
        "enable_lora",
        "kv_transfer_config",
        "limit_mm_per_prompt",
        "lora_config",
        "pipeline_parallel_size",
        "scheduling_policy",
        "sliding_window",
        "speculative_config",
    )
}


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    ScenarioError
        If there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such {what}; name a TOML file (examples/ has some)") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: not readable as TOML ({error})") from None


def relative_to(folder: Path, key: str, value: Any) -> Any:
    """Return the value of a scenario's key; if it is a path, one that is relative to `folder`."""
    is_path = key == "workload.trace" or (key == "step_time.profile" and str(value).endswith(".json"))
    return str(folder / value) if is_path and isinstance(value, str) else value


def parse_override(text: str) -> tuple[str, Any]:
    """Split `section.key=value` into key and value.

    Raises
    ------
    ScenarioError
        If it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip().split(".")[-1]:
        raise ScenarioError(f"--set {text}: not of the form section.key=value")
    return key.strip(), toml_value(value)


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set keys as `--set` names them; a path is made absolute, for workers may have another working folder.

    Raises
    ------
    ScenarioError
        If one is not of its form.
    """
    for override in overrides:
        key, value = parse_override(override)
        set_key(raw, key, relative_to(Path.cwd(), key, value), origin=f"--set {override}")


def toml_value(text: str) -> Any:
    """Read `text` as a TOML value; anything that is none is a bare string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def set_key(raw: dict[str, Any], key: str, value: Any, *, origin: str) -> None:
    """Set `section.key` in place; missing sections are made.

    Raises
    ------
    ScenarioError
        If one of the sections is a value.
    """
    *sections, name = key.split(".")
    table = raw
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ScenarioError(f"{origin}: {section} is a value, not a section")
    table[name] = value


def dotted(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables under dotted keys: `{"a": {"b": 1}}` gives ("a.b", 1)."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def explain(error: ValidationError, origin: str, *, can_set: bool = True) -> ScenarioError:
    """Say the first problem in one line: the key, the value, the bound, the remedy.

    `can_set`: whether `--set` reaches the key. That a key may also be left out is no problem of its own.
    """
    found = error.errors(include_url=False)
    problems = [each for each in found if each["type"] != "none_required"] or found
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<")) or "scenario"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    or_set = f" or use --set {key}=VALUE" if can_set else ""
    return ScenarioError(f"{origin}: {_problem(first, key, or_set)}{more}")


def _problem(error: ErrorDetails, key: str, or_set: str) -> str:
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    match error["type"]:
        case "missing":
            return f"{key} is missing; set it in the file{or_set}"
        case "extra_forbidden" if key in _NOT_SIMULATED:
            return f"{key} is not simulated, and not approximated either; remove it"
        case "extra_forbidden":
            return f"unknown key {key}; remove it or correct its spelling"
        case "value_error":
            return f"{key}: {message}"
        case "too_short":
            return f"{key} is empty but must have something in it; add to it or leave it out"
    return f"{key} = {error['input']!r} but {message}; correct it{or_set}"
