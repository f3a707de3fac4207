"""Sets in the layouts of other programs: read, written, and described by a card."""
