"""Teachers: committees, their votes, and the networks in them."""
