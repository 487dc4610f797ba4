"""The world on paper: agents, an engine that schedules as vLLM does, and the record of a run."""
