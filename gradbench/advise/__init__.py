"""What an estimator does on a model, how good a gradient is, and which one to use."""
