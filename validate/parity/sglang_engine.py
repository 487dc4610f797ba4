"""SGLang's own scheduler, tree and pools, made from its own classes without a model, a GPU or a server.

The `Scheduler` is not started: it is created bare and given what its scheduling methods read. Those, the
policy, the budgets, the batches, the radix tree, the allocators and the processing of results are unchanged.
Written against SGLang 0.5.23.
"""

import logging
import os
from collections import deque
from functools import cache
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

from concur.sim.engine.sglang.scheduler import aborted
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig
from concur.validate.errors import SglangMissingError
from concur.validate.parity.sglang_absent import stand_in_for_absent_packages
from concur.validate.parity.sglang_hicache import HiCacheCounters, attach, server_options, smallest_kv_pool
from concur.validate.parity.small_model import small_model_folder

VOCABULARY: Final = 1 << 40  # token ids are made up, and none is out of it
_ABSENT: Final = (  # parts of a scheduler that this one does without
    *("chunked_req", "_pending_chunked_abort_req", "dllm_config", "min_free_slots_delayer"),
    *("prefill_delayer", "dynamic_chunk_sizer", "truncation_align_size", "decode_offload_manager"),
    *("hisparse_coordinator", "lora_drainer", "max_new_tokens_limit", "sliding_window_size"),
    *("last_batch", "scheduler_stage_metrics", "max_queued_requests"),
)
_OFF: Final = (
    *("enable_unified_cache_external_linker", "enable_lmcache"),
    *("enable_hicache_storage", "enable_hisparse", "require_mlp_sync", "is_hybrid_swa", "is_hybrid_ssm"),
    *("enable_priority_scheduling", "enable_priority_preemption", "enable_lora"),
    *("enable_lora_overlap_loading", "schedule_low_priority_values_first", "enable_fpm"),
    *("enable_overlap_mlx", "enable_unified_memory", "abort_on_priority_when_disabled"),
)


class Idle:
    """Takes every question and every order, answers with itself, and is false and 0."""

    def __getattr__(self, name: str) -> "Idle":
        return self

    def __call__(self, *arguments: Any, **options: Any) -> "Idle":
        """Return itself."""
        return self

    def __bool__(self) -> bool:
        return False

    def __int__(self) -> int:
        return 0


@cache
def sglang_version() -> str:
    """Return the version of the installed SGLang.

    Raises
    ------
    SglangMissingError
        If there is none.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        stand_in_for_absent_packages()
        import sglang.srt.managers.scheduler
        import sglang.version
    except ImportError as error:
        raise SglangMissingError(
            f"SGLang cannot be imported here ({error}); run it in the environment that `make test-sglang` "
            "builds"
        ) from None
    logging.disable(logging.WARNING)  # each retraction warns
    return str(sglang.version.__version__)


@cache
def _model_folder() -> TemporaryDirectory[str]:
    """Return the folder of the model that every engine of this process has; it goes when Python ends."""
    return small_model_folder(bos_token_id=0, eos_token_id=1)


def _publish_arguments(config: SglangConfig) -> Any:
    """Make the server's arguments from the scenario's values, and the process's configuration of them."""
    from sglang.srt import runtime_context
    from sglang.srt.server_args import ServerArgs

    tier = config.hierarchical_cache
    arguments = ServerArgs(
        model_path=_model_folder().name,
        device="cpu",
        load_format="dummy",
        skip_tokenizer_init=True,
        attention_backend="torch_native",
        disable_cuda_graph=True,
        page_size=config.page_size,
        chunked_prefill_size=config.chunked_prefill_size,
        max_prefill_tokens=config.max_prefill_tokens,
        disable_overlap_schedule=config.disable_overlap_schedule,
        max_running_requests=config.max_running_requests,
        max_total_tokens=config.pool_tokens,
        schedule_policy=config.schedule_policy,
        schedule_conservativeness=config.schedule_conservativeness,
        enable_mixed_chunk=config.enable_mixed_chunk,
        pp_max_micro_batch_size=config.max_running_requests,
        **({} if tier is None else server_options(tier)),
    )
    ranks = runtime_context.SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0)
    runtime_context.publish(arguments, role="scheduler", ranks=ranks)
    return arguments


