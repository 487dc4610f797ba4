"""How long one engine step takes: from measured profiles, or from given coefficients."""
