"""Submission: from a client's bytes to a stored message. Stages 1 to 3 of the journey, for SMTP and HTTP alike."""
