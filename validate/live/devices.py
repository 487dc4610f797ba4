"""Whether this machine has an accelerator, told without asking torch: that takes seconds, and a GPU's memory.

The drivers' device nodes: `/dev/nvidia0` (NVIDIA), `/dev/kfd` (ROCm), `/dev/dri/renderD128` (Intel, and any
other GPU), `/dev/dxg` (any GPU under WSL). Where there is none, no runtime finds one. Where there is one,
vLLM still decides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_NODES: Final = ("nvidia[0-9]*", "kfd", "dri/renderD*", "dxg")
_HIDES_ALL: Final = {
    "CUDA_VISIBLE_DEVICES": ("", "-1", "NoDevFiles"),
    "HIP_VISIBLE_DEVICES": ("", "-1"),
    "ROCR_VISIBLE_DEVICES": ("", "-1"),
}


def why_no_gpu(environment: Mapping[str, str], *, dev: Path = Path("/dev")) -> str | None:
    """Return why a server would find no GPU here, `None` if there may be one."""
    if not any(True for pattern in _NODES for _ in dev.glob(pattern)):
        return f"no driver's device is in {dev}"
    for variable, values in _HIDES_ALL.items():
        if environment.get(variable) in values:
            return f"{variable} = {environment[variable]!r} hides them all"
    return None
