"""Fitting projectors to soft labels, and labelling with them."""
