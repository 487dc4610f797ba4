"""What happens, as lines of JSON: for machines. Never a header, a body or a key."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


class EventLog:
    """Write events, one a line. A log that cannot be written is no reason to stop serving."""

    def __init__(self, stream: TextIO, *, now: Callable[[], datetime] = utc_now) -> None:
        self._stream = stream
        self._now = now

    def write(self, event: str, **fields: Any) -> None:
        """Write one event; fields that are `None` are left out."""
        told = {name: value for name, value in fields.items() if value is not None}
        line = json.dumps({"time": self._now().isoformat(timespec="milliseconds"), "event": event} | told)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            logging.getLogger(__name__).debug("the log cannot be written")


class WarningsToEvents(logging.Handler):
    """Take what the control layer warns of into the same log."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning."""
        self._log.write("warning", source=record.name, message=record.getMessage())
