"""vLLM's own `Scheduler` and `KVCacheManager` in the place of ours, fed by a fake model runner.

Nothing of vLLM is patched: its scheduler is built from its own configuration, decides each step, and is told
of one sampled token for every request that caught up, as a worker would. There is no worker, no model and no
GPU; only the durations of the steps come from the scenario.

vLLM is imported when an object is built, so that this module can be imported without it. Written against
vLLM 0.32.0; 0.24 to 0.33 are told the same (`concur.validate.parity.releases`).
"""

import copy
import os
from functools import cache
from typing import Any, TypeVar

from concur.sim.engine.cache_groups import KVCacheGroupConfig
from concur.sim.engine.config import RELEASES, EngineConfig
from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.step_time.step_time import StepBatch
from concur.sim.workload.spec import Workload
from concur.validate.errors import OutOfScopeError, VllmMissingError
from concur.validate.parity.small_model import small_model_folder
from concur.validate.parity.tokens import TokenBook

Output = TypeVar("Output", bound=SchedulerOutput)


def vllm_version() -> str:
    """Return the version of the installed vLLM.

    Raises
    ------
    VllmMissingError
        If there is none.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import vllm
    except ImportError as error:
        raise VllmMissingError(
            f"vLLM cannot be imported here ({error}); run it in the environment that `make test-vllm` builds"
        ) from None
    return str(vllm.__version__)


def vllm_release() -> str:
    """Return which release of `[engine] release` the installed vLLM is.

    Raises
    ------
    VllmMissingError
        If there is none.
    OutOfScopeError
        If it is none of those.
    """
    version = vllm_version()
    release = ".".join(version.split(".")[:2])
    if release not in RELEASES:
        raise OutOfScopeError(
            f"vLLM {version} is installed here but parity covers {', '.join(RELEASES)}; install one of them"
        )
    return release


def check_in_scope(config: EngineConfig) -> None:
    """Refuse what has no counterpart in vLLM's scheduler.

    Raises
    ------
    OutOfScopeError
        If the scenario has a host cache of another kind than `offloading`: no connector works like it.
    """
    host = config.host_cache
    if host.capacity_tokens and host.kind != "offloading":
        raise OutOfScopeError(
            f"engine.host_cache.capacity_tokens = {host.capacity_tokens} but parity covers no host cache of "
            f'kind {host.kind}; set it to 0, or engine.host_cache.kind = "offloading"'
        )


@cache
def _base_config() -> Any:
    """VLLM's configuration of a small dense model; costly to build, so built once."""
    vllm_version()
    from vllm.engine.arg_utils import EngineArgs

    with small_model_folder() as folder:
        arguments = EngineArgs(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            max_model_len=1 << 20,
            enforce_eager=True,
            async_scheduling=False,
        )
        return arguments.create_engine_config()


def _vllm_config(config: EngineConfig) -> Any:
    """VLLM's configuration with the scenario's values under the same names."""
    vllm_config = copy.copy(_base_config())
    vllm_config.scheduler_config = scheduler = copy.copy(vllm_config.scheduler_config)
    vllm_config.cache_config = cache_config = copy.copy(vllm_config.cache_config)
    vllm_config.model_config = model = copy.copy(vllm_config.model_config)
    for name in (
        "max_num_seqs",
        "max_num_batched_tokens",
        "long_prefill_token_threshold",
        "scheduler_reserve_full_isl",
        "watermark",
        "async_scheduling",
    ):
        assert hasattr(scheduler, name), f"vLLM's SchedulerConfig has no {name}"
        setattr(scheduler, name, getattr(config, name))
    scheduler.policy = config.scheduling_policy
    cache_config.block_size = config.block_size
    cache_config.enable_prefix_caching = config.enable_prefix_caching
    cache_config.num_gpu_blocks = config.num_gpu_blocks
    model.max_model_len = config.max_model_len
    return vllm_config


