"""One cubic + tanh function of four bits: its exact gradient, and the exact moments of draws."""

import itertools

import jax.numpy as jnp
import numpy as np
from conftest import flat

from gradbench.estimators import make_estimator
from gradbench.exact.moments import moments

_GENERATOR = np.random.default_rng(0)
C1, C2, C3, C4 = (_GENERATOR.normal(size=(4,) * k) for k in (1, 2, 3, 1))
A = _GENERATOR.normal(size=4)
STATES = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
BATCH = np.zeros(1)


def f(b):
    """The function of states 0 and 1, in whatever arrays they are."""
    cubic = jnp.einsum("ijk,i,j,k", C3, b, b, b)
    return C1 @ b + b @ C2 @ b + cubic + jnp.tanh(C4 @ b)


def model(params, example, binary):
    """The model: four units of logits ``params[0]``."""
    return f((binary(params[0]) + 1) / 2)


def probability(states, a=A):
    """Return the probabilities of rows of states."""
    p = 1 / (1 + np.exp(-a))
    return np.prod(np.where(states > 0, p, 1 - p), axis=-1)


def differences():
    """Return f(b_i = 1) - f(b_i = 0) at all states, ``[states, units]``."""
    rows = []
    for b in STATES:
        up, down = (np.tile(b, (4, 1)) for _ in range(2))
        np.fill_diagonal(up, 1.0)
        np.fill_diagonal(down, 0.0)
        rows.append([float(f(u) - f(d)) for u, d in zip(up, down, strict=True)])
    return np.array(rows)


def gradient(a=A):
    """Return the exact gradient in the logits."""
    p = 1 / (1 + np.exp(-a))
    return p * (1 - p) * (probability(STATES, a) @ differences())


def exact(spec, a=A):
    """Return the mean of a draw of an estimator, and the total variance, without error."""
    found = moments(make_estimator(spec, model), (jnp.asarray(a),), BATCH)
    return np.asarray(found.mean[0]), float(flat(found.variance).sum())
