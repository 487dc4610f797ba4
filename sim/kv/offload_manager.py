"""What a host tier holds: which chunks are there, being written, or being read.

Semantics of vLLM 0.32.0, `v1/kv_offload/cpu/manager.py` (`CPUOffloadingManager`). Host space is taken when a
store is prepared, not when it arrives; a chunk may be read once its store has been reported; chunks that
transfers use are not given up. Which buffer a chunk lies in makes no difference and is left out.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Final

from concur.sim.kv.eviction import CachePolicy, Chunk, RequestAccess
from concur.sim.kv.history import BlockHash

_MAX_TRACKER_SIZE: Final = 64_000
"""Keys whose offers are counted under a `store_threshold`: vLLM's default."""


class LookupResult(Enum):
    """What a look-up finds."""

    MISS = auto()
    HIT_PENDING = auto()  # there, but still being written
    HIT = auto()


class OffloadingManager:
    """Chunks of one host tier; `num_chunks` fit."""

    def __init__(self, num_chunks: int, policy: CachePolicy, *, store_threshold: int) -> None:
        self.num_chunks = num_chunks
        self.policy = policy
        self._store_threshold = store_threshold
        self._counts: OrderedDict[BlockHash, int] = OrderedDict()

    def lookup(self, key: BlockHash) -> LookupResult:
        """Say whether a chunk is there; changes nothing, not even its rank."""
        chunk = self.policy.get(key)
        if chunk is None:
            return LookupResult.MISS
        return LookupResult.HIT if chunk.is_ready else LookupResult.HIT_PENDING

    def prepare_load(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        """Pin chunks that are there, until `complete_load`."""
        for key in keys:
            chunk = self._chunk(key)
            assert chunk.is_ready, f"chunk {key} is still being written"
            chunk.ref_cnt += 1
        self._note_access(keys, access)
        access.reused.update(key for key in keys if key not in access.inserted)

    def complete_load(self, keys: Collection[BlockHash]) -> None:
        """Unpin chunks."""
        for key in keys:
            chunk = self._chunk(key)
            assert chunk.ref_cnt > 0, f"chunk {key} is not pinned"
            chunk.ref_cnt -= 1

    def prepare_store(self, keys: Sequence[BlockHash], access: RequestAccess) -> list[BlockHash] | None:
        """Take host space for those of the offered chunks that are missing, and return them.

        All or nothing: `None` if they do not fit beside what is pinned and what the offer itself names.
        """
        if self._store_threshold >= 2:
            self._count_offers(keys)
        chunks = [(key, self.policy.get(key)) for key in keys]
        missing = [key for key, chunk in chunks if chunk is None and self._is_wanted(key)]
        ready = [key for key, chunk in chunks if chunk is not None and chunk.is_ready]
        new_misses = [key for key in missing if key not in access.missed]
        self.policy.on_store_miss(new_misses)
        access.missed.update(new_misses)
        self._note_access([*missing, *ready], access)
        access.reused.update(key for key in ready if key not in access.inserted)
        num_to_evict = len(missing) - (self.num_chunks - len(self.policy))
        if num_to_evict > 0 and not self.policy.evict(num_to_evict, set(keys)):
            return None
        for key in missing:
            self.policy.insert(key, Chunk(), access)
        access.inserted.update(missing)
        return missing

    def complete_store(self, keys: Collection[BlockHash]) -> None:
        """Make chunks readable."""
        for key in keys:
            self._chunk(key).ref_cnt = 0

    def on_request_finished(self, keys: Sequence[BlockHash], access: RequestAccess) -> None:
        """Count what a request did as one access; `keys` are all of its own, head first."""
        self.policy.on_request_finished([key for key in keys if key in access.seen], access)

    def _note_access(self, keys: Collection[BlockHash], access: RequestAccess) -> None:
        new_keys = [key for key in keys if key not in access.seen]
        access.seen.update(new_keys)
        if new_keys:
            self.policy.on_request_access(new_keys, access)

    def _chunk(self, key: BlockHash) -> Chunk:
        chunk = self.policy.get(key)
        assert chunk is not None, f"chunk {key} is not there"
        return chunk

    def _is_wanted(self, key: BlockHash) -> bool:
        return self._store_threshold < 2 or self._counts.get(key, 0) >= self._store_threshold

    def _count_offers(self, keys: Sequence[BlockHash]) -> None:
        """Count each key of an offer, forgetting the key that was offered longest ago where that is full."""
        counts = self._counts
        known = [key for key in keys if key in counts]
        for key in known:
            counts[key] += 1
            counts.move_to_end(key)
        num_others = len(counts) - len(known)
        for key in keys:
            if key in counts:
                continue
            if len(counts) >= _MAX_TRACKER_SIZE:
                if not num_others:
                    continue
                counts.popitem(last=False)
                num_others -= 1
            counts[key] = 1
