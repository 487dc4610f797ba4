"""How fast pinned host memory and device memory are copied to one another."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

_SIZES_BYTES: Final = (16 << 20, 64 << 20, 256 << 20)
_COPIES: Final = 9


def copy_bandwidths() -> dict[str, float | None]:
    """Return bytes per second, host to device and back, under the names of `Provenance`; `None` without CUDA.

    Per size the median of nine copies; of the sizes the best. Source of the method: pinned copies are what
    vLLM's KV offloading does (vLLM 0.32.0, v1/kv_offload/).
    """
    import torch

    names = ("host_to_device_bytes_per_s", "device_to_host_bytes_per_s")
    if not torch.cuda.is_available():
        return dict.fromkeys(names)
    pairs = [_pair(torch, size) for size in _SIZES_BYTES]
    to_device = max(_bytes_per_s(torch, device, host) for host, device in pairs)
    to_host = max(_bytes_per_s(torch, host, device) for host, device in pairs)
    return dict(zip(names, (to_device, to_host), strict=True))


def _pair(torch: Any, num_bytes: int) -> tuple[Any, Any]:
    host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    return host, torch.empty(num_bytes, dtype=torch.uint8, device="cuda")


def _bytes_per_s(torch: Any, target: Any, source: Any) -> float:
    def copy() -> None:
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    copy()  # the first maps memory
    return float(source.numel()) / median(_seconds(copy) for _ in range(_COPIES))


def _seconds(action: Callable[[], None]) -> float:
    begin_s = time.perf_counter()
    action()
    return time.perf_counter() - begin_s
