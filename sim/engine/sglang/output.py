"""What SGLang's scheduler decides for one step."""

from mypy_extensions import mypyc_attr

from concur.sim.engine.output import SchedulerOutput
from concur.sim.engine.sglang.req import Req


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class BatchOutput(SchedulerOutput):
    """A batch: all of its requests prefill, or all decode; in a mixed one the last, `decoding`, decode.

    `chunked` is the request that will go on with its prefill after this batch. `num_running` decoded, or
    could have, when a prefill was put together. `extends` are the tokens that each request computes and has
    before; `host_hit_tokens` of the latter came from the host for those whose first batch it is.
    """

    __slots__ = ("chunked", "decoding", "extends", "host_hit_tokens", "is_extend", "num_running", "reqs")

    def __init__(self, *, is_extend: bool, chunked: Req | None = None, num_running: int = 0) -> None:
        super().__init__()
        self.reqs: list[Req] = []
        self.is_extend = is_extend
        self.chunked = chunked
        self.decoding: frozenset[Req] = frozenset()
        self.num_running = num_running
        self.host_hit_tokens = 0
        self.extends: list[tuple[int, int]] = []

    def add_extend(self, req: Req, *, samples: bool) -> None:
        """Add a request that prefills from `prefix_tokens` to `extend_end`."""
        num_tokens, prefix_tokens = req.num_extend_tokens, req.prefix_tokens
        request = req.request
        num_recomputed = min(num_tokens, max(0, request.known_tokens - prefix_tokens))
        request.num_recomputed_tokens += num_recomputed
        self.reqs.append(req)
        self.extends.append((num_tokens, prefix_tokens))
        self.scheduled.append((request, num_tokens, samples))
        self.batch.add_prefill(num_tokens, prefix_tokens, num_recomputed)

    def add_decode(self, req: Req) -> None:
        """Add a request that has got a slot for one more token."""
        self.reqs.append(req)
        self.extends.append((1, req.kv_tokens - 1))
        self.scheduled.append((req.request, 1, True))
        self.batch.add_decode(req.kv_tokens - 1)
