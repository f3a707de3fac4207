"""Whoever labels: committees, their votes, and the networks that they are made of."""
