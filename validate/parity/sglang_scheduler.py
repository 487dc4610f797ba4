"""SGLang's own `Scheduler` in the place of ours, fed by a fake model.

Our `Request` objects stand outside as the handles of SGLang's; their counters are copied from SGLang's, never
computed here. Written against SGLang 0.5.23.
"""

import copy
from array import array
from typing import Any

from concur.sim.engine.output import SchedulerOutput, SchedulerStats
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.sglang.transfers import HostTransfers
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.workload.spec import Workload
from concur.validate.parity.sglang_engine import VOCABULARY, SglangEngine
from concur.validate.parity.sglang_hicache import has_transfers
from concur.validate.parity.tokens import TokenBook

_DECODE_LOG_INTERVAL = 40  # `ServerArgs.decode_log_interval`


class DecidedBatch(SchedulerOutput):
    """What SGLang decided; `extends` are the tokens that each request computes and has before."""

    __slots__ = ("extends",)

    def __init__(self) -> None:
        super().__init__()
        self.extends: list[tuple[int, int]] = []


class SglangScheduler:
    """SGLang's scheduler under the interface of `concur.sim.engine.sglang.scheduler.Scheduler`."""

    def __init__(
        self, config: SglangConfig, workload: Workload, transfers: HostTransfers | None = None
    ) -> None:
        longest_tokens = max(agent.peak_context_tokens for agent in workload.agents)
        self._transfers = transfers
        self.engine = self._make_engine(config, longest_tokens)
        self.sglang = self.engine.scheduler
        self._config = config
        self._tokens = TokenBook(workload)
        self._requests: dict[str, Request] = {}
        self._outputs: dict[str, list[int]] = {}
        self._num_retractions: dict[str, int] = {}
        self._stats = SchedulerStats()
        self._host_hit_tokens = 0
        self._listen()

    @property
    def new_token_ratio(self) -> float:
        """How much of their limits the requests are expected to write."""
        return float(self.sglang.new_token_ratio_tracker.current)

    def add_request(self, request: Request) -> None:
        """Hand a request to SGLang, with its token ids; an answer that ends by itself ends with an EOS."""
        from sglang.srt.managers.schedule_batch import Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        prompt, output = self._tokens.begin_call(request.agent_index, request.call_index)
        limit = request.max_new_tokens
        parameters = SamplingParams(
            max_new_tokens=limit or request.max_tokens, ignore_eos=limit is None, temperature=0
        )
        parameters.normalize(None)
        req = Req(
            request.request_id,
            "",
            self._token_ids(prompt),
            parameters,
            eos_token_ids={output[-1]},
            vocab_size=VOCABULARY,
        )
        self._requests[request.request_id] = request
        self._outputs[request.request_id] = output
        self.sglang.init_req_max_new_tokens(req)
        self.sglang._add_request_to_queue(req)

    def has_unfinished_requests(self) -> bool:
        """Tell whether any request has not finished, or a batch is in flight."""
        return bool(self._requests or self.sglang.result_queue)

    def schedule(self) -> SchedulerOutput:
        """Let SGLang decide the next batch, and translate what it decided."""
        batch = self._decide()
        output = DecidedBatch()
        output.preempted = self._newly_retracted()
        if batch:
            self._translate(batch, output)
            self._launch(batch)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Let SGLang take in the sampled tokens of the oldest batch; return those that it calls finished."""
        batch, result = self.sglang.result_queue.popleft()
        open_before = [req for req in batch.reqs if not req.finished()]
        if batch.forward_mode.is_decode():
            self.engine.results.process_batch_result_decode(batch, result)
        else:
            self.engine.results.process_batch_result_prefill(batch, result)
        if self._transfers is not None:
            self.engine.tree.flush_pending_backups()
        for req in open_before:
            self._copy_progress(req, time_s)
        return [self._finish(req, time_s) for req in open_before if req.finished()]

    def finish_load(self, request: Request) -> None:
        """Never called: SGLang asks for loads itself."""
        raise AssertionError("SGLang's scheduler is told of no load")

    def make_stats(self) -> SchedulerStats:
        """Return gauges as SGLang last refreshed them, and the counters so far, as a value of its own."""
        return copy.copy(self._stats)

    def has_transfers(self) -> bool:
        """Tell whether something is on its way from one tier to the other."""
        return has_transfers(self.engine.tree)

    def tier_metrics(self) -> dict[str, float]:
        """Return what went from one tier to the other, as SGLang counts it."""
        counted = {} if self._transfers is None else self.engine.counters.tier_metrics()
        return counted | {"host_hit_tokens": self._host_hit_tokens}

    def rest(self) -> None:
        """Do what SGLang does when there is nothing to do (`on_idle`)."""
        self.sglang.new_token_ratio_tracker.reset()
        self.sglang.last_batch = None
        if self._stats.num_requests_running:  # `_maybe_log_idle_metrics`
            self._refresh_gauges(0)

    def _make_engine(self, config: SglangConfig, longest_tokens: int) -> SglangEngine:
        return SglangEngine(config, longest_tokens, self._transfers)

    def _listen(self) -> None:
        """Refresh the gauges when SGLang reports."""
        reporter = self.sglang.metrics_reporter
        reporter.report_prefill_stats = self._report_prefill
        reporter.report_decode_stats = self._report_decode

    def _token_ids(self, tokens: list[int]) -> Any:
        return array("q", tokens)

    def _num_middle_chunks(self, req: Any) -> int:
        return int(req.inflight_middle_chunks)

    def _decide(self) -> Any:
        """Let SGLang decide the next batch, or none."""
        scheduler = self.sglang
        plan = scheduler.get_next_batch_to_run(
            running_batch=scheduler.running_batch, last_batch=scheduler.last_batch
        )
        scheduler.running_batch = plan.running_batch
        scheduler.last_batch = plan.batch_to_run
        return plan.batch_to_run

    def _translate(self, batch: Any, output: DecidedBatch) -> None:
        is_decode, decoding = batch.forward_mode.is_decode(), {id(req) for req in batch.decoding_reqs or ()}
        for index, req in enumerate(batch.reqs):
            request = self._requests.get(req.rid)
            assert request is not None, f"{req.rid} is in a batch after its end"
            if is_decode or (id(req) in decoding and batch.forward_mode.is_mixed()):
                num_before = int(batch.seq_lens_cpu[index]) - 1
                output.batch.add_decode(num_before)
                output.extends.append((1, num_before))
                output.scheduled.append((request, 1, True))
                continue
            num_tokens, num_before = batch.extend_lens[index], batch.prefix_lens[index]
            output.batch.add_prefill(num_tokens, num_before, 0)
            output.extends.append((num_tokens, num_before))
            output.scheduled.append((request, num_tokens, req is not batch.chunked_req))
            if request.num_cached_tokens < 0:
                request.num_cached_tokens = num_before
                output.admitted.append(request)

    def _launch(self, batch: Any) -> None:
        """Do to the scheduler what running a batch does, with tokens known beforehand."""
        import torch
        from sglang.srt.managers.utils import GenerationBatchResult

        scheduler = self.sglang
        scheduler.forward_ct += 1
        batch.forward_iter = scheduler.forward_ct
        batch.input_ids = None
        if batch.extend_num_tokens:
            scheduler.processed_tokens_counter += batch.extend_num_tokens
        in_flight = self._about_to_sample()
        tokens = [self._next_token(req, ahead=id(req) in in_flight) for req in batch.reqs]
        result = GenerationBatchResult(next_token_ids=torch.tensor(tokens, dtype=torch.int64))
        kept = batch if self._config.disable_overlap_schedule else batch.copy()
        if kept is not batch:
            kept.prefill_stats = getattr(batch, "prefill_stats", None)  # 0.5.8 has none
        scheduler.result_queue.append((kept, result))

    def _about_to_sample(self) -> set[int]:
        """Return who will get a token of the batch in flight."""
        return {
            id(req)
            for batch, _ in self.sglang.result_queue
            for req in batch.reqs
            if batch.forward_mode.is_decode() or self._num_middle_chunks(req) <= 0
        }

    def _next_token(self, req: Any, *, ahead: bool) -> int:
        output = self._outputs[req.rid]
        return output[min(len(req.output_ids) + ahead, len(output) - 1)]

    def _newly_retracted(self) -> list[Request]:
        retracted = []
        for req in self.sglang.waiting_queue:
            if req.retraction_count > self._num_retractions.get(req.rid, 0):
                self._num_retractions[req.rid] = req.retraction_count
                request = self._requests[req.rid]
                request.num_preemptions += 1
                self._stats.num_preemptions += 1
                retracted.append(request)
        return retracted

    def _copy_progress(self, req: Any, time_s: float) -> None:
        request = self._requests[req.rid]
        request.num_tokens = request.num_prompt_tokens + len(req.output_ids)
        if req.output_ids and request.first_token_s is None:
            request.first_token_s = time_s

    def _finish(self, req: Any, time_s: float) -> Request:
        request, stats = self._requests.pop(req.rid), self._stats
        del self._outputs[req.rid]
        request.status = RequestStatus.FINISHED
        request.finished_s = time_s
        stats.prompt_tokens += request.num_prompt_tokens
        stats.prefix_cache_queries_tokens += request.num_prompt_tokens
        stats.prefix_cache_hits_tokens += req.cached_tokens
        stats.generation_tokens += len(req.output_ids)
        if self._transfers is not None:
            request.num_host_tokens = req.cached_tokens_host
        return request

    def _report_prefill(self, *, prefill_stats: Any, **others: Any) -> None:
        if self._transfers is not None:
            self._host_hit_tokens += prefill_stats.log_host_hit_tokens
        self._refresh_gauges(prefill_stats.num_running_reqs.total)

    def _report_decode(self, *others: Any, running_batch: Any, **options: Any) -> None:
        if self.sglang.metrics_reporter.forward_ct_decode % _DECODE_LOG_INTERVAL == 0:
            self._refresh_gauges(len(running_batch.reqs))

    def _refresh_gauges(self, num_running: int) -> None:
        """Take the gauges from SGLang's pools, as `PoolStats` does."""
        stats, size = self._stats, self._config.pool_tokens
        available, evictable = self.engine.tokens.available_size(), self.engine.tree.evictable_size()
        stats.num_requests_running = num_running
        stats.num_requests_waiting = len(self.sglang.waiting_queue)
        stats.kv_cache_usage_frac = self._shown((size - available - evictable) / size)
        stats.kv_cache_resident_frac = (size - available) / size

    def _shown(self, usage: float) -> float:
        return round(usage, 2)
