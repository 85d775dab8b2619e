"""Advice for a problem of one's own: ``recommend``, ``diagnose`` and ``explain``."""
