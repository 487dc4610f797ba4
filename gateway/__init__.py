"""The gate as a process of its own: a proxy in front of engines, for agents whose code nobody can change."""
