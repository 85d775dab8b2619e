"""Suites and problems: what is to be measured, read from TOML files, and the runner of suites.

A suite names problems and estimators; a problem is a network with its data and training. The TOML
files of the package are in this folder and in ``problems/``. ``schema`` describes their keys.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
