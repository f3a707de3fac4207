"""Projectors on disk, and what they cost in bytes."""
