"""SGLang 0.5.8's own scheduler, tree and pools, made bare as those of 0.5.23 are.

There the results are processed by methods of the scheduler, and the loop keeps the running batch in it.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from concur.sim.engine.sglang_config import SglangConfig
from concur.validate.parity.sglang_engine import Idle, SglangEngine
from concur.validate.parity.sglang_scheduler import SglangScheduler

_ABSENT: Final = ("chunked_req", "dllm_config", "truncation_align_size", "prefill_delayer", "last_batch")
_OFF: Final = (
    *(
        "enable_hierarchical_cache",
        "enable_hicache_storage",
        "enable_metrics",
        "enable_lora",
        "is_hybrid_swa",
    ),
    *("enable_dynamic_chunking", "try_preemption", "require_mlp_sync", "enable_priority_scheduling"),
)


class SglangEngine058(SglangEngine):
    """A scheduler of 0.5.8 with its tree and its pool of tokens; it takes in its own results."""

    def _publish(self, config: SglangConfig) -> Any:
        """Make what its code asks of the server's arguments, and hand it to the process."""
        from sglang.srt import server_args
        from sglang.srt.mem_cache import allocator

        allocator.alloc_extend_kernel = _OnCpu(_fill_extends)
        allocator.alloc_decode_kernel = _OnCpu(_fill_decodes)
        arguments = Idle058(
            page_size=config.page_size,
            attention_backend="torch_native",
            speculative_algorithm=None,
            disaggregation_mode="null",
            disaggregation_decode_enable_offload_kvcache=False,
            pp_max_micro_batch_size=config.max_running_requests,
            prefill_max_requests=None,
            decode_log_interval=40,
            schedule_conservativeness=config.schedule_conservativeness,
            enable_deterministic_inference=False,
        )
        server_args.set_global_server_args_for_scheduler(arguments)
        return arguments

    def _make_tree(self, config: SglangConfig) -> Any:
        from sglang.srt.mem_cache.radix_cache import RadixCache

        return RadixCache(self._cache_parameters(config))

    def _make_scheduler(self, config: SglangConfig, arguments: Any) -> Any:
        from sglang.srt.disaggregation.utils import DisaggregationMode
        from sglang.srt.environ import envs
        from sglang.srt.managers.schedule_batch import DllmStagingReqs, ScheduleBatch
        from sglang.srt.managers.schedule_policy import SchedulePolicy
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        scheduler = Scheduler.__new__(Scheduler)
        is_chunked = config.chunked_prefill_size > 0
        init = min(envs.SGLANG_INIT_NEW_TOKEN_RATIO.get() * config.schedule_conservativeness, 1.0)
        least = min(init * envs.SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR.get(), 1.0)
        vars(scheduler).update(
            dict.fromkeys(_ABSENT),
            **dict.fromkeys(_OFF, False),
            server_args=arguments,
            page_size=config.page_size,
            waiting_queue=[],
            running_batch=ScheduleBatch(reqs=[], batch_is_full=False),
            enable_overlap=not config.disable_overlap_schedule,
            chunked_prefill_size=config.chunked_prefill_size if is_chunked else None,
            is_mixed_chunk=is_chunked and config.enable_mixed_chunk,
            max_total_num_tokens=config.pool_tokens,
            max_prefill_tokens=config.max_prefill_tokens,
            max_req_len=min(config.context_length, config.pool_tokens) - 1,
            tree_cache=self.tree,
            req_to_token_pool=self._rows,
            token_to_kv_pool_allocator=self.tokens,
            model_config=self._model,
            spec_algorithm=SpeculativeAlgorithm.NONE,
            disaggregation_mode=DisaggregationMode.NULL,
            dllm_staging_reqs=DllmStagingReqs(None),
            is_generation=True,
            policy=SchedulePolicy(config.schedule_policy, self.tree, False, False, False),
            init_new_token_ratio=init,
            min_new_token_ratio=least,
            new_token_ratio_decay=(init - least) / envs.SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS.get(),
            new_token_ratio=init,
            decode_mem_cache_buf_multiplier=1,
            pp_size=1,
            priority_scheduling_preemption_threshold=10,
            current_scheduler_metrics_enabled=True,
            num_generated_tokens=0,
            forward_ct=0,
            processed_tokens_counter=0,
            forward_ct_decode=0,
            num_retracted_reqs=0,
            grammar_manager=SimpleNamespace(has_waiting_grammars=lambda: False),
            tp_worker=SimpleNamespace(model_runner=SimpleNamespace(mambaish_config=None)),
            maybe_collect_routed_experts=lambda req: None,
            stream_output=lambda *values: None,
            log_decode_stats_every_iteration=lambda *values, **options: None,
            _abort_on_queued_timeout=lambda: None,
            _abort_on_queued_limit=lambda req: False,
            _prefetch_kvcache=lambda req: None,
            maybe_prepare_mlp_sync_batch_and_log_stats=lambda batch, **options: batch,
        )
        return scheduler

    def _make_results(self, config: SglangConfig) -> Any:
        return self.scheduler


