"""Training of networks on images and soft labels."""
