"""A real vLLM in this process, stepped by hand, that tells what each step computed.

The engine core is stepped directly and its outputs are processed outside the measured time: in a server both
happen in different processes. Written against vLLM 0.32.0 (v1/engine/llm_engine.py,
v1/engine/core_client.py); the calls exist in 0.26.0 too.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from concur.calib.errors import EngineError
from concur.calib.measure.grid import Limits
from concur.validate.live.geometries import model_folder
from concur.validate.parity.vllm_scheduler import vllm_version
from concur.validate.steps.step_log import StepRow


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options under vLLM's names; `None` leaves vLLM's default."""

    model: str
    load_format: str = "dummy"
    block_size: int | None = None
    num_gpu_blocks: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    async_scheduling: bool = False
    enforce_eager: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that has finished; `num_cached_tokens` as vLLM reports it."""

    request_id: str
    num_prompt_tokens: int
    num_cached_tokens: int
    output_token_ids: tuple[int, ...]


class StepEngine(Protocol):
    """An engine that is stepped by hand; the real one is `VllmEngine`."""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the duration of its steps; keys of `Provenance`."""
        ...

    @property
    def limits(self) -> Limits:
        """What it can hold and schedule."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        ...

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], max_tokens: int) -> None:
        """Add a request that generates exactly `max_tokens`; the time it takes is no engine time."""
        ...

    def step(self) -> list[Finished]:
        """Run one step of the engine core (with async scheduling: launch one, or wait for one)."""
        ...

    def has_unfinished_requests(self) -> bool:
        """Tell whether there is anything to step for."""
        ...

    def take_rows(self) -> list[StepRow]:
        """Return the steps recorded since the last call."""
        ...

    def outside(self) -> AbstractContextManager[None]:
        """Count the time in the block as the caller's."""
        ...


class VllmEngine:
    """vLLM's `LLMEngine` with a recording scheduler, in this process.

    Raises
    ------
    VllmMissingError
        If vLLM is not installed.
    EngineError
        If the engine cannot be started.
    """

    def __init__(self, options: EngineOptions) -> None:
        vllm_version()
        self._engine = _start(options)
        core = self._engine.engine_core.engine_core
        self._log = core.scheduler.step_log
        self._num_unfinished = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the duration of its steps."""
        return dict(self._log.facts)

    @property
    def limits(self) -> Limits:
        """What it can hold and schedule."""
        facts = self._log.facts
        return Limits(
            facts["block_size"],
            facts["num_gpu_blocks"],
            facts["max_num_batched_tokens"],
            facts["max_num_seqs"],
            facts["flags"]["max_model_len"],
            tuple(facts["cudagraph_capture_sizes"]),
        )

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return int(self._log.facts["model"]["vocab_size"])

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], max_tokens: int) -> None:
        """Add a request; outside the measured time."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        with self.outside():
            params = SamplingParams(
                max_tokens=max_tokens,
                ignore_eos=True,
                detokenize=False,
                temperature=0.0,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(
                request_id, TokensPrompt(prompt_token_ids=list(prompt_token_ids)), params
            )
            self._num_unfinished += 1

    def step(self) -> list[Finished]:
        """Step the engine core; process its outputs outside the measured time."""
        outputs = self._engine.engine_core.get_output()
        with self.outside():
            processed = self._engine.output_processor.process_outputs(
                outputs.outputs, engine_core_timestamp=outputs.timestamp
            )
            finished = [_finished(output) for output in processed.request_outputs if output.finished]
            self._num_unfinished -= len(finished)
        return finished

    def has_unfinished_requests(self) -> bool:
        """Tell whether there is anything to step for."""
        return self._num_unfinished > 0

    def take_rows(self) -> list[StepRow]:
        """Return the steps recorded since the last call."""
        rows: list[StepRow] = self._log.take()
        return rows

    def outside(self) -> AbstractContextManager[None]:
        """Count the time in the block as the caller's."""
        context: AbstractContextManager[None] = self._log.outside()
        return context

    def close(self) -> None:
        """Free the device."""
        self._engine.engine_core.shutdown()


def _start(options: EngineOptions) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    with tempfile.TemporaryDirectory(prefix="concur-model-") as scratch:
        arguments = _arguments(options, model_folder(options.model, Path(scratch)))
        try:
            return LLMEngine.from_engine_args(EngineArgs(**arguments))
        except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
            raise EngineError(
                f"vLLM {vllm_version()} does not start with {arguments} ({error}); change the options"
            ) from error


def _arguments(options: EngineOptions, folder: Path) -> dict[str, Any]:
    from concur.validate.steps.recorder import RecordingAsyncScheduler, RecordingScheduler

    optional = {
        "block_size": options.block_size,
        "num_gpu_blocks_override": options.num_gpu_blocks,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "max_num_seqs": options.max_num_seqs,
        "max_model_len": options.max_model_len,
        "gpu_memory_utilization": options.gpu_memory_utilization,
    }
    return {
        "model": str(folder),
        "load_format": options.load_format,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": True,
        "enforce_eager": options.enforce_eager,
        "tensor_parallel_size": options.tensor_parallel_size,
        "async_scheduling": options.async_scheduling,
        "scheduler_cls": RecordingAsyncScheduler if options.async_scheduling else RecordingScheduler,
    } | {name: value for name, value in optional.items() if value is not None}


def _finished(output: Any) -> Finished:
    return Finished(
        output.request_id,
        len(output.prompt_token_ids),
        output.num_cached_tokens or 0,
        tuple(output.outputs[0].token_ids),
    )
