"""Errors of the validation harness, under the project's one root.

ConcurError
├── VllmMissingError      vLLM is not installed in this environment
├── SglangMissingError    SGLang is not installed in this environment
├── OutOfScopeError       the scenario asks for something that parity does not cover
├── LiveExtraMissingError the packages that speak HTTP are not installed in this environment
├── ServerError           an engine's server (or its model) that cannot be started, reached or reset
├── CallError             a model call that failed for good
│   └── UnansweredError   every attempt failed on the way: the server may be gone
├── EngineDiffersError    a server that is not the scenario's engine
├── PublishedError        no published table, or a file that is none
└── ConfrontError         runs of the two worlds that cannot be compared
"""

from concur.errors import ConcurError
from concur.sim.errors import ExtraMissingError


class VllmMissingError(ConcurError, ImportError):
    """Report that vLLM cannot be imported here, and how to get it."""


class SglangMissingError(ConcurError, ImportError):
    """Report that SGLang cannot be imported here, and how to get it."""


class OutOfScopeError(ConcurError, ValueError):
    """Report a scenario that has no counterpart in vLLM's scheduler."""


class ConfrontError(ConcurError, ValueError):
    """Report runs of the two worlds that cannot be put side by side."""


class PublishedError(ConcurError, ValueError):
    """Report a published table that is not there, or a file that is none."""


class EngineDiffersError(ConcurError, ValueError):
    """Report a server that is not the scenario's engine: every difference, and the remedies."""


class LiveExtraMissingError(ExtraMissingError):
    """Report that the extra `live` is not installed, and how to get it."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(error, extra="live")


class ServerError(ConcurError, RuntimeError):
    """Report a server that cannot be started, reached or reset, or a model that is none: what, the remedy."""


class CallError(ConcurError, RuntimeError):
    """Report a model call that failed for good: the last cause, and how often it was tried."""


class UnansweredError(CallError):
    """Report a model call whose every attempt failed on the way; another server may serve it."""
