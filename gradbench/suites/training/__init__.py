"""Training as an experiment: runs that can be interrupted, rates that are searched, and errors.

A *run* is a problem trained with an estimator, an optimiser, a rate and a seed. Runs that differ in
rate and seed alone are trained side by side, as one compiled program (``engine.py``); they are
stored under a digest of all that decides them (``gradbench.results.runs``). ``search.py`` finds the
rates, ``errors.py`` measures gradients along the runs, ``sweep.py`` does all of it for a suite.
"""
