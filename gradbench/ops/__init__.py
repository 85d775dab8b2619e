"""The estimators without a model: the stochastic sign, and expectations of any function."""
