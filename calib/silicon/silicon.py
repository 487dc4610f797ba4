"""Samples without a GPU: from NVIDIA's database of measured kernels (PyPI `aiconfigurator-core`, Apache-2.0).

The database holds kernel durations measured on each system with vLLM's own kernels. A step is put together as
vLLM runs it: the layers' projections, norms, expert and all-reduce kernels once for all T tokens of the step
(T padded to the next CUDA-graph capture size), attention once for the prefills and once for the decodes, the
output head for the last token of each sequence. What is *not* in it: the host's own work between steps, and
any kernel that the database has to estimate by formula (its share is noted in the provenance).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pandas as pd

from concur.calib.errors import SiliconError
from concur.calib.fit.samples import Provenance, Samples
from concur.calib.silicon.hf_model import ModelMemory, has_windows
from concur.calib.silicon.kernels import KernelDatabase
from concur.calib.silicon.quantization import read_quantization
from concur.calib.silicon.silicon_grid import StepShape, capture_sizes, step_shapes, uneven_sizes

GPU_MEMORY_UTILIZATION: Final = 0.92
"""vLLM's default in 0.32.0 (`vllm/config/cache.py`): the share of a device's memory that it uses in all."""
_FIXED_RESERVE_BYTES: Final = 2 * 2**30  # our estimate: CUDA graphs, NCCL buffers and kernels' workspaces
_ACTIVATION_WIDTHS: Final = 8  # our estimate: tensors of hidden_size alive at once, per scheduled token
_MAX_MODEL_LEN: Final = 131_072
_SHARED_POOLS: Final = 4  # 256 ReAct agents read 609 thousand tokens in a step from a pool of 326 thousand


@dataclass(frozen=True, slots=True)
class SiliconRequest:
    """What to ask the database for.

    `model` is a name that it knows (`Qwen/Qwen3-32B`) or the path of a Hugging Face `config.json`;
    `system` its name of a machine (`h100_sxm`). Experts are split by tensor parallelism, vLLM's default.
    `kv_cache_dtype` is vLLM's option. `max_step_context_tokens` bounds the context of one step; `None` is
    four times what the pool holds: agents that share a prefix, stored once, attend to more than that.
    """

    model: str
    system: str
    tensor_parallel_size: int = 1
    backend: str = "vllm"
    block_size: int = 16
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 16_384
    kv_cache_dtype: str = "auto"
    max_step_context_tokens: int | None = None


def silicon_samples(request: SiliconRequest, *, date: str) -> Samples:
    """Return one sample per step shape of the designed grid that fits the machine's memory.

    Raises
    ------
    SiliconError
        If the database is not installed, or lacks the model, the system or the parallel layout.
    """
    database = KernelDatabase(
        request.model, request.system, request.backend, request.tensor_parallel_size, request.kv_cache_dtype
    )
    config = database.model_config
    num_gpu_blocks = num_blocks_that_fit(request, config, database.memory, database.device_memory_bytes)
    pool_tokens = (num_gpu_blocks - 1) * request.block_size
    sizes = capture_sizes(request.max_num_seqs)
    chunks = uneven_sizes(cache(database.layers_s), request.max_num_batched_tokens, sizes)
    shapes = step_shapes(
        step_tokens=request.max_step_context_tokens or _SHARED_POOLS * pool_tokens,
        max_num_seqs=request.max_num_seqs,
        max_num_batched_tokens=request.max_num_batched_tokens,
        max_model_len=_MAX_MODEL_LEN,
        chunks=chunks,
    )
    step_s = [database.step_s(shape, sizes) for shape in shapes]
    return Samples(_frame(shapes, step_s), _provenance(request, database, num_gpu_blocks, sizes, date))


def _provenance(
    request: SiliconRequest,
    database: KernelDatabase,
    num_gpu_blocks: int,
    capture_sizes: tuple[int, ...],
    date: str,
) -> Provenance:
    config = database.model_config
    return Provenance(
        source="silicon",
        engine=f"{request.backend} {database.backend_version}",
        device=request.system,
        model_name=database.model_name,
        model=config,
        dtype=str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"),
        tensor_parallel_size=request.tensor_parallel_size,
        block_size=request.block_size,
        num_gpu_blocks=num_gpu_blocks,
        max_num_batched_tokens=request.max_num_batched_tokens,
        max_num_seqs=request.max_num_seqs,
        cudagraph_capture_sizes=capture_sizes,
        flags={
            "gpu_memory_utilization": GPU_MEMORY_UTILIZATION,
            "max_model_len": _MAX_MODEL_LEN,
            "cache_dtype": request.kv_cache_dtype,
        },
        versions={"aiconfigurator-core": database.version},
        date=date,
        notes=_notes(request, config, database.estimated_frac),
    )


def _notes(request: SiliconRequest, config: dict[str, Any], estimated_frac: float) -> tuple[str, ...]:
    weight_only = (
        "the checkpoint's config quantises no activations: vLLM multiplies its 8-bit weights in 16 bits, by "
        "a kernel that the database has not measured; timed as 8-bit products, which is about right where "
        "reading weights decides (decoding) and too fast for long prefills",
    )
    windows = (
        "windowed layers: num_gpu_blocks and kv_bytes_per_token are of the full layers; each sequence holds "
        "about nine blocks more, and a prefix whose window is gone is no hit: see kv_cache_groups",
    )
    not_vllm = (f"kernels of {request.backend}; padding, memory rule and scheduler are vLLM's",)
    return (
        "sums of measured kernel durations; the host's work between steps is not in them",
        "num_gpu_blocks is computed from the memory, not resolved by an engine",
        f"{estimated_frac:.0%} of the time is of kernels that the database estimates by formula",
        *(windows if has_windows(config) else ()),
        *(not_vllm if request.backend != "vllm" else ()),
        *(weight_only if read_quantization(config).is_weight_only else ()),
    )


def num_blocks_that_fit(
    request: SiliconRequest, config: dict[str, Any], memory: ModelMemory, device_memory_bytes: int
) -> int:
    """Return vLLM's `num_gpu_blocks`: what weights and activations leave of the memory that it may use.

    The rule is vLLM's (`gpu_worker.py`, `determine_available_memory`); the two reserves are our estimates.

    Raises
    ------
    SiliconError
        If not even two blocks fit.
    """
    activations = _ACTIVATION_WIDTHS * 2 * config["hidden_size"] * request.max_num_batched_tokens
    usable = int(device_memory_bytes * GPU_MEMORY_UTILIZATION)
    left = usable - memory.weights_bytes_per_gpu - activations - _FIXED_RESERVE_BYTES
    num_blocks = int(left) // (memory.kv_bytes_per_token_per_gpu * request.block_size)
    if num_blocks < 2:
        raise SiliconError(
            f"{request.model} takes {memory.weights_bytes_per_gpu / 1e9:.0f} GB of weights per GPU at "
            f"tensor_parallel_size = {request.tensor_parallel_size}, but {request.system} has "
            f"{usable / 1e9:.0f} GB to use; raise tensor_parallel_size"
        )
    return num_blocks


def _frame(shapes: Sequence[StepShape], step_s: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "t_s": 0.0,
            "step_s": step_s,
            "phase": [shape.phase for shape in shapes],
            "prefill_tokens": [[shape.prefill_tokens] * shape.num_prefills for shape in shapes],
            "prefill_context_tokens": [
                [shape.prefill_context_tokens] * shape.num_prefills for shape in shapes
            ],
            "decode_context_tokens": [[shape.decode_context_tokens] * shape.num_decodes for shape in shapes],
        }
    )
