"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from concur.errors import ConcurError


@contextmanager
def whole_file(path: Path, error: type[ConcurError]) -> Iterator[Path]:
    """Give a temporary place to write to, and rename it to `path` when it is written.

    The place is this process's own: two that write the same file do not meet, and the later one stands.

    Raises
    ------
    ConcurError
        The `error` given, if the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem}); choose another place") from None