class _OnCpu:
    """Stands for a kernel: which slots the pages give to each request, computed one by one."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self._function


def _fill_extends(
    before: Any, after: Any, last: Any, free_pages: Any, slots: Any, _: int, page_size: int, *sizes: int
) -> None:
    found, pages = [], iter(free_pages.tolist())
    for first, end, slot in zip(before.tolist(), after.tolist(), last.tolist(), strict=True):
        for position in range(first, end):
            slot = slot + 1 if position % page_size else next(pages, 0) * page_size
            found.append(slot)
    slots[:] = slots.new_tensor(found)


def _fill_decodes(after: Any, last: Any, free_pages: Any, slots: Any, _: int, page_size: int) -> None:
    _fill_extends(after - 1, after, last, free_pages, slots, 0, page_size)


class Idle058(Idle):
    """Arguments: those that are named, and nothing else."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


class SglangScheduler058(SglangScheduler):
    """0.5.8's scheduler under the interface of ours."""

    @property
    def new_token_ratio(self) -> float:
        """How much of their limits the requests are expected to write."""
        return float(self.sglang.new_token_ratio)

    def rest(self) -> None:
        """Do what 0.5.8 does when there is nothing to do (`self_check_during_idle`), after a last pass."""
        if not self.sglang.waiting_queue:
            self.sglang.get_next_batch_to_run()
        self.sglang.new_token_ratio = self.sglang.init_new_token_ratio
        self.sglang.last_batch = None

    def _make_engine(self, config: SglangConfig, longest_tokens: int) -> SglangEngine:
        return SglangEngine058(config, longest_tokens)

    def _listen(self) -> None:
        self.sglang.log_prefill_stats = lambda adder, reqs, **counts: self._refresh_gauges(
            counts["running_bs"]
        )
        self.sglang.log_decode_stats = lambda graph, running_batch: self._refresh_gauges(
            len(running_batch.reqs)
        )

    def _token_ids(self, tokens: list[int]) -> Any:
        return list(tokens)

    def _num_middle_chunks(self, req: Any) -> int:
        return int(req.is_chunked)

    def _decide(self) -> Any:
        """Let SGLang decide; a loop that finds nothing and has nothing in flight turns again."""
        scheduler = self.sglang
        scheduler.last_batch = scheduler.get_next_batch_to_run()
        if scheduler.last_batch is None and not scheduler.result_queue and scheduler.waiting_queue:
            self.rest()
            scheduler.last_batch = scheduler.get_next_batch_to_run()
        return scheduler.last_batch

    def _launch(self, batch: Any) -> None:
        super()._launch(batch)
        import torch

        batch.output_ids = torch.zeros(
            len(batch.reqs), dtype=torch.int64
        )  # what is decoded next has tokens to begin with

    def _shown(self, usage: float) -> float:
        return usage
