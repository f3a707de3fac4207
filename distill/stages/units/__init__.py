"""Units of work that stages are made of, which a plan times on random images."""