def _pools(config: SglangConfig, longest_tokens: int) -> tuple[Any, Any]:
    """Return the pools of rows and of tokens."""
    import torch
    from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator, TokenToKVPoolAllocator
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

    rows = ReqToTokenPool(
        size=config.max_running_requests,
        max_context_len=longest_tokens + 16,
        device="cpu",
        enable_memory_saver=False,
    )
    size = config.pool_tokens
    memory = Idle() if config.hierarchical_cache is None else smallest_kv_pool(config)
    tokens = (
        TokenToKVPoolAllocator(size, torch.bfloat16, "cpu", memory, need_sort=False)
        if config.page_size == 1
        else PagedTokenToKVPoolAllocator(
            size, config.page_size, torch.bfloat16, "cpu", memory, need_sort=False
        )
    )
    return rows, tokens


class SglangEngine:
    """A scheduler of SGLang's with its tree, its pool of tokens and what takes in its results.

    With `transfers` the tree has a host behind it, on those links.
    """

    def __init__(
        self, config: SglangConfig, longest_tokens: int, transfers: HostTransfers | None = None
    ) -> None:
        sglang_version()
        arguments = self._publish(config)
        self._rows, self.tokens = _pools(config, longest_tokens)
        self.tree = self._make_tree(config)
        self.counters = HiCacheCounters()
        if transfers is not None:
            self.tree.metrics_collector = self.counters
            parameters = self._cache_parameters(config, chunked_prefill_size=config.chunked_prefill_size)
            attach(self.tree, parameters, arguments, transfers)
        self._model = SimpleNamespace(
            is_encoder_decoder=False,
            is_matryoshka=False,
            vocab_size=VOCABULARY,
            is_multimodal=False,
            hf_eos_token_id={1},
            context_len=config.context_length,
            think_start_ids=None,
            think_end_ids=None,
            think_end_id=None,
            self_opened_think_start_ids=None,
        )
        self._beams = SimpleNamespace(
            pending_member_rows=lambda batch: 0,
            retire_group=lambda req: None,
            commit_decode=lambda batch: set(),
        )
        self._reporter = SimpleNamespace(
            num_retracted_reqs=0,
            enable_metrics=False,
            num_generated_tokens=0,
            forward_ct_decode=0,
            report_prefill_stats=lambda **options: None,
            report_decode_stats=lambda *values, **options: None,
        )
        self.scheduler = self._make_scheduler(config, arguments)
        self.scheduler.result_queue = deque()
        self.results = self._make_results(config)

    def _publish(self, config: SglangConfig) -> Any:
        return _publish_arguments(config)

    def _make_tree(self, config: SglangConfig) -> Any:
        from sglang.srt.mem_cache.unified_cache.components import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        return UnifiedRadixCache(
            self._cache_parameters(
                config,
                chunked_prefill_size=config.chunked_prefill_size,
                tree_components=(ComponentType.FULL,),
            )
        )

    def _cache_parameters(self, config: SglangConfig, **others: Any) -> Any:
        from sglang.srt.mem_cache.cache_init_params import CacheInitParams

        return CacheInitParams(
            disable=False,
            req_to_token_pool=self._rows,
            token_to_kv_pool_allocator=self.tokens,
            page_size=config.page_size,
            eviction_policy="lru",
            **others,
        )

    def _make_scheduler(self, config: SglangConfig, arguments: Any) -> Any:
        from sglang.srt.disaggregation.utils import DisaggregationMode
        from sglang.srt.managers.schedule_batch import ScheduleBatch
        from sglang.srt.managers.schedule_policy import SchedulePolicy
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.managers.scheduler_components.new_token_ratio_tracker import NewTokenRatioTracker
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        scheduler = Scheduler.__new__(Scheduler)
        is_chunked = config.chunked_prefill_size > 0
        vars(scheduler).update(
            dict.fromkeys(_ABSENT),
            **dict.fromkeys(_OFF, False),
            server_args=arguments,
            enable_hierarchical_cache=config.hierarchical_cache is not None,
            schedule_policy=config.schedule_policy,
            priority_scheduling_preemption_threshold=10,
            page_size=config.page_size,
            waiting_queue=[],
            running_batch=ScheduleBatch(reqs=[], batch_is_full=False),
            enable_overlap=not config.disable_overlap_schedule,
            enable_skip_finishing_decode=not config.disable_overlap_schedule,
            forward_ct=0,
            processed_tokens_counter=0,
            chunked_prefill_size=config.chunked_prefill_size if is_chunked else None,
            is_mixed_chunk=is_chunked and config.enable_mixed_chunk,
            prefill_decode_interval=0,
            _prefill_decode_interval_remaining=0,
            prefill_decode_interval_min_bs=0,
            max_prefill_bs=0,
            max_total_num_tokens=config.pool_tokens,
            max_prefill_tokens=config.max_prefill_tokens,
            max_running_requests=config.max_running_requests,
            max_req_len=min(config.context_length, config.pool_tokens) - 1,
            max_req_input_len=config.max_prompt_tokens,
            device="cpu",
            tree_cache=self.tree,
            req_to_token_pool=self._rows,
            token_to_kv_pool_allocator=self.tokens,
            model_config=self._model,
            spec_algorithm=SpeculativeAlgorithm.NONE,
            disaggregation_mode=DisaggregationMode.NULL,
            is_generation=True,
            kv_shard_widening=1,
            beam_coordinator=self._beams,
            metrics_reporter=self._reporter,
            **_bystanders(config),
        )
        scheduler.policy = SchedulePolicy(config.schedule_policy, self.tree, False, False, False)
        scheduler.new_token_ratio_tracker = NewTokenRatioTracker.from_config()
        return scheduler

    def _make_results(self, config: SglangConfig) -> Any:
        from sglang.srt.disaggregation.utils import DisaggregationMode
        from sglang.srt.managers.scheduler_components.batch_result_processor import (
            SchedulerBatchResultProcessor,
        )

        return SchedulerBatchResultProcessor(
            is_generation=True,
            disaggregation_mode=DisaggregationMode.NULL,
            enable_overlap=not config.disable_overlap_schedule,
            enable_overlap_mlx=False,
            model_config=self._model,
            token_to_kv_pool_allocator=self.tokens,
            tree_cache=self.tree,
            hisparse_coordinator=None,
            req_to_token_pool=self._rows,
            decode_offload_manager=None,
            metrics_collector=Idle(),
            metrics_reporter=self._reporter,
            draft_worker=None,
            model_worker=None,
            logprob_result_processor=None,
            output_streamer=SimpleNamespace(stream_output=lambda *values: None),
            beam_coordinator=self._beams,
            abort_request=None,
        )


def _bystanders(config: SglangConfig) -> dict[str, Any]:
    """Return what the scheduler talks to while it schedules, and nothing comes of it here."""

    def unchanged(batch: Any, **options: Any) -> Any:
        return batch

    def abort(request: Any, req: Any) -> None:
        raise aborted(req.rid, config)

    worker = SimpleNamespace(model_runner=SimpleNamespace(attn_backend=object(), prefill_aware_swa=False))
    return {
        "send_abort_output": abort,
        "tp_worker": worker,
        "grammar_manager": SimpleNamespace(has_waiting_grammars=lambda: False),
        "dp_attn_adapter": SimpleNamespace(
            maybe_prepare_mlp_sync_batch=unchanged, maybe_convert_decode_to_extend=unchanged
        ),
        "ngram_embedding_manager": SimpleNamespace(prepare_for_forward=unchanged),
        "load_inquirer": SimpleNamespace(_get_num_pending_tokens=lambda **options: 0),
    }
