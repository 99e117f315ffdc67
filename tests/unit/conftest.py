"""Property tests have no clock: the machine may be busy, and a key is made in the first example."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
