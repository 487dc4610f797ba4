"""The lab: grids of runs, tuned parameters, and the best static cap in hindsight."""
