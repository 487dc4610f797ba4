"""Which slots of the pool a request holds, and what of it is in the tree.

Semantics of SGLang 0.5.23, `mem_cache/common.py`, `mem_cache/allocation.py` and `checkpoint_into_tree` of
`mem_cache/unified_radix_cache.py`.
"""

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from concur.sim.engine.sglang.req import Req
from concur.sim.kv.radix import RadixTree


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Slots:
    """Rows and tokens of one engine's requests; a request holds a row from its first extend to its end."""

    def __init__(self, tree: RadixTree, max_running_requests: int) -> None:
        self.tree = tree
        self.num_free_rows = max_running_requests

    def match(self, req: Req) -> None:
        """Look up what of a request is in the tree; its last token is always computed."""
        req.fill_tokens = req.request.num_tokens
        req.prefix_tokens, req.matched = self.tree.match(req.key(req.fill_tokens - 1))
        req.protected_tokens = req.prefix_tokens

    def extend(self, reqs: Sequence[Req]) -> None:
        """Give everybody slots up to the end of the extend (`alloc_for_extend`)."""
        tree, page_size = self.tree, self.tree.page_size
        spare_tokens = len(reqs) * page_size if page_size > 1 else 0
        tree.make_room(sum(req.num_extend_tokens for req in reqs) + spare_tokens)
        for req in reqs:
            tree.take(tree.ceil(req.extend_end) - tree.ceil(req.prefix_tokens))
            req.kv_tokens = req.request.num_computed_tokens = req.extend_end

    def has_room(self, reqs: Sequence[Req]) -> bool:
        """Make room for the next token of each; tell whether there is (`check_decode_mem`)."""
        page_size = self.tree.page_size
        num_tokens = sum(req.kv_tokens % page_size == 0 for req in reqs) * page_size
        self.tree.make_room(num_tokens)
        return num_tokens <= self.tree.available_tokens

    def append(self, reqs: Sequence[Req]) -> None:
        """Give everybody a slot for one more token (`alloc_for_decode`)."""
        page_size = self.tree.page_size
        self.tree.make_room(len(reqs) * page_size)
        for req in reqs:
            if req.kv_tokens % page_size == 0:
                self.tree.take(page_size)
            req.kv_tokens += 1
            req.request.num_computed_tokens = req.kv_tokens

    def checkpoint(self, req: Req, up_to: int) -> None:
        """Put what a request has computed into the tree, whole pages, and lock it there."""
        tree = self.tree
        num_cached = tree.floor(min(up_to, req.fill_tokens))
        node = tree.insert(
            req.key(num_cached), owned_from=req.protected_tokens, counted_from=req.inserted_tokens
        )
        req.inserted_tokens = num_cached
        self._set_prompt_apart(req, num_cached)
        assert req.locked is not None
        tree.move_lock(req.locked, node)
        req.locked = node
        req.protected_tokens = num_cached

    def checkpoint_at_end(self, req: Req) -> None:
        """Put all that a finished request has computed into the tree: the answer, but its last token."""
        req.fill_tokens = req.request.num_tokens
        self.checkpoint(req, req.kv_tokens)

    def release(self, req: Req) -> None:
        """Take all slots of a request that are not the tree's."""
        assert req.locked is not None
        self.tree.give_back(self.tree.ceil(req.kv_tokens) - req.protected_tokens)
        self.tree.unlock(req.locked)
        req.locked = None
        req.has_row = False
        self.num_free_rows += 1

    def _set_prompt_apart(self, req: Req, num_cached: int) -> None:
        """Where more than the prompt is cached, make that a node of its own: it may outlive the answer."""
        num_prompt = self.tree.floor(req.request.num_prompt_tokens)
        if 0 < num_prompt < num_cached:
            self.tree.insert(req.key(num_prompt), owned_from=num_prompt, counted_from=num_prompt)
