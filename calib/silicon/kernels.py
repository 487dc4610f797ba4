"""Access to the database of measured kernels; the only place that imports it.

`aiconfigurator_core` (Apache-2.0) is optional: `pip install -e '.[silicon]'`.
"""

import json
import logging
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from concur.calib.errors import SiliconError
from concur.calib.silicon.hf_model import model_memory, num_experts
from concur.calib.silicon.quantization import kv_cache_bytes, read_quantization
from concur.calib.silicon.silicon_grid import StepShape
from concur.sim.errors import how_to_install

_KINDS: Final = {  # how kernels' names begin, without their phase
    "attention": "attention",
    "mla": "attention",
    "logits": "output_head",
    "shared": "shared",
    "router": "routed",
    "moe_pre_dispatch": "dispatch",
    "moe_post_dispatch": "dispatch",
    "moe": "routed",
}


class _Kernel(NamedTuple):
    name: str
    latency_ms: float
    energy: float
    source: str


class KernelDatabase:
    """Durations of one model's kernels on one system.

    Counts how much of the time asked for was estimated by formula rather than measured (`estimated_frac`).

    Raises
    ------
    SiliconError
        If the database is not installed, or lacks the model, the system or the parallel layout.
    """

    def __init__(
        self, model: str, system: str, backend: str, tensor_parallel_size: int, kv_cache_dtype: str = "auto"
    ) -> None:
        sdk = _sdk()
        self.version = version("aiconfigurator-core")
        self._what = f"{model} on {system} with {backend}, tensor_parallel_size = {tensor_parallel_size}"
        self.device_memory_bytes = _device_memory_bytes(sdk, system)
        self.backend_version = _backend_version(sdk, system, backend)
        self._total_s = self._estimated_s = 0.0
        with tempfile.TemporaryDirectory() as folder, self._as_silicon_error():
            path, self.model_name = _model_path(sdk, model, Path(folder))
            self.model_config: dict[str, Any] = dict(
                sdk.utils.get_model_config_from_model_path(path)["raw_config"]
            )
            self.memory = model_memory(self.model_config, tensor_parallel_size, kv_cache_dtype)
            is_moe = num_experts(self.model_config) > 0
            experts = {"moe_tp_size": tensor_parallel_size, "moe_ep_size": 1} if is_moe else {}
            modes = kernel_modes(self.model_config, kv_cache_dtype)
            self._handle = sdk.engine.EngineHandle.compile(
                path, system, backend, tp_size=tensor_parallel_size, **experts, **modes
            )
            self._context = _Places(_kernel_names(lambda place: self._prefill_kernels([place], 1, 2, 0)))
            self._generation = _Places(_kernel_names(lambda place: self._decode_kernels([place], 1, 2)))

    @property
    def estimated_frac(self) -> float:
        """Share of all time asked for that the database estimates by formula."""
        return self._estimated_s / self._total_s

    def step_s(self, shape: StepShape, capture_sizes: Sequence[int]) -> float:
        """Return the duration of a step in seconds, its tokens padded to the next of `capture_sizes`."""
        num_tokens = _padded(shape.num_tokens, capture_sizes)
        with self._as_silicon_error():
            step_s = self._layers_s(num_tokens, is_decode=not shape.num_prefills)
            if shape.num_prefills:
                step_s += self._prefill_attention_s(shape)
            if shape.num_decodes:
                tokens = shape.decode_context_tokens + 1  # the new token attends to itself as well
                step_s += self._decode(self._generation.attention, shape.num_decodes, tokens)
            return step_s + self._decode(
                self._generation.output_head, shape.num_prefills + shape.num_decodes, 1
            )

    def layers_s(self, num_tokens: int) -> float:
        """Return the time of a prefilling step in the layers, without attention and output head."""
        with self._as_silicon_error():
            return self._layers_s(num_tokens, is_decode=False)

    def _layers_s(self, num_tokens: int, *, is_decode: bool) -> float:
        """Return the time of everything in the layers that sees tokens, not sequences.

        A decoding step runs the shared experts beside the routed ones (vLLM's auxiliary stream).
        """
        kernels = self._context
        routed_s = self._prefill(kernels.routed, 1, num_tokens, 0)
        shared_s = self._prefill(kernels.shared, 1, num_tokens, 0)
        experts_s = max(routed_s, shared_s) if is_decode else routed_s + shared_s
        return self._prefill(kernels.layers, 1, num_tokens, 0) + experts_s

    def _prefill_attention_s(self, shape: StepShape) -> float:
        """Return the time of the prefills' attention, never less than that of the chunks without context.

        The database has measured prefills without context and scales them by the share of attended pairs;
        for a short chunk on a long context that goes to zero, which no kernel does.
        """
        ops, number, tokens = self._context.attention, shape.num_prefills, shape.prefill_tokens
        fresh_s = self._prefill(ops, number, tokens, 0)
        if not shape.prefill_context_tokens:
            return fresh_s
        return max(fresh_s, self._prefill(ops, number, tokens, shape.prefill_context_tokens))

    def _prefill(self, ops: list[int], batch: int, tokens: int, context: int) -> float:
        return self._sum(self._prefill_kernels(ops, batch, tokens, context))

    def _decode(self, ops: list[int], batch: int, tokens: int) -> float:
        return self._sum(self._decode_kernels(ops, batch, tokens))

    def _prefill_kernels(self, ops: list[int], batch: int, tokens: int, context: int) -> list[_Kernel]:
        timed = self._handle.evaluate_context_ops(ops, batch_size=batch, s=tokens, prefix=context)
        return [_Kernel(*kernel) for kernel in timed]

    def _decode_kernels(self, ops: list[int], batch: int, tokens: int) -> list[_Kernel]:
        timed = self._handle.evaluate_generation_ops(ops, batch_size=batch, s=tokens)
        return [_Kernel(*kernel) for kernel in timed]

    def _sum(self, ops: Iterable[_Kernel]) -> float:
        total_s = 0.0
        for _, latency_ms, _, source in ops:
            total_s += latency_ms * 1e-3
            if source == "empirical":
                self._estimated_s += latency_ms * 1e-3
        self._total_s += total_s
        return total_s

    @contextmanager
    def _as_silicon_error(self) -> Iterator[None]:
        """Say what the database lacks; its own errors are of many kinds."""
        try:
            yield
        except SiliconError:
            raise
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise SiliconError(
                f"the kernel database {self.version} has no {self._what} ({str(error)[:200]}); choose "
                "another model, system or tensor_parallel_size"
            ) from None


