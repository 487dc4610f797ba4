"""The engine: vLLM's scheduler, a step time, and the SimPy process that runs steps back to back."""
