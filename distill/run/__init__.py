"""The infrastructure of a run: its folder, context, checkpoints and engines."""
