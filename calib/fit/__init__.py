"""From measured steps to the coefficients of a step time, with their errors."""
