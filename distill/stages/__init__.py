"""The work of a run: its stages, and what runs, skips and resumes them."""
