"""What agents write, named for every engine of a run: once for each size of block that there is."""

from collections.abc import Sequence

from concur.routing.base import Part
from concur.signals import Prefix
from concur.sim.kv.history import Histories, History

Written = tuple[History, ...]
"""One history, by the sizes of blocks."""


class FleetHistories:
    """All histories of a run; `block_sizes` are those of its engines, in order."""

    def __init__(self, block_sizes: Sequence[int]) -> None:
        self._sizes = tuple(dict.fromkeys(block_sizes))
        self._all = [Histories(size) for size in self._sizes]
        self._place = [self._sizes.index(size) for size in block_sizes]

    def begin(self, levels: Sequence[Prefix]) -> Written:
        """Return the history of an agent that has not called yet."""
        return tuple([histories.begin(levels) for histories in self._all])

    def call(
        self, written: Written, *, kept_tokens: int, context_tokens: int, is_shared: bool = False
    ) -> Written:
        """Return the first `kept_tokens` of a history, written on to `context_tokens`."""
        return tuple(
            [
                histories.call(
                    history, kept_tokens=kept_tokens, context_tokens=context_tokens, is_shared=is_shared
                )
                for histories, history in zip(self._all, written, strict=True)
            ]
        )

    def on(self, written: Written, engine_index: int) -> History:
        """Return a history as that engine names it."""
        return written[self._place[engine_index]]

    def parts(self, written: Written, tokens: int) -> tuple[Part, ...]:
        """Return what the first `tokens` of a history consist of, full blocks of the first size only."""
        size = self._sizes[0]
        return tuple([(stretch, length * size) for stretch, length in written[0].prefix(tokens // size)])
