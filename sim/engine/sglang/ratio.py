"""How much of its limit a request is expected to write: SGLang's `NewTokenRatioTracker` (0.5.23).

init = min(0.7 * conservativeness, 1), least = 0.14 * init; every decode step lowers it by (init - least) /
600.
"""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.req import Req

_INIT: Final = 0.7  # SGLANG_INIT_NEW_TOKEN_RATIO
_LEAST_FACTOR: Final = 0.14  # SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR
_DECAY_STEPS: Final = 600  # SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class NewTokenRatio:
    """The estimate of this moment, 0 to 1."""

    __slots__ = ("_decay", "_init", "_least", "current")

    def __init__(self, schedule_conservativeness: float) -> None:
        self._init = min(_INIT * schedule_conservativeness, 1.0)
        self._least = min(self._init * _LEAST_FACTOR, 1.0)
        self._decay = (self._init - self._least) / _DECAY_STEPS
        self.current = self._init

    def decay_step(self) -> None:
        """Expect a little less, after a decode step that had room."""
        self.current = max(self.current - self._decay, self._least)

    def reset(self) -> None:
        """Start anew."""
        self.current = self._init

    def estimate_after_retraction(self, running: Sequence[Req], num_steps: int) -> None:
        """Expect of all that those who stay have written, and `num_steps` more each."""
        num_written = sum(req.request.num_output_tokens for req in running)
        num_allowed = sum(req.max_new_tokens for req in running)
        self.current = min(1.0, (num_written + num_steps * len(running)) / (num_allowed + 1))
