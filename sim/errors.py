"""Errors of the simulator, under the project's one root.

ConcurError
├── TraceError       a trace line that breaks the format
├── ScenarioError    a scenario that cannot be run as written
├── ProfileError     a step-time profile that cannot be used
└── RecordError      a run record that cannot be read or written
"""

from concur.errors import ConcurError


class TraceError(ConcurError, ValueError):
    """Report a broken trace: file, line, field, remedy."""


class ScenarioError(ConcurError, ValueError):
    """Report a scenario that cannot be run as written: the value, the bound, the remedy."""


class RecordError(ConcurError, ValueError):
    """Report a run record that cannot be read or written."""


class ProfileError(ConcurError, ValueError):
    """Report a step-time profile that cannot be used: file, value, remedy."""