def build_vllm_scheduler(
    config: EngineConfig, *, kv_transfer_config: Any = None, block_bytes: int = 0
) -> Any:
    """Return vLLM's scheduler for the scenario's engine, with a connector where one is asked for.

    A connector sizes its memory by that of a block, so that it needs to know `block_bytes`.
    """
    vllm_config = _vllm_config(config)
    vllm_config.kv_transfer_config = kv_transfer_config
    from vllm.v1.core.kv_cache_utils import resolve_kv_cache_block_sizes
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    names = [f"layer{number or ''}" for number, _ in enumerate(config.cache_groups)]
    kv_cache_config = KVCacheConfig(
        num_blocks=config.num_gpu_blocks,
        kv_cache_tensors=_tensors(config, block_bytes),
        kv_cache_groups=[
            KVCacheGroupSpec([name], _spec(group))
            for name, group in zip(names, config.cache_groups, strict=True)
        ],
    )
    block_size, hash_block_size = resolve_kv_cache_block_sizes(kv_cache_config, vllm_config)
    return (AsyncScheduler if config.async_scheduling else Scheduler)(
        vllm_config=vllm_config,
        kv_cache_config=kv_cache_config,
        structured_output_manager=StructuredOutputManager(vllm_config),
        block_size=block_size,
        hash_block_size=hash_block_size,
        log_stats=False,
    )


def _tensors(config: EngineConfig, block_bytes: int) -> list[Any]:
    """Return the memory of the pool, for a connector; without one nobody asks."""
    if not block_bytes:
        return []
    from vllm.v1.kv_cache_interface import KVCacheTensor

    size = block_bytes * config.num_gpu_blocks
    return [KVCacheTensor(size=size, layers=["layer"], layer_stride=0, block_stride=block_bytes)]


