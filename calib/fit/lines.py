"""JSON lines from disk, plain or gzip, with errors that name the line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concur.calib.errors import SamplesError


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and object of each line of a `.jsonl` or `.jsonl.gz` file; skip empty lines.

    Raises
    ------
    SamplesError
        If the file is missing or cut off, or a line is no JSON object.
    """
    number = 0
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parsed(path, number, line)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SamplesError(
            f"{path}: not readable after line {number} ({error}); record again, or keep the lines before it"
        ) from None


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise SamplesError(f"{path}:{number}: no JSON ({error}); delete the line if it was cut off") from None
    if not isinstance(value, dict):
        raise SamplesError(f"{path}:{number}: {value!r:.40} but must be a JSON object; record again")
    return value
