"""Voted labels in fewer bytes, as a receiver gets them and as students train on them."""
