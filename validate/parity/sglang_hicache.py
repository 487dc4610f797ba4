"""SGLang's own HiCache without a GPU: its tree, its controller and host pool, on links with a virtual clock.

What copies bytes is replaced, nothing else: memory is not pinned, and a transfer is an event that knows when
it ends. Written against SGLang 0.5.23.
"""

from types import SimpleNamespace
from typing import Any

from concur.sim.engine.hierarchical_cache import HierarchicalCacheConfig
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig


class _Event:
    """An event of a stream: it has happened at `end_s`, at once unless somebody says otherwise."""

    def __init__(self, transfers: HostTransfers | None = None, end_s: float = 0.0, **options: Any) -> None:
        self._transfers = transfers
        self._end_s = end_s

    def record(self, *streams: Any) -> None:
        """Happen."""

    def wait(self, *streams: Any) -> None:
        """Let a stream wait."""

    def query(self) -> bool:
        """Tell whether it has happened."""
        return self._transfers is None or self._end_s <= self._transfers.time_s

    def synchronize(self) -> None:
        """Wait until it has happened."""
        if self._transfers is not None:
            self._transfers.wait_until(self._end_s)


class _TransferEngine:
    """Stands for `L2TransferEngine`: a transfer takes as long as its tokens."""

    def __init__(self, transfers: HostTransfers) -> None:
        self._transfers = transfers

    def submit_device_to_host(self, transfers: list[Any]) -> Any:
        """Copy to the host."""
        return self._completion(self._transfers.write(_num_tokens(transfers)))

    def submit_host_to_device(self, transfers: list[Any], **options: Any) -> Any:
        """Copy to the pool."""
        return self._completion(self._transfers.load(_num_tokens(transfers)))

    def _completion(self, end_s: float) -> Any:
        from sglang.srt.mem_cache.l2_transfer import TransferCompletion

        return TransferCompletion(_Event(), _Event(self._transfers, end_s), False)


class HiCacheCounters:
    """Counts what SGLang's collector counts of its tree."""

    def __init__(self) -> None:
        self.num_loaded_tokens = 0
        self.num_backed_up_tokens = 0
        self.num_dropped_tokens = 0
        self.num_evicted_tokens = 0

    def increment_load_back_num_tokens(self, *, num_tokens: int, pool: str) -> None:
        """Count `load_back_tokens`."""
        self.num_loaded_tokens += num_tokens

    def increment_backup_num_tokens(self, *, num_tokens: int, pool: str) -> None:
        """Count `hicache_backup_tokens`."""
        self.num_backed_up_tokens += num_tokens

    def increment_dropped_tokens(self, *, num_tokens: int, reason: str, pool: str) -> None:
        """Count `hicache_dropped_tokens`."""
        self.num_dropped_tokens += num_tokens

    def increment_eviction_num_tokens(self, num_tokens: int) -> None:
        """Count `evicted_tokens`."""
        self.num_evicted_tokens += num_tokens

    def tier_metrics(self) -> dict[str, float]:
        """Return it by SGLang's names."""
        return {
            "load_back_tokens": self.num_loaded_tokens,
            "hicache_backup_tokens": self.num_backed_up_tokens,
            "hicache_dropped_tokens": self.num_dropped_tokens,
            "evicted_tokens": self.num_evicted_tokens,
        }

    def __getattr__(self, name: str) -> Any:
        """Take what is not counted here: bytes and durations."""
        return lambda *values, **options: None


def server_options(tier: HierarchicalCacheConfig) -> dict[str, Any]:
    """Return the server's arguments for it."""
    return {
        "enable_hierarchical_cache": True,
        "hicache_ratio": tier.hicache_ratio,
        "hicache_write_policy": tier.hicache_write_policy,
        "hicache_io_backend": "direct",
        "hicache_mem_layout": "layer_first",
    }


def smallest_kv_pool(config: SglangConfig) -> Any:
    """Return a pool of one layer, one head and one dimension."""
    import torch
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

    return MHATokenToKVPool(
        config.pool_tokens,
        config.page_size,
        torch.bfloat16,
        head_num=1,
        head_dim=1,
        layer_num=1,
        device="cpu",
        enable_memory_saver=False,
    )


def attach(tree: Any, parameters: Any, arguments: Any, transfers: HostTransfers) -> None:
    """Let SGLang give its tree a second tier (`init_hicache`), on these links."""
    from sglang.srt.managers import cache_controller
    from sglang.srt.mem_cache.pool_host import common

    device = SimpleNamespace(Event=_Event, Stream=SimpleNamespace)
    common._cuda_host_register = lambda *values, **options: None
    cache_controller.device_module = device
    cache_controller.L2TransferEngine = lambda io_backend: _TransferEngine(transfers)
    tree.init_hicache(arguments, parameters)


def has_transfers(tree: Any) -> bool:
    """Tell whether a transfer has not been acknowledged, as `is_fully_idle` does."""
    return bool(tree.ongoing_write_through or tree.ongoing_load_back)


def host_memory(tree: Any) -> dict[str, int]:
    """Return what is free on the host, and what is on its way; nothing without HiCache."""
    controller = getattr(tree, "cache_controller", None)  # releases before 0.5.9 have none
    if controller is None:
        return {}
    return {
        "host_available_tokens": int(controller.mem_pool_host.available_size()),
        "writing_tokens": _on_the_way(controller.write_queue, controller.ack_write_queue),
        "loading_tokens": _on_the_way(controller.load_queue, controller.ack_load_queue),
    }


def _on_the_way(queue: list[Any], started: list[Any]) -> int:
    asked = sum([len(each.host_indices) for each in queue])
    return asked + sum([int(each.num_tokens) for each in started])


def _num_tokens(transfers: list[Any]) -> int:
    (transfer,) = transfers
    return len(transfer.host_indices)
