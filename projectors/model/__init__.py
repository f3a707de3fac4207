"""The parts of a projector: tower, adapters, head."""
