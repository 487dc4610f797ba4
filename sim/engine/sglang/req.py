"""What SGLang's scheduler keeps of a request (0.5.23, `managers/schedule_batch.py::Req`)."""

from mypy_extensions import mypyc_attr

from concur.sim.engine.request import Request
from concur.sim.kv.radix import Key, Node, key_of


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Req:
    """One request in SGLang's scheduler; it lives from its arrival to its last token.

    `prefix_tokens` are credited or computed before the extend that ends at `extend_end`. `kv_tokens` have
    slots: scheduled, computed or not. The first `protected_tokens` of those are the tree's, kept there by the
    lock on `locked`; the others are its own. It has put the first `inserted_tokens` there itself since it was
    admitted, and for its match `loaded_tokens` came from the host. `num_middle_chunks` chunks are in flight
    that sample nothing. `fill_tokens` is how much of it was known when it was last put into a batch: no more
    is cached.

    `max_new_tokens` is the client's limit, cut to what the pool can hold; `ignores_eos`: the answer is as
    long as that. An answer that ends by itself before is a surprise to the scheduler.
    """

    __slots__ = (
        "extend_end",
        "fill_tokens",
        "has_row",
        "ignores_eos",
        "inserted_tokens",
        "is_retracted",
        "kv_tokens",
        "loaded_tokens",
        "locked",
        "matched",
        "max_new_tokens",
        "num_matched_tokens",
        "num_middle_chunks",
        "prefix_tokens",
        "protected_tokens",
        "request",
    )

    def __init__(self, request: Request, max_new_tokens: int) -> None:
        self.request = request
        self.max_new_tokens = max_new_tokens
        self.ignores_eos = request.max_new_tokens is None
        self.prefix_tokens = 0
        self.extend_end = 0
        self.fill_tokens = 0
        self.kv_tokens = 0
        self.protected_tokens = 0
        self.inserted_tokens = 0
        self.loaded_tokens = 0
        self.num_middle_chunks = 0
        self.num_matched_tokens = 0
        self.matched: Node | None = None
        self.locked: Node | None = None
        self.has_row = False
        self.is_retracted = False

    @property
    def num_extend_tokens(self) -> int:
        """How many tokens its next or last extend computes."""
        return self.extend_end - self.prefix_tokens

    @property
    def num_left_tokens(self) -> int:
        """How many more tokens the client's limit allows."""
        return self.max_new_tokens - self.request.num_output_tokens

    @property
    def is_finished(self) -> bool:
        """Whether it has its last token."""
        return self.request.num_tokens == self.request.num_final_tokens

    def key(self, num_tokens: int) -> Key:
        """Return its first tokens."""
        return key_of(self.request.history, num_tokens)
