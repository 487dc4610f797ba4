"""The scenario file: one TOML file is one experiment, in both worlds."""
