"""vLLM's own `OffloadingConnectorScheduler` and `CPUOffloadingManager`, fed by a fake worker.

Beside `vllm_scheduler`: its scheduler is given vLLM's connector, and each step's transfers are handed out and
reported as a worker would. How long they take is the engine loop's business, the same for both sides.

One thing of vLLM is given an order: the names of requests that have finished since the last step are a set of
strings, whose order differs from process to process. Here they come in the order in which they finished.
"""

from collections.abc import Iterator
from typing import Any, Final

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.offload.transfers import ConnectorOutput, TransferJob
from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.request import Request
from concur.sim.kv.history import BlockHash, History
from concur.sim.workload.spec import Workload
from concur.validate.parity.vllm_scheduler import VllmScheduler, build_vllm_scheduler

_PAGE_BYTES: Final = 4096  # vLLM rounds a chunk's memory up to pages


class InOrder(set[str]):
    """A set that is gone through in the order in which it was given."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self._names = names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)


class VllmOffloadingScheduler(VllmScheduler):
    """vLLM's scheduler and connector under the interface of `ConnectedScheduler`."""

    def __init__(self, config: EngineConfig, workload: Workload) -> None:
        super().__init__(config, workload)
        self.vllm.use_v2_model_runner = config.model_runner == "v2"
        self._ended: list[str] = []  # since the last step
        self._load_jobs: dict[int, str] = {}  # on their way: whose
        self._histories: dict[str, History] = {}
        self._num_named: dict[str, int] = {}  # keys of a request whose names are known
        self._names: dict[bytes, BlockHash] = {}  # by vLLM's key: ours

    @property
    def manager(self) -> Any:
        """VLLM's `CPUOffloadingManager`."""
        return self.vllm.connector.connector_scheduler.manager

    def name_of(self, key: bytes) -> BlockHash:
        """Return our name of what vLLM has under a key."""
        return self._names[key]

    def add_request(self, request: Request) -> None:
        """Hand a request to vLLM, with the token ids of its prompt."""
        self._histories[request.request_id] = request.history
        super().add_request(request)

    def has_requests(self) -> bool:
        """Tell whether there are requests, or transfers that somebody must hear of."""
        return bool(self.vllm.has_requests())

    def schedule(self) -> ConnectorOutput:
        """Let vLLM decide the next step, and translate what it decided."""
        self._learn_names()
        self.vllm.finished_req_ids = InOrder(self._ended)
        self._ended = []
        decided = self.vllm.schedule()
        self._learn_names()
        output = self._translated(decided, ConnectorOutput())
        meta = decided.kv_connector_metadata
        for job_id, job in meta.load_jobs.items():
            output.load_jobs.append(TransferJob(job_id, job.req_id, len(job.dst_spec.block_ids)))
            self._credit_first(self._requests[job.req_id])
        for job_id, job in meta.store_jobs.items():
            output.store_jobs.append(TransferJob(job_id, job.req_id, len(job.src_spec.block_ids)))
        output.jobs_to_flush = set(meta.jobs_to_flush or ())
        self._load_jobs |= {job.job_id: job.request_id for job in output.load_jobs}
        return output

    def update_from_output(self, output: SchedulerOutput, *, time_s: float) -> list[Request]:
        """Report tokens and transfers; return the requests that vLLM calls finished."""
        finished = super().update_from_output(output, time_s=time_s)
        self._ended += [request.request_id for request in finished]
        return finished

    def _build(self, config: EngineConfig) -> Any:
        from vllm.config import KVTransferConfig

        host = config.host_cache
        num_chunks = host.capacity_tokens // (config.block_size * host.blocks_per_chunk)
        block_bytes = config.block_size * _PAGE_BYTES  # any number of pages: transfers are timed by the loop
        transfer = KVTransferConfig(
            kv_connector="OffloadingConnector",
            kv_role="kv_both",
            kv_connector_extra_config={
                "cpu_bytes_to_use": num_chunks * host.blocks_per_chunk * block_bytes,
                "eviction_policy": host.eviction_policy,
                "offload_prompt_only": host.offload_prompt_only,
                "blocks_per_chunk": host.blocks_per_chunk,
                "store_threshold": host.store_threshold,
            },
        )
        vllm = build_vllm_scheduler(config, kv_transfer_config=transfer, block_bytes=block_bytes)
        assert vllm.connector.connector_scheduler.manager._num_chunks == num_chunks
        return vllm

    def _kv_connector_output(self, output: SchedulerOutput) -> Any:
        from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
        from vllm.v1.outputs import KVConnectorOutput

        assert isinstance(output, ConnectorOutput)
        reported = OffloadingWorkerMetadata()
        for job_id in output.completed_jobs:
            reported.mark_completed(job_id)
        arrived = {
            self._load_jobs.pop(job_id) for job_id in output.completed_jobs if job_id in self._load_jobs
        }
        return KVConnectorOutput(
            finished_recving=arrived or None,
            kv_connector_worker_meta=reported if output.completed_jobs else None,
        )

    def _credit(self, request: Request, num_cached_tokens: int) -> None:
        self._credit_first(request)

    def _credit_first(self, request: Request) -> None:
        """Count the hits of a request that has been given blocks for the first time."""
        if request.num_cached_tokens >= 0 or request.num_preemptions:
            return
        found = self.vllm.requests[request.request_id].prefill_stats
        super()._credit(request, found.num_local_cached_tokens)
        request.num_cached_tokens += found.num_external_cached_tokens
        request.num_host_tokens = found.num_external_cached_tokens
        self._stats.external_prefix_cache_queries_tokens += (
            request.num_prompt_tokens - found.num_local_cached_tokens
        )
        self._stats.external_prefix_cache_hits_tokens += found.num_external_cached_tokens

    def _learn_names(self) -> None:
        """Take note of our names for the keys that vLLM has made."""
        size = self._config.host_cache.blocks_per_chunk
        for request_id, status in self.vllm.connector.connector_scheduler._req_status.items():
            (group,) = status.group_states
            num_named, num_keys = self._num_named.get(request_id, 0), len(group.offload_keys)
            if num_named < num_keys:
                names = list(self._histories[request_id].block_hashes(num_named * size, num_keys * size))
                self._names.update(zip(group.offload_keys[num_named:], names[size - 1 :: size], strict=True))
                self._num_named[request_id] = num_keys
