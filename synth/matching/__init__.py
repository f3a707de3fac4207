"""Trajectory matching: the inner loop, its exact gradient, and the outer loop."""
