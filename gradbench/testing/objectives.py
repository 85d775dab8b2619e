"""The objectives of the check, of which each class has coefficients of its own as data.

The coefficients are targets of the examples, so that one compiled program serves all classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.noise import Noise

# The classes of objectives, each with the largest degree in one unit, and whether units interact.
OBJECTIVES = {
    "linear": (1, False),
    "multilinear": (1, True),
    "quadratic": (2, True),
    "cubic": (3, True),
    "any": (3, True),
}
_POWERS = 4  # from 0 to 3


@jax.jit  # so that it is traced once, although an estimator calls it many times in a draw
def polynomial(theta: Array, x: Array, target: Any) -> Float[Array, ""]:
    """Return a polynomial of all units, times 1 + theta.

    It is sum_i p_i(x_i) + ``target["product"]`` prod_i q_i(x_i), the coefficients of p and q being
    ``target["single"]`` and ``target["each"]`` [units, 4]. A function of the first and the last
    unit that is no polynomial is added with the weight ``target["other"]``.
    """
    x = x.ravel()
    powers = jnp.stack([jnp.ones_like(x), x, x * x, x * x * x], axis=-1)
    single = jnp.sum(target["single"] * powers)
    each = jnp.sum(target["each"] * powers, axis=-1)
    product = math.prod(each[i] for i in range(each.size))
    first, last = x[0], x[-1]
    rest = jnp.exp(0.7 * first - 0.5 * last) + jnp.sin((2 * first + 1) * last)
    return (1 + theta) * (single + target["product"] * product + target["other"] * rest)


def targets(name: str, units: int, examples: int, random: np.random.Generator) -> dict[str, Any]:
    """Return random coefficients of a class of objectives, for every example."""
    degree, interact = OBJECTIVES[name]
    sizes = np.array([0.5, 0.8, 0.5, 0.3])  # of the powers, so that no class dwarfs the others
    found = {}
    for part in ("single", "each"):
        value = random.uniform(0.6, 1, (examples, units, _POWERS)) * sizes
        value *= random.choice([-1.0, 1.0], value.shape)
        found[part] = np.where(np.arange(_POWERS) <= degree, value, 0)
    found["each"][..., 0] = 1
    weights = {"product": float(interact), "other": float(name == "any"), "direct": 1.0}
    return found | {key: np.full(examples, value) for key, value in weights.items()}


@dataclass(frozen=True)
class Bound:
    """The polynomial of one layer with the terms of an evidence bound.

    To it are added log q(x | a), which is affine in the states, and terms of pre-activations and
    parameters alone, ``target["direct"]`` of them.
    """

    def term(self, params: Params, k: int, noise: Noise, below: Any, a: Array, x: Array) -> Array:
        """Return the objective; ``below`` is the example."""
        target = below[1]
        direct = jnp.sum(jnp.sin(a)) / 3 + jnp.sum(params[k]["weight"] ** 2) / 7
        return (
            polynomial(params[-1], x, target)
            + 0.2 * noise.log_probability(jnp.ravel(x), jnp.ravel(a))
            + target["direct"] * direct
        )


@dataclass(frozen=True)
class EveryLayer:
    """An objective with a term of every layer, as an evidence bound has them.

    The term of layer k is ``theta[k]`` times a function of its states and of what it reads, plus a
    term of its pre-activations and biases, and log q(x | a) of the first layer.
    """

    def term(self, params: Params, k: int, noise: Noise, below: Any, a: Array, x: Array) -> Array:
        """Return the term of layer k; ``below`` are states, the example for k = 0."""
        read = jnp.ravel(below if k else below[1])
        x, a = jnp.ravel(x), jnp.ravel(a)
        inner = jnp.sum(x * (1 + 0.5 * jnp.arange(x.size))) + 0.7 * jnp.sum(read)
        f = params[-1][k] * (jnp.sin(inner) + 0.4 * jnp.sum(x) + 0.5 * inner)
        f += jnp.sum(jnp.cos(a)) / 5 + jnp.sum(params[k]["bias"] ** 2) / 3
        return f if k else f + 0.3 * noise.log_probability(x, a)
