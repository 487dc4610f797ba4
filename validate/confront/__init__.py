"""Runs of both worlds side by side, and what follows from them."""
