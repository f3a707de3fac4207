"""Ways to keep a set's images on one curve: bytes of everything against accuracy."""
