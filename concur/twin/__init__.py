"""A model of the rest of a batch, small enough to be run forward many times a minute."""