def _spec(group: KVCacheGroupConfig) -> Any:
    """Return vLLM's words for a group of layers; how large their heads are decides nothing here."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

    shape = {
        "block_size": group.block_size,
        "num_kv_heads": 1,
        "head_size": 64,
        "dtype": torch.bfloat16,
    }
    if group.kind == "sliding_window":
        return SlidingWindowSpec(**shape, sliding_window=group.sliding_window)
    return FullAttentionSpec(**shape)


@cache
def _block_hasher(block_size: int) -> Any:
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

    init_none_hash(sha256)
    return get_request_block_hasher(block_size, sha256)


class VllmScheduler:
    """vLLM's scheduler under the interface of `concur.sim.engine.vllm.scheduler.Scheduler`.

    Our `Request` objects stand outside as the handles of vLLM's; their counters are copied from vLLM's after
    each step, never computed here.
    """

    def __init__(self, config: EngineConfig, workload: Workload) -> None:
        check_in_scope(config)
        if config.release != vllm_release():
            raise OutOfScopeError(
                f"engine.release = {config.release} but vLLM {vllm_version()} is installed here; set "
                f"engine.release = {vllm_release()}"
            )
        self.vllm = self._build(config)
        self._config = config
        self._tokens = TokenBook(workload)
        self._requests: dict[str, Request] = {}
        self._num_added = 0  # stands for the time: of a live engine's requests no two come at once
        self._outputs: dict[str, list[int]] = {}
        self._stats = SchedulerStats()
        self._in_flight: dict[int, Any] = {}

    def _build(self, config: EngineConfig) -> Any:
        return build_vllm_scheduler(config)

    def add_request(self, request: Request) -> None:
        """Hand a request to vLLM, with the token ids of its prompt."""
        from vllm import SamplingParams
        from vllm.v1.request import Request as VllmRequest

        prompt, output = self._tokens.begin_call(request.agent_index, request.call_index)
        self._requests[request.request_id] = request
        self._outputs[request.request_id] = output
        self._num_added += 1
        self.vllm.add_request(
            VllmRequest(
                request_id=request.request_id,
                prompt_token_ids=prompt,
                sampling_params=SamplingParams(max_tokens=request.max_tokens, ignore_eos=True),
                pooling_params=None,
                arrival_time=float(self._num_added),
                priority=request.priority,
                block_hasher=_block_hasher(self._config.block_size),
            )
        )

    def has_unfinished_requests(self) -> bool:
        """Tell whether any request is waiting or running."""
        return bool(self.vllm.get_num_unfinished_requests())

    def schedule(self) -> SchedulerOutput:
        """Let vLLM decide the next step, and translate what it decided."""
        return self._translated(self.vllm.schedule(), SchedulerOutput())

    def _translated(self, decided: Any, output: Output) -> Output:
        """Put what vLLM decided into an output of ours, and keep it until the output is in."""
        for request_id, num_tokens in decided.num_scheduled_tokens.items():
            output.scheduled.append(self._scheduled(request_id, num_tokens, output.batch))
        credited = {new.req_id: new.num_computed_tokens for new in decided.scheduled_new_reqs}
        resumed = decided.scheduled_cached_reqs.resumed_req_ids
        for request, _, _ in output.scheduled:
            if request.request_id in credited and not request.num_preemptions:
                self._credit(request, credited[request.request_id])
            if request.request_id in credited or request.request_id in resumed:
                output.admitted.append(request)
        output.preempted = [self._requests[name] for name in sorted(decided.preempted_req_ids)]
        for request in output.preempted:
            request.num_preemptions += 1
            self._stats.num_preemptions += 1
        self._in_flight[id(output)] = decided
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Report one sampled token per request that caught up; return those that vLLM calls finished."""
        from vllm.v1.outputs import ModelRunnerOutput

        decided = self._in_flight.pop(id(output))
        sampled = [
            [self._outputs[request.request_id].pop(0)] if samples else []
            for request, _, samples in output.scheduled
        ]
        names = [request.request_id for request, _, _ in output.scheduled]
        result = self.vllm.update_from_output(
            decided,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: index for index, name in enumerate(names)},
                sampled_token_ids=sampled,
                kv_connector_output=self._kv_connector_output(output),
            ),
        )
        return self._finished(result, time_s)

    def _kv_connector_output(self, output: SchedulerOutput) -> Any:
        """Return what a worker would report of transfers: nothing without a connector."""

    def _finished(self, result: Any, time_s: float) -> list[Request]:
        """Copy the progress that vLLM reports; return the requests that have finished."""
        return [
            self._requests.pop(report.request_id)
            for report in (result[0].outputs if 0 in result else ())
            if self._take(report, time_s)
        ]

    def make_stats(self) -> SchedulerStats:
        """Return gauges as vLLM computes them, and the counters so far, as a value of its own."""
        stats = copy.copy(self._stats)
        stats.num_requests_running, stats.num_requests_waiting = self.vllm.get_request_counts()
        stats.kv_cache_usage_frac = self.vllm.kv_cache_manager.usage
        stats.kv_cache_resident_frac = None
        return stats

    def finish_load(self, request: Request) -> None:
        """Never called: there is no host cache."""
        raise AssertionError("vLLM's scheduler was given no host cache")

    def _scheduled(self, request_id: str, num_tokens: int, batch: StepBatch) -> tuple[Request, int, bool]:
        """Describe one scheduled request; vLLM has counted the step's progress already."""
        its = self.vllm.requests[request_id]
        samples = not its.is_prefill_chunk
        num_computed = its.num_computed_tokens - num_tokens
        placeholders = its.num_output_placeholders - (samples and self._config.async_scheduling)
        num_known = its.num_tokens + placeholders
        if num_computed == num_known - 1 and num_known > its.num_prompt_tokens:
            batch.add_decode(num_computed)
        else:
            batch.add_prefill(num_tokens, num_computed, 0)
        return self._requests[request_id], num_tokens, samples

    def _credit(self, request: Request, num_cached_tokens: int) -> None:
        """Count the prefix-cache hit of a first admission."""
        request.num_cached_tokens = num_cached_tokens
        self._stats.prefix_cache_hits_tokens += num_cached_tokens
        if self._config.enable_prefix_caching:
            self._stats.prefix_cache_queries_tokens += request.num_prompt_tokens

    def _take(self, report: Any, time_s: float) -> bool:
        """Copy one request's progress from vLLM's report; `True` if it has finished."""
        request = self._requests[report.request_id]
        request.num_tokens += len(report.new_token_ids)
        self._stats.generation_tokens += len(report.new_token_ids)
        if request.first_token_s is None:
            request.first_token_s = time_s
            self._stats.prompt_tokens += request.num_prompt_tokens
        if report.finish_reason is None:
            return False
        request.status = RequestStatus.FINISHED
        request.finished_s = time_s
        del self._outputs[report.request_id]
        return True
