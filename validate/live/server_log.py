"""What the log of a starting vLLM server says: the latest, and why it ended."""

import os
import re
from pathlib import Path
from typing import Final

_MOST_TAIL: Final = 4096  # bytes that are read for the last line
_WHO_AND_WHEN: Final = re.compile(r"^\(\w+ pid=\d+\) (\w+ [\d-]+ [\d:]+ )?")
_EXCEPTION: Final = re.compile(r"^(?:\[\S+\] )?(\w*(?:Error|Exception): .+)")


def last_line(log_path: Path) -> str:
    """Return the last line that is not empty, without who wrote it and when."""
    with log_path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _MOST_TAIL))
        lines = log.read().decode("utf-8", errors="replace").split("\n")
    return _words(next((line for line in reversed(lines) if line.strip()), ""))


def explain_end(log_path: Path, *, num_lines: int = 8) -> str:
    """Return the first exception in a log, which is the one that the others follow from, or else its end."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    raised = next((found for line in lines if (found := _EXCEPTION.match(_words(line)))), None)
    if raised is not None:
        return f"{raised[1].strip()} (more in {log_path})"
    return f"the end of {log_path}:\n" + "\n".join(lines[-num_lines:])


def _words(line: str) -> str:
    return _WHO_AND_WHEN.sub("", line.strip())
