"""The two contracts, running a model, randomness, names and errors: what all else is written in.

The functions that estimators are made of are here under their names; each is loaded when it is
first used. ``gradient_term`` puts a gradient by hand, ``surrogate_gradient`` a derivative. Each
call of ``binary`` is a ``site`` of the model, with an index and a noise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
