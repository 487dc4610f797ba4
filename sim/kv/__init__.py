"""The KV cache: prefix chains, the block pool in vLLM's LRU order, and a second tier in host memory."""
