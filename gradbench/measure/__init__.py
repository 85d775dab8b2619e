"""Measurements of estimators and references of the true gradient, kept as blocks of draws."""
