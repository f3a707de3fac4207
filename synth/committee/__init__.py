"""Committees of teachers: their votes, the weights of their members, and soft labels for views."""
