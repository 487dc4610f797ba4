"""Workloads: what each agent will ask for, as token counts and waits."""

from concur.sim.workload.spec import AgentSpec, StepSpec, Workload

__all__ = ["AgentSpec", "StepSpec", "Workload"]
