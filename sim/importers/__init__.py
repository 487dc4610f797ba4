"""Recordings that other tools made, as traces: one importer a file, found by what a file looks like."""
