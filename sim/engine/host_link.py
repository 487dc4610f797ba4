"""The link to host memory: concurrent loads share its bandwidth equally."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import simpy

from concur.sim.engine.request import Request


@dataclass(slots=True)
class _Transfer:
    request: Request
    remaining_bytes: float


class HostLink:
    """Processor sharing: n loads in flight run at bandwidth / n each.

    A load of b bytes alone takes b / bandwidth; n equal loads begun together all end after n * b / bandwidth.
    A load that began earlier with as little left ends first; equal ones end in the order of their start.
    """

    def __init__(
        self, env: simpy.Environment, bandwidth_bytes_per_s: float, on_done: Callable[[Request], None]
    ) -> None:
        self._env = env
        self._bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self._on_done = on_done
        self._transfers: list[_Transfer] = []
        self._changed = env.event()
        env.process(self._carrying())

    @property
    def is_busy(self) -> bool:
        """Whether a load is in flight."""
        return bool(self._transfers)

    def start(self, request: Request, num_bytes: int) -> None:
        """Begin a load; `on_done` is called when it has arrived."""
        self._transfers.append(_Transfer(request, float(num_bytes)))
        if not self._changed.triggered:
            self._changed.succeed()

    def _carrying(self) -> Generator[simpy.Event, object, None]:
        env = self._env
        while True:
            if not self._transfers:
                yield self._changed
                self._changed = env.event()
                continue
            began_s, sharing = env.now, tuple(self._transfers)
            share_bytes_per_s = self._bandwidth_bytes_per_s / len(sharing)
            first = min(sharing, key=lambda transfer: transfer.remaining_bytes)
            wait_s = first.remaining_bytes / share_bytes_per_s
            arrival = env.timeout(wait_s)
            yield arrival | self._changed
            if self._changed.triggered:
                self._changed = env.event()
            elapsed_s = env.now - began_s
            for transfer in sharing:  # not those that began at this instant
                transfer.remaining_bytes -= elapsed_s * share_bytes_per_s
            if arrival.processed:
                first.remaining_bytes = 0.0  # not left to rounding
            self._deliver()

    def _deliver(self) -> None:
        done = [transfer for transfer in self._transfers if transfer.remaining_bytes <= 0.0]
        self._transfers = [transfer for transfer in self._transfers if transfer.remaining_bytes > 0.0]
        for transfer in done:
            self._on_done(transfer.request)
