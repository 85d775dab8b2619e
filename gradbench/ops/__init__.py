"""Estimators without a model.

``binarize.binarize`` is a stochastic sign for any JAX code, ``expectation.expectation`` the
expectation of any function of binary variables, and ``score_mode.counterpart`` turns a loss that
calls these into one whose gradient is unbiased, to be compared with.
"""
