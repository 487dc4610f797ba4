"""The scheduler side of vLLM's `OffloadingConnector`: what is stored, found, loaded, and waited for.

Semantics of vLLM 0.32.0, `kv_connector/v1/offloading/scheduler.py`, for one group of full-attention layers.
The tier is written through: each scheduled request offers the chunks that its step fills, and only prompts
under `offload_prompt_only`. A chunk is `blocks_per_chunk` blocks, named by the last of them.

- A look-up begins with the chunk in which the pool's own hit ends, and may find the whole prompt. It is put
  off while a chunk that it hits is being written or is being loaded for another request, and while the
  request's own transfers run.
- Blocks are never held back for a store. If one that is being stored is handed out again, or a request that
  stores is preempted, the step waits for those stores: they are flushed.
- After a load, offers begin behind what was loaded; a preemption does not begin them anew. Since 0.33 every
  look-up does.

Left out: sliding windows, recurrent layers, tiers beyond host memory, per-request limits, KV events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.offload.transfers import ConnectorOutput, TransferJob
from concur.sim.engine.request import Request, RequestStatus
from concur.sim.kv.eviction import ARCCachePolicy, CachePolicy, LRUCachePolicy, RequestAccess
from concur.sim.kv.history import BlockHash
from concur.sim.kv.kv_cache_manager import KVCacheManager
from concur.sim.kv.offload_manager import LookupResult, OffloadingManager
from concur.sim.kv.request_lru import RequestLRUCachePolicy


@dataclass(slots=True, eq=False)
class _RequestState:
    """What the connector knows of a request; `keys` name its full chunks so far."""

    request: Request
    access: RequestAccess = field(default_factory=RequestAccess)
    keys: list[BlockHash] = field(default_factory=list)
    block_ids: list[int] = field(default_factory=list)
    next_stored_chunk_idx: int = 0
    transfer_jobs: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Job:
    """A transfer that was not reported done; a store reads from `block_ids`."""

    state: _RequestState
    keys: list[BlockHash]
    is_store: bool
    block_ids: list[int]


class OffloadingConnector:
    """Decides for every step which chunks go to host memory and which come back."""

    def __init__(self, config: EngineConfig, kv_cache_manager: KVCacheManager) -> None:
        host = config.host_cache
        self._kv = kv_cache_manager
        self._block_size = config.block_size
        self._blocks_per_chunk = host.blocks_per_chunk
        self._tokens_per_chunk = config.block_size * host.blocks_per_chunk
        self._offload_prompt_only = host.offload_prompt_only
        num_chunks = host.capacity_tokens // self._tokens_per_chunk
        policy = _make_policy(config, num_chunks)
        self.manager = OffloadingManager(num_chunks, policy, store_threshold=host.store_threshold)
        self._offers_anew = not config.is_before("0.33")
        self._states: dict[str, _RequestState] = {}
        self._jobs: dict[int, _Job] = {}
        self._num_jobs = 0
        self._chunks_being_loaded: set[BlockHash] = set()
        self._fences: dict[int, set[int]] = {}  # blocks of finished requests: the stores that read them
        self._finished: list[Request] = []  # since the last step
        self._load_jobs: list[TransferJob] = []
        self._allocated: set[int] = set()  # blocks handed out in this step

    @property
    def has_pending_work(self) -> bool:
        """Whether there is a transfer to hear of, or an end to tell the worker of."""
        return bool(self._jobs or self._finished)

    def on_new_request(self, request: Request) -> None:
        """Take note of a request."""
        self._states[request.request_id] = _RequestState(request)

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> int | None:
        """Return how many tokens can be loaded beyond those that the pool has; `None`: ask again later."""
        state = self._states[request.request_id]
        state.block_ids.clear()
        if self._offers_anew:
            state.next_stored_chunk_idx = 0
        if state.transfer_jobs:
            return None
        self._update_keys(state)
        if len(state.keys) * self._tokens_per_chunk - num_computed_tokens < self._tokens_per_chunk:
            return 0  # not even a chunk could be loaded: what is being written is not waited for
        start = num_computed_tokens // self._tokens_per_chunk
        num_hit_chunks = is_pending = 0
        for key in state.keys[start:]:
            found = self.manager.lookup(key)
            if found is LookupResult.MISS:
                break
            num_hit_chunks += 1
            is_pending |= found is LookupResult.HIT_PENDING
        if is_pending:
            return None
        num_hit_tokens = (start + num_hit_chunks) * self._tokens_per_chunk - num_computed_tokens
        if num_hit_tokens < self._tokens_per_chunk:
            return 0
        hits = state.keys[start : start + num_hit_chunks]
        return num_hit_tokens if self._chunks_being_loaded.isdisjoint(hits) else None

    def update_state_after_alloc(
        self, request: Request, num_computed_tokens: int, num_external_tokens: int
    ) -> None:
        """Start the load of what was found, into blocks that the request has been given."""
        state = self._states[request.request_id]
        self._allocated.update(block.block_id for block in self._kv.get_blocks(request.request_id))
        end = -(-(num_computed_tokens + num_external_tokens) // self._tokens_per_chunk)
        keys = state.keys[num_computed_tokens // self._tokens_per_chunk : end]
        state.next_stored_chunk_idx = end
        self.manager.prepare_load(keys, state.access)
        self._chunks_being_loaded.update(keys)
        num_blocks = num_external_tokens // self._block_size
        self._load_jobs.append(self._start(_Job(state, keys, is_store=False, block_ids=[]), num_blocks))

    def build_connector_meta(self, output: ConnectorOutput) -> None:
        """Add to a step that has been decided its loads, its stores, and what it has to wait for."""
        scheduled = [self._states[request.request_id] for request, _, _ in output.scheduled]
        self._note_blocks(scheduled, {request.request_id for request in output.admitted})
        for request in output.preempted:
            output.jobs_to_flush |= self._states[request.request_id].transfer_jobs
        for block_id in self._fences.keys() & self._allocated:
            output.jobs_to_flush |= self._fences[block_id]
        finished = [self._states[request.request_id] for request in self._finished]
        for state in scheduled + finished:
            self._store(state, output)
        for state in finished:
            self.manager.on_request_finished(state.keys, state.access)
            del self._states[state.request.request_id]
        output.load_jobs, self._load_jobs = self._load_jobs, []
        self._finished = []
        self._allocated = set()

    def update_connector_output(self, completed_jobs: Iterable[int]) -> list[Request]:
        """Take note of transfers that are done; return the requests whose loads have arrived."""
        arrived = []
        for job_id in completed_jobs:
            job = self._jobs.pop(job_id)
            job.state.transfer_jobs.remove(job_id)
            if job.is_store:
                self.manager.complete_store(job.keys)
                if job.state.request.status is RequestStatus.FINISHED:
                    self._unfence(job_id, job.block_ids)
            else:
                self.manager.complete_load(job.keys)
                self._chunks_being_loaded.difference_update(job.keys)
                arrived.append(job.state.request)
        return arrived

    def request_finished(self, request: Request) -> None:
        """Watch the blocks of a request's stores, for they are about to be freed."""
        state = self._states[request.request_id]
        self._update_keys(state)
        for job_id in state.transfer_jobs:
            self._fence(job_id, self._jobs[job_id].block_ids)
        self._finished.append(request)

    def _note_blocks(self, scheduled: Sequence[_RequestState], admitted: set[str]) -> None:
        for state in scheduled:
            request_id = state.request.request_id
            self._update_keys(state)
            if request_id in admitted:
                state.block_ids.clear()
            new = [block.block_id for block in self._kv.get_blocks(request_id)[len(state.block_ids) :]]
            state.block_ids += new
            self._allocated.update(new)

    def _store(self, state: _RequestState, output: ConnectorOutput) -> None:
        """Offer the chunks that are full after the step; store those that the tier takes."""
        start, end = state.next_stored_chunk_idx, self._num_storable_chunks(state)
        if end <= start:
            return
        keys = self.manager.prepare_store(state.keys[start:end], state.access)
        if keys is None:
            return
        state.next_stored_chunk_idx = end
        if not keys:
            return
        taken, size = set(keys), self._blocks_per_chunk
        block_ids = [
            block_id
            for index in range(start, end)
            if state.keys[index] in taken
            for block_id in state.block_ids[index * size : (index + 1) * size]
        ]
        job = self._start(_Job(state, keys, is_store=True, block_ids=block_ids), len(block_ids))
        output.store_jobs.append(job)
        if state.request.status is RequestStatus.FINISHED:
            self._fence(job.job_id, block_ids)
            if not self._allocated.isdisjoint(block_ids):
                output.jobs_to_flush.add(job.job_id)

    def _num_storable_chunks(self, state: _RequestState) -> int:
        request = state.request
        if request.status is RequestStatus.FINISHED:  # its last token was never computed
            num_tokens = max(request.num_prompt_tokens, request.num_tokens - 1)
        else:
            num_tokens = min(request.num_computed_tokens, request.num_tokens)
        if self._offload_prompt_only:
            num_tokens = min(num_tokens, request.num_prompt_tokens)
        num_allocated = len(state.block_ids) // self._blocks_per_chunk
        return min(num_tokens // self._tokens_per_chunk, num_allocated, len(state.keys))

    def _update_keys(self, state: _RequestState) -> None:
        request, keys, size = state.request, state.keys, self._blocks_per_chunk
        num_chunks = request.num_tokens // self._tokens_per_chunk
        if num_chunks > len(keys):
            names = list(request.history.block_hashes(len(keys) * size, num_chunks * size))[size - 1 :: size]
            state.access.positions.update(zip(names, range(len(keys), num_chunks), strict=True))
            keys += names

    def _start(self, job: _Job, num_blocks: int) -> TransferJob:
        job_id, self._num_jobs = self._num_jobs, self._num_jobs + 1
        self._jobs[job_id] = job
        job.state.transfer_jobs.add(job_id)
        return TransferJob(job_id, job.state.request.request_id, num_blocks)

    def _fence(self, job_id: int, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self._fences.setdefault(block_id, set()).add(job_id)

    def _unfence(self, job_id: int, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            jobs = self._fences[block_id]
            jobs.remove(job_id)
            if not jobs:
                del self._fences[block_id]


def _make_policy(config: EngineConfig, num_chunks: int) -> CachePolicy:
    """Return the eviction policy that a host cache names, as its release of vLLM has it."""
    if config.host_cache.eviction_policy == "arc":
        return ARCCachePolicy(num_chunks)
    return LRUCachePolicy() if config.is_before("0.33") else RequestLRUCachePolicy()
