"""The engine: a scheduler, a step time, and the core that runs steps back to back; no clock, no I/O."""
