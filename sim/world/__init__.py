"""The world on one SimPy clock: agents, gate, controller, engine."""
