"""Fitting projectors to soft labels, and asking them for labels."""
