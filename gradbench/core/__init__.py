"""The two contracts, running a model, randomness, names and errors: what all else is written in."""
