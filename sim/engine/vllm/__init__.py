"""vLLM's V1 scheduler: the readable reference, and a fast core that takes the same decisions."""
