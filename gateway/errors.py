"""Errors of the gateway, under the project's one root.

ConcurError
└── GatewayError
    ├── UpstreamError    no upstream can be read at the start
    └── Refusal          a call that the gateway itself answers: status, what is wrong, the remedy
        ├── HeldTooLongError   the budget of the hold is spent
        └── SupersededError    a newer copy of the same call has taken its place
"""

from concur.errors import ConcurError


class GatewayError(ConcurError, RuntimeError):
    """Root of what goes wrong in the gateway."""


class UpstreamError(GatewayError):
    """Report upstreams that cannot be read at the start, and what to do."""


class Refusal(GatewayError):  # noqa: N818 - an answer, not a failure of this process
    """Answer a call here: `status`, a word for machines, a sentence for people.

    `retry_after_s`: when to come again, `None` for never.
    """

    def __init__(self, status: int, kind: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after_s = retry_after_s


class HeldTooLongError(Refusal):
    """Report a call whose turn did not come before its client would have given up."""

    def __init__(self, held_s: float) -> None:
        super().__init__(
            503,
            "held_too_long",
            f"no turn within {held_s:.0f} s; send it again, its place in the queue is kept for a minute",
            retry_after_s=1,
        )


class SupersededError(Refusal):
    """Report a call whose place a newer copy of it has taken."""

    def __init__(self) -> None:
        super().__init__(409, "superseded", "a newer copy of this call has taken its place in the queue")
