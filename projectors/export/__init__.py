"""Projectors in formats that other programs read."""
