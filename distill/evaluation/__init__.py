"""Fresh students trained on a set, and the controls beside them."""
