"""Draws of an estimator and references of its truth, reduced to statistics of blocks."""
