"""Training: the optimiser, stopping, and the loop."""
