"""Errors of the simulator, under the project's one root.

ConcurError
├── TraceError       a trace line that breaks the format
├── ScenarioError    a scenario that cannot be run as written
│   └── RequestAbortedError its engine gives a request up
├── ProfileError     a step-time profile that cannot be used
├── RecordError      a run record that cannot be read or written
├── WorkersLostError the processes that runs are given to are killed again and again
└── ExtraMissingError a package that only some verbs need
"""

from concur.errors import ConcurError


class TraceError(ConcurError, ValueError):
    """Report a broken trace: file, line, field, remedy."""


class ScenarioError(ConcurError, ValueError):
    """Report a scenario that cannot be run as written: the value, the bound, the remedy."""


class RequestAbortedError(ScenarioError):
    """Report that an engine gives up a request of this scenario: which, why, the remedy."""


class RecordError(ConcurError, ValueError):
    """Report a run record that cannot be read or written."""


class ProfileError(ConcurError, ValueError):
    """Report a step-time profile that cannot be used: file, value, remedy."""


class ExtraMissingError(ConcurError, ImportError):
    """Report a package that is not installed: its name, and the extra that brings it."""

    def __init__(self, error: ImportError, *, extra: str) -> None:
        super().__init__(f"{error.name} is not installed here; {how_to_install(extra)}")


class WorkersLostError(ConcurError, RuntimeError):
    """Report that workers were killed again and again: how often, what is left, the remedy."""


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra: from a checkout, or from an index that has the project."""
    return (
        f"in a checkout: pip install -e '.[{extra}]'; from an index that has the project: "
        f"pip install 'concur-admission[{extra}]'"
    )
