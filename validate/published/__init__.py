"""What others measured on real GPUs, and what the simulator says of the same runs, unseen."""
