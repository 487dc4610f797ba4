"""Errors of the validation harness, under the project's one root.

ConcurError
├── VllmMissingError      vLLM is not installed in this environment
└── OutOfScopeError       the scenario asks for something that parity does not cover
"""

from concur.errors import ConcurError


class VllmMissingError(ConcurError, ImportError):
    """Report that vLLM cannot be imported here, and how to get it."""


class OutOfScopeError(ConcurError, ValueError):
    """Report a scenario that has no counterpart in vLLM's scheduler."""
