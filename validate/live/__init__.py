"""A workload on a running server: the same agents, gate and controller as in a simulation."""
