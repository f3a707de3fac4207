"""The product: synthetic images and their labels, on disk, small and shared."""
