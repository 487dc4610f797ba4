"""vLLM's `OffloadingConnector`: KV in host memory, its rules, its transfers, and the loop around them."""
