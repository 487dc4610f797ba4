"""vLLM's V1 scheduler with a KV connector: requests that wait for their load, and blocks held for it.

Semantics of vLLM 0.32.0, `v1/core/sched/scheduler.py`, where `self.connector` is set. Everything else is
`concur.sim.engine.vllm.scheduler.Scheduler`.

- A request that would load gets its blocks at once and waits in `kv_holding_waiting`, in the order in which
  loads began. It takes no token budget. Those behind it are considered.
- What was loaded can be found by others from the step on in which its request is looked at again.
- A load is admitted if the whole sequence fits beside the watermark, and what it loads beside that, the
  watermark and what prefills and loads in flight still need.
- If steps overlap, a request that is in one in flight is not preempted: the round of running requests ends.
"""

from collections.abc import Iterable
from typing import Protocol

from mypy_extensions import mypyc_attr

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.offload.transfers import ConnectorOutput
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.engine.vllm.scheduler import Scheduler, _chunk
from concur.sim.kv.kv_cache_manager import KVCacheManager


class KVConnector(Protocol):
    """What the scheduler asks of a connector, under vLLM's names (`KVConnectorBase_V1`)."""

    @property
    def has_pending_work(self) -> bool:
        """Whether steps must go on although no request is left."""
        ...

    def on_new_request(self, request: Request) -> None:
        """Take note of a request."""
        ...

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> int | None:
        """Return how many tokens can be loaded beyond those that the pool has; `None`: ask again later."""
        ...

    def update_state_after_alloc(
        self, request: Request, num_computed_tokens: int, num_external_tokens: int
    ) -> None:
        """Start a load into the blocks that the request has been given."""
        ...

    def build_connector_meta(self, output: ConnectorOutput) -> None:
        """Add transfers to a step that has been decided."""
        ...

    def update_connector_output(self, completed_jobs: Iterable[int]) -> list[Request]:
        """Take note of transfers that are done; return the requests whose loads have arrived."""
        ...

    def request_finished(self, request: Request) -> None:
        """Take note that a request's blocks are about to be freed."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ConnectedScheduler(Scheduler[KVCacheManager]):
    """Life of a load: admitted, with blocks -> waiting for it -> arrived -> looked at again -> running."""

    def __init__(
        self, config: EngineConfig, kv_cache_manager: KVCacheManager, connector: KVConnector
    ) -> None:
        super().__init__(config, kv_cache_manager)
        self.connector = connector
        self._arrived: set[Request] = set()
        self._inflight_prefills: set[Request] = set()

    def add_request(self, request: Request) -> None:
        """Put a request at the end of the waiting queue."""
        super().add_request(request)
        self.connector.on_new_request(request)

    def has_requests(self) -> bool:
        """Tell whether there are requests, or transfers that somebody must hear of."""
        return self.has_unfinished_requests() or self.connector.has_pending_work

    def schedule(self) -> ConnectorOutput:
        """Decide the next step, with its transfers; it may be one that computes nothing."""
        output = ConnectorOutput()
        self._fill(output, self.config.max_num_batched_tokens)
        self.connector.build_connector_meta(output)
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Give each request that sampled its token, and take note of transfers; return the finished ones."""
        assert isinstance(output, ConnectorOutput)
        finished = super().update_from_output(output, time_s=time_s)
        self._arrived.update(self.connector.update_connector_output(output.completed_jobs))
        return finished

    def _finish(self, request: Request, time_s: float) -> None:
        self.connector.request_finished(request)
        super()._finish(request, time_s)

    def _preempt(self, request: Request) -> None:
        self._inflight_prefills.discard(request)
        super()._preempt(request)

    def _may_preempt(self, victim: Request, output: SchedulerOutput) -> bool:
        """Spare those who are in a step in flight: transfers may depend on their blocks."""
        num_now = sum(num_tokens for request, num_tokens, _ in output.scheduled if request is victim)
        return victim.num_in_flight_tokens == num_now

    def _put(self, output: SchedulerOutput, request: Request, num_tokens: int) -> None:
        super()._put(output, request, num_tokens)
        _, _, samples = output.scheduled[-1]
        if samples:
            self._inflight_prefills.discard(request)
        else:
            self._inflight_prefills.add(request)

    def _schedule_waiting(self, output: SchedulerOutput, budget: int, threshold: int) -> int:
        """Admit in order, those who hold blocks first, until one does not fit; return the budget left."""
        holding: list[Request] = []
        skipped: list[Request] = []
        while budget > 0 and len(self.running) < self.config.max_num_seqs:
            queue = self.kv_holding_waiting or self.waiting
            if not queue:
                break
            request = queue[0]
            fits = self._try(request, budget, threshold)
            if fits is False:
                break
            queue.popleft()
            if fits is None:
                is_loading = request.status is RequestStatus.WAITING_FOR_REMOTE_KVS
                (holding if is_loading else skipped).append(request)
                continue
            budget -= self._start_running(output, request, budget, threshold)
        self._policy.put_back(self.kv_holding_waiting, holding)
        self._policy.put_back(self.waiting, skipped)
        return budget

    def _try(self, request: Request, budget: int, threshold: int) -> bool | None:
        """Tell whether a waiting request runs now; `None`: it cannot yet, but the next one may."""
        if request.status is RequestStatus.WAITING_FOR_REMOTE_KVS:
            if request not in self._arrived:
                return None
            self._promote(request)
        if request.num_stale_output_tokens:
            return None
        if request.num_computed_tokens:
            return self._can_start_loaded(request, budget, threshold)
        return self._look_up(request, budget, threshold)

    def _promote(self, request: Request) -> None:
        """Make what was loaded findable; of a prompt that was found whole, the last token is computed."""
        self._arrived.remove(request)
        self._note_arrival(request)
        request.num_computed_tokens -= request.num_computed_tokens == request.num_tokens

    def _look_up(self, request: Request, budget: int, threshold: int) -> bool | None:
        """Give a request the blocks that it hits, or start their load, if it fits."""
        kv, history = self.kv_cache_manager, request.history
        num_hit_blocks = kv.count_hits(history, request.num_tokens)
        num_hit_tokens = num_hit_blocks * kv.block_size
        num_external_tokens = self.connector.get_num_new_matched_tokens(request, num_hit_tokens)
        if num_external_tokens is None:
            return None
        watermark = self._watermark_blocks()
        if self.config.scheduler_reserve_full_isl and not kv.can_admit(
            history, num_hit_blocks, request.num_tokens, keep_free_blocks=watermark
        ):
            return False
        num_tokens, keep_free_blocks = num_hit_tokens + num_external_tokens, watermark
        if num_external_tokens:
            keep_free_blocks += self._reserved_blocks()
        else:
            num_tokens += _chunk(request.num_tokens - num_hit_tokens, threshold, budget)
        if not kv.can_admit(history, num_hit_blocks, num_tokens, keep_free_blocks=keep_free_blocks):
            return False
        self._adopt(request, num_hit_blocks, 0)
        self._note_external(request, num_hit_tokens, num_external_tokens)
        if not num_external_tokens:
            return True
        self._start_load(request, num_hit_tokens, num_external_tokens)
        return None

    def _note_external(self, request: Request, num_hit_tokens: int, num_external_tokens: int) -> None:
        if request.num_preemptions:
            return
        request.num_cached_tokens += num_external_tokens
        request.num_host_tokens = num_external_tokens
        self._stats.external_prefix_cache_queries_tokens += request.num_tokens - num_hit_tokens
        self._stats.external_prefix_cache_hits_tokens += num_external_tokens

    def _start_load(self, request: Request, num_hit_tokens: int, num_external_tokens: int) -> None:
        kv = self.kv_cache_manager
        kv.extend(request.request_id, num_external_tokens // kv.block_size)
        self.connector.update_state_after_alloc(request, num_hit_tokens, num_external_tokens)
        request.num_computed_tokens = num_hit_tokens + num_external_tokens
        request.status = RequestStatus.WAITING_FOR_REMOTE_KVS
        self._inflight_prefills.add(request)

    def _reserved_blocks(self) -> int:
        """Blocks that prefills and loads in flight still need for their whole sequences."""
        kv = self.kv_cache_manager
        return sum(
            max(-(-request.num_tokens // kv.block_size) - kv.num_blocks_of(request.request_id), 0)
            for request in self._inflight_prefills
        )
