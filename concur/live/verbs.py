"""Stub of this checkout; not to be committed."""

VERBS = ()
