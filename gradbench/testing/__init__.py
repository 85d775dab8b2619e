"""The certificate of an estimator: what it is really exact for, and whether it behaves.

``check_estimator`` examines one estimator and returns a ``Certificate``; ``check_all`` examines
all estimators of the registry.
"""

from gradbench.testing.bias import Finding
from gradbench.testing.certificate import Certificate, check_all, check_estimator
from gradbench.testing.requirement import Check

__all__ = ["Certificate", "Check", "Finding", "check_all", "check_estimator"]
