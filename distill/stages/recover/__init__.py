"""The stage recover: images that a committee recognises."""
