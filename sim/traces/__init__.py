"""Recorded agents: the trace format, and what a file of it holds."""
