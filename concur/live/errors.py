"""Errors of the live shells, under the project's one root.

ConcurError
└── ScrapeError            the engine's metrics could not be read this time
    └── MetricNamesError   the engine does not publish what a snapshot needs
"""

from concur.errors import ConcurError


class ScrapeError(ConcurError, RuntimeError):
    """Report metrics that could not be read: what was wrong. The control loop holds the window."""


class MetricNamesError(ScrapeError):
    """Report metric names that the engine does not publish, and what to do."""
