"""vLLM's own scheduler and ours on the same world, step by step."""
