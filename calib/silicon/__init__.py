"""Samples without a GPU, from a database of measured kernels."""
