"""A real engine, stepped by hand over a designed grid of batches."""
