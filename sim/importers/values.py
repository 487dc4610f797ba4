"""Counts and times as recordings write them: each reader returns `None` for what is none."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from concur.sim.section import MAX_TOKENS
from concur.sim.traces.format import MAX_SECONDS


def count_of(value: Any) -> int | None:
    """Return a number of tokens, written as a number or as digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= MAX_TOKENS or value != int(value):
        return None
    return int(value)


def number_of(value: Any) -> float | None:
    """Return a finite number, written as a number or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def duration_of(value: Any) -> float | None:
    """Return seconds that can have passed: a number from 0 to the longest that a trace may hold."""
    number = number_of(value)
    return number if number is not None and 0 <= number <= MAX_SECONDS else None


def time_of(value: Any) -> float | None:
    """Return a time in seconds since 1970, written as such or in ISO 8601, there in UTC if without a zone."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return number_of(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number_of(value)


def scaled(value: Any, scale: float) -> float | None:
    """Return a number times `scale`: milliseconds as seconds, for one."""
    number = number_of(value)
    return None if number is None else number * scale


def text_of(value: Any) -> str | None:
    """Return an identifier, written as text or as a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def object_of(value: Any) -> Mapping[str, Any]:
    """Return an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list, or an empty one."""
    return value if isinstance(value, list) else []


def parsed(value: Any) -> Any:
    """Return a value that is written as JSON within a text, as databases export it; any other as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
