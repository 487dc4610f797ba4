"""Takes the text out of a recording, and leaves its structure, ids, times and counts."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

LONGEST_TEXT: Final = 100
_KEPT_CHARACTERS_OF_LISTS: Final = 1_500
_SUFFIXES: Final = (".json", ".jsonl")


def scrub_file(source: Path, target: Path, replacements: Mapping[str, str]) -> None:
    """Write a JSON or JSONL file without its texts, and with other names for what is of this machine."""
    text = source.read_text(encoding="utf-8")
    for found, instead in replacements.items():
        text = text.replace(found, instead)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".jsonl":
        lines = [json.dumps(scrub(json.loads(line))) for line in text.splitlines()]
    else:
        lines = [json.dumps(scrub(json.loads(text)), indent=1)]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def scrub(value: Any) -> Any:
    """Return a JSON value with a mark in the place of each long text, and of long descriptions."""
    if isinstance(value, str):
        return _scrub_text(value)
    if isinstance(value, list):
        return [scrub(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _mark(item) if _is_description(key, item) else scrub(item) for key, item in value.items()
        }
    return value


def _is_description(key: str, value: Any) -> bool:
    """Tell whether a value describes tools, skills or settings at length."""
    described = (
        "tools",
        "skills",
        "systemPrompt",
        "state",
        "environment",
        "config",
        "parameters",
        "input_schema",
    )
    return key in described and len(json.dumps(value)) > _KEPT_CHARACTERS_OF_LISTS


def _mark(value: Any) -> list[str] | dict[str, str]:
    mark = f"<{len(json.dumps(value))} characters>"
    return {"scrubbed": mark} if isinstance(value, dict) else [mark]


def _scrub_text(text: str) -> str:
    """Return a text, or a mark in its place; JSON within a text stays JSON."""
    if len(text) <= LONGEST_TEXT and "\n" not in text.strip():
        return text
    if text.startswith("{"):
        try:
            return json.dumps(scrub(json.loads(text)))
        except ValueError:
            pass
    names = re.findall(r"<(?:task-id|tool-use-id)>[^<]*</[a-z-]*>|agentId: \w+", text)
    return " ".join([f"<{len(text)} characters>", *names])
