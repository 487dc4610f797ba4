"""What each step of a running engine computed, and how long it took."""
