"""Looks at data before a run, and at a set after it: label errors, copies, membership."""
