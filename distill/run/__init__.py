"""What carries a run: its folder, its context, checkpoints, and the engines that do its work."""
