"""Delivery: from a stored message to an outcome that is recorded. Stages 4 to 6 of the journey."""
