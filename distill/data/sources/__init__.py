"""The sources of real images, one a file."""
