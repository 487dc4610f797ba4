"""The same world against the real thing: vLLM's own scheduler, step by step."""
