"""When transfers between the pool and the host begin and end: SGLang's streams, with a clock in their place.

Of SGLang 0.5.23, `mem_cache/l2_transfer.py` and the fences of `managers/cache_controller.py`:

- one stream per direction: transfers of one run one after the other, those of the other go on meanwhile;
- either waits for what has been launched on the GPU by then;
- a batch computes layer by layer as its load comes in, and so ends no earlier than that. What a layer's share
  of the load adds to that is left out.
"""

from dataclasses import asdict, dataclass
from math import inf

from mypy_extensions import mypyc_attr

from concur.sim.engine.hierarchical_cache import HierarchicalCacheConfig
from concur.sim.engine.offload.transfers import FifoLink


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
@dataclass(slots=True)
class HiCacheTraffic:
    """How long the links were used, and how long that held anything up.

    Loads took `host_load_s` of their direction; steps ended `host_reload_wait_s` later than they would
    have without theirs. Copies to the host took `host_backup_s`; for `host_backup_stall_s` the scheduler did
    nothing but wait for them (`write_back`).
    """

    host_load_s: float = 0.0
    host_reload_wait_s: float = 0.0
    host_backup_s: float = 0.0
    host_backup_stall_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Return it by name."""
        return asdict(self)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HostTransfers:
    """Both directions of the link, and the clock of the scheduler that uses them.

    What has been launched is computed at `computed_s`; the last load is there at `loaded_s`.
    """

    def __init__(self, config: HierarchicalCacheConfig) -> None:
        self.time_s = 0.0
        self.computed_s = 0.0
        self.loaded_s = 0.0
        self.traffic = HiCacheTraffic()
        self._bytes_per_token = config.kv_bytes_per_token
        self._bandwidth_bytes_per_s = config.bandwidth_bytes_per_s
        self._writes = FifoLink(config.bandwidth_bytes_per_s)
        self._loads = FifoLink(config.bandwidth_bytes_per_s)

    @property
    def next_end_s(self) -> float:
        """When the next transfer ends after `time_s`; infinite if none does."""
        for link in (self._writes, self._loads):
            link.take_done(self.time_s)
        return min(
            [link.in_flight[0][0] for link in (self._writes, self._loads) if link.in_flight], default=inf
        )

    def go_on(self, *, time_s: float, computed_s: float) -> None:
        """Take note of the time, at which all that has been launched ends at `computed_s`."""
        self.time_s = max(self.time_s, time_s)
        self.computed_s = computed_s

    def write(self, num_tokens: int) -> float:
        """Copy so many tokens to the host; return when they are there."""
        self.traffic.host_backup_s += self._duration_s(num_tokens)
        return self._submit(self._writes, num_tokens)

    def load(self, num_tokens: int) -> float:
        """Copy so many tokens to the pool; return when they are there."""
        self.traffic.host_load_s += self._duration_s(num_tokens)
        self.loaded_s = self._submit(self._loads, num_tokens)
        return self.loaded_s

    def wait_until(self, time_s: float) -> None:
        """Do nothing until then."""
        if time_s > self.time_s:
            self.traffic.host_backup_stall_s += time_s - self.time_s
            self.time_s = time_s

    def _duration_s(self, num_tokens: int) -> float:
        return num_tokens * self._bytes_per_token / self._bandwidth_bytes_per_s

    def _submit(self, link: FifoLink, num_tokens: int) -> float:
        link.submit(0, num_tokens * self._bytes_per_token, time_s=max(self.time_s, self.computed_s))
        return link.free_s
