"""What decides the duration of an engine's steps, read from vLLM's resolved configuration.

The keys are those of `concur.calib.fit.samples.Provenance`. Source: vLLM 0.32.0, config/vllm.py
(`VllmConfig`) and the modules of its parts.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def engine_facts(vllm_config: Any, num_gpu_blocks: int) -> dict[str, Any]:
    """Return the engine's model, sizes, flags and versions, ready for JSON; needs vLLM.

    `num_gpu_blocks` is the resolved count, the null block included.
    """
    import torch
    import vllm

    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    return {
        "source": "vllm",
        "engine": f"vllm {vllm.__version__}",
        "device": _device(),
        "model_name": Path(model.model).name,
        "model": _model_fields(model.hf_config),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tensor_parallel_size": vllm_config.parallel_config.tensor_parallel_size,
        "block_size": vllm_config.cache_config.block_size,
        "num_gpu_blocks": num_gpu_blocks,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_num_seqs": scheduler.max_num_seqs,
        "async_scheduling": bool(scheduler.async_scheduling),
        "cudagraph_capture_sizes": _capture_sizes(vllm_config),
        "flags": _flags(vllm_config),
        "versions": {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _model_fields(hf_config: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(json.dumps(hf_config.to_dict(), default=str))
    fields.pop("_name_or_path", None)  # a path of this machine
    return fields


def _device() -> str:
    """Name the device without touching it: a CUDA context in the engine-core process would cost memory."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return f"cpu {platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    return str(current_platform.get_device_name())


def _capture_sizes(vllm_config: Any) -> list[int]:
    compilation = vllm_config.compilation_config
    if vllm_config.model_config.enforce_eager or not compilation.cudagraph_mode:
        return []
    return sorted(compilation.cudagraph_capture_sizes or ())


def _flags(vllm_config: Any) -> dict[str, Any]:
    model, cache = vllm_config.model_config, vllm_config.cache_config
    scheduler, compilation = vllm_config.scheduler_config, vllm_config.compilation_config
    return {
        "enforce_eager": model.enforce_eager,
        "max_model_len": model.max_model_len,
        "quantization": model.quantization,
        "cache_dtype": str(cache.cache_dtype),
        "enable_prefix_caching": cache.enable_prefix_caching,
        "gpu_memory_utilization": cache.gpu_memory_utilization,
        "load_format": str(vllm_config.load_config.load_format),
        "long_prefill_token_threshold": scheduler.long_prefill_token_threshold,
        "cudagraph_mode": getattr(compilation.cudagraph_mode, "name", None),
        "pipeline_parallel_size": vllm_config.parallel_config.pipeline_parallel_size,
    }
