"""The same world against the real thing: vLLM's scheduler step by step, its server run by run."""