class _Places:
    """Places of the kernels in a phase's list, by what they depend on.

    Where the list has the all-reduces of tensor parallelism (two per layer), the dispatch and combine of
    experts that it also has do not run: they belong to expert or data parallelism.
    """

    def __init__(self, names: Sequence[str]) -> None:
        kernels = [name.split("_", 1)[1] for name in names]
        kinds = [_kind(kernel) for kernel in kernels]
        is_tensor_parallel = "tp_allreduce" in kernels
        kinds = ["" if kind == "dispatch" and is_tensor_parallel else kind for kind in kinds]
        kinds = ["layers" if kind == "dispatch" else kind for kind in kinds]
        self.attention, self.output_head, self.routed, self.shared, self.layers = (
            [place for place, kind in enumerate(kinds) if kind == wanted]
            for wanted in ("attention", "output_head", "routed", "shared", "layers")
        )


def kernel_modes(config: Mapping[str, Any], kv_cache_dtype: str) -> dict[str, str]:
    """Return the kernels that vLLM runs, by the database's names.

    Left to itself the database takes the KV cache of any checkpoint of method `fp8` for FP8; vLLM keeps it in
    16 bits unless it is told otherwise. Attention computes in 16 bits from either: the database has no other.
    """
    quantization = read_quantization(config)
    is_fp8_cache = kv_cache_bytes(kv_cache_dtype, quantization, dtype_bytes=2) == 1
    return {
        "gemm_quant_mode": quantization.kernels,
        "moe_quant_mode": quantization.expert_kernels,
        "kvcache_quant_mode": "fp8" if is_fp8_cache else "bfloat16",
        "fmha_quant_mode": "bfloat16",
    }


def _kernel_names(at: Callable[[int], list[_Kernel]]) -> list[str]:
    """Return the names of a phase's kernels by their places; gpt-oss has two of the same name.

    Asked place by place until the database knows no more: its own listing drops names that come again.
    """
    names: list[str] = []
    while True:
        try:
            names += [kernel.name for kernel in at(len(names))]
        except ValueError as error:
            if "out of range" in str(error):
                return names
            raise


def _kind(kernel: str) -> str:
    """Return what a kernel is, by its name in the database."""
    return next((kind for start, kind in _KINDS.items() if kernel.startswith(start)), "layers")


def _padded(num_tokens: int, capture_sizes: Sequence[int]) -> int:
    place = bisect_left(capture_sizes, num_tokens)
    return capture_sizes[place] if place < len(capture_sizes) else num_tokens


def _sdk() -> Any:
    try:
        import aiconfigurator_core.sdk.engine
        import aiconfigurator_core.sdk.perf_database
        import aiconfigurator_core.sdk.utils
    except ImportError as error:
        raise SiliconError(
            f"the database of measured kernels is not installed ({error}); {how_to_install('silicon')}"
        ) from None
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)  # it reports every table that it opens
    return aiconfigurator_core.sdk


def _model_path(sdk: Any, model: str, folder: Path) -> tuple[str, str]:
    """Return what the database takes as a model, and a name for it; nothing is ever downloaded."""
    known = sorted(sdk.common.DefaultHFModels)
    if model in known:
        return model, model
    path = Path(model)
    if not path.is_file():
        raise SiliconError(
            f"{model} is neither a file nor a model that the kernel database knows; it "
            f"knows {', '.join(known)}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SiliconError(
            f"{path}: not readable as JSON ({error}); give a Hugging Face config.json"
        ) from None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder), str(config.get("_name_or_path") or path.stem)


def _device_memory_bytes(sdk: Any, system: str) -> int:
    database = sdk.perf_database
    folders = [Path(folder) for folder in database.get_systems_paths()]
    systems = sorted(path.stem for folder in folders for path in folder.glob("*_*.yaml"))
    spec = database.load_system_spec(system) if any((f / f"{system}.yaml").is_file() for f in folders) else {}
    if "gpu" not in spec:
        raise SiliconError(f"the kernel database has no system {system!r}; it has {', '.join(systems)}")
    return int(spec["gpu"]["mem_capacity"])


def _backend_version(sdk: Any, system: str, backend: str) -> str:
    slots = sdk.perf_database.get_version_slots(system, backend) or {}
    current = slots.get("current")
    if not current:
        raise SiliconError(
            f"the kernel database has no {backend} data of {system}; "
            "choose vllm or sglang and a data-centre GPU"
        )
    return str(current)
