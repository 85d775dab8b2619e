"""gradbench measures how accurate gradient estimators for binary stochastic units are.

The commands of the command line are here under the same names (``run``, ``show``, ``plot``, ...),
beside what other JAX code uses: ``binarize``, ``expectation``, ``reference``, the modules
``estimators``, ``models``, ``exact``, ``metrics``, ``plots``, ``testing``, ``suites``
and ``optimisers``. Everything is loaded when it is first used; ``__init__.pyi`` lists the names.

The same words everywhere, with shapes in brackets, [] being one number:

- ``model``: a function ``model(params, example, binary)`` that returns the objective f [] of one
  example. It draws the states of each stochastic layer by ``binary(a, noise="logistic")``. The full
  contract is in ``gradbench.core.contract``.
- ``params``: its parameters, any pytree of real arrays. A gradient has the same form. ``theta`` are
  the parameters of one layer.
- ``batch``: a pytree whose leaves [N, ...] have N examples along the first axis. Each of them is an
  ``example``.
- ``key``: a key of ``jax.random``, from which everything random follows.
- ``a``: pre-activations [...]; ``x``: states x = sign(a - z), -1 or +1, of the same shape. The
  distribution function F of z is named by ``noise``: "logistic", "normal", "uniform",
  "triangular" or "laplace". In single flips ``flipped`` are the other values of the states, and
  ``g`` weights of the units above, of the shapes of x and a.
- ``memory``: bytes that an enumeration may take, by default ``gradbench.exact.MEMORY``.
- ``results``: the object that ``run`` returns, or the path of its directory.

Bad input raises a ``GradbenchError``, whose message says in one sentence what to do.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
