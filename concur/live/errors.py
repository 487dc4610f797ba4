"""Errors of the live shells, under the project's one root.

ConcurError
├── ScrapeError            the engine's metrics could not be read this time
│   ├── MetricNamesError   these are not the metrics of an engine, or it is open which engine they are of
│   └── ReplicasError      one address answers for several engines in turn
└── ControlError           whatever controls the gate has failed: no step begins any more
    └── UsageMissingError  the law counts tokens, and no step reports any
"""

from concur.errors import ConcurError


class ScrapeError(ConcurError, RuntimeError):
    """Report metrics that could not be read, in one line. The control loop holds the window."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # labels and answers that are quoted may have several


class MetricNamesError(ScrapeError):
    """Report metrics that lack what is needed, or leave open which engine they are of, and what to do."""


class ReplicasError(ScrapeError):
    """Report an address behind which several replicas answer in turn, and what to do."""


class ControlError(ConcurError, RuntimeError):
    """Report that the gate is no longer controlled; the cause is its `__cause__`."""


class UsageMissingError(ControlError):
    """Report that no step says how long its context is, though the law needs it."""
