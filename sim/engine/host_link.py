"""The link to host memory: concurrent loads share its bandwidth equally."""

from dataclasses import dataclass
from math import inf

from mypy_extensions import mypyc_attr

from concur.sim.engine.request import Request


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(slots=True)
class _Transfer:
    request: Request
    remaining_bytes: float


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HostLink:
    """Processor sharing: n loads in flight run at bandwidth / n each.

    A load of b bytes alone takes b / bandwidth; n equal loads begun together all end after n * b / bandwidth.
    A load that began earlier with as little left ends first; equal ones end in the order of their start.
    """

    def __init__(self, bandwidth_bytes_per_s: float) -> None:
        self._bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self._transfers: list[_Transfer] = []
        self._time_s = 0.0
        self.next_arrival_s = inf

    def start(self, request: Request, num_bytes: int, *, time_s: float) -> None:
        """Begin a load."""
        self._carry(time_s)
        self._transfers.append(_Transfer(request, float(num_bytes)))
        self._look_ahead()

    def arrive(self) -> list[Request]:
        """Go on to `next_arrival_s`; return whose loads have arrived."""
        first = min(self._transfers, key=lambda transfer: transfer.remaining_bytes)
        self._carry(self.next_arrival_s)
        first.remaining_bytes = 0.0  # not left to rounding
        done = [transfer.request for transfer in self._transfers if transfer.remaining_bytes <= 0.0]
        self._transfers = [transfer for transfer in self._transfers if transfer.remaining_bytes > 0.0]
        self._look_ahead()
        return done

    def _carry(self, time_s: float) -> None:
        elapsed_s, self._time_s = time_s - self._time_s, time_s
        for transfer in self._transfers:
            transfer.remaining_bytes -= elapsed_s * self._share_bytes_per_s()

    def _look_ahead(self) -> None:
        least_bytes = min((transfer.remaining_bytes for transfer in self._transfers), default=inf)
        self.next_arrival_s = self._time_s + least_bytes / self._share_bytes_per_s()

    def _share_bytes_per_s(self) -> float:
        return self._bandwidth_bytes_per_s / max(len(self._transfers), 1)
