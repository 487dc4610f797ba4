"""Errors of the validation harness, under the project's one root.

ConcurError
├── VllmMissingError      vLLM is not installed in this environment
├── OutOfScopeError       the scenario asks for something that parity does not cover
└── ConfrontError         runs of the two worlds that cannot be compared
"""

from concur.errors import ConcurError


class VllmMissingError(ConcurError, ImportError):
    """Report that vLLM cannot be imported here, and how to get it."""


class OutOfScopeError(ConcurError, ValueError):
    """Report a scenario that has no counterpart in vLLM's scheduler."""


class ConfrontError(ConcurError, ValueError):
    """Report runs of the two worlds that cannot be put side by side."""
