"""What the console does without being asked: loops, each run by one process at a time."""
