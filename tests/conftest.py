"""One Hypothesis profile for all tests: the same examples in every run, under any load."""

from hypothesis import settings

settings.register_profile("gradbench", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("gradbench")
