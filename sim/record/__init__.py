"""What a run leaves behind: tables, metrics and where they came from; the same for both worlds."""
