"""The stage match: trajectory matching."""
