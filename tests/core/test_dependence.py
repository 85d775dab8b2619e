"""What a traced program says of a function: entry by entry, affine or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradbench.core.dependence import depends_on, entrywise

BIAS = np.arange(3.0)
KINDS = {
    "affine": [
        lambda x: x,
        lambda x: 1 - 2 * x / 3,
        lambda x: x + x,
        lambda x: x + BIAS,
        lambda x: jnp.ones((2, 3)),
        jax.jit(lambda x: -x),
    ],
    "nonlinear": [
        jnp.tanh,
        jax.nn.relu,
        jax.nn.gelu,
        jax.nn.softplus,
        lambda x: x * x,
        lambda x: 1 / x,
        lambda x: BIAS * x,  # affine, with a factor for each entry
        lambda x: jnp.where(x > 0, x, 0.1 * x),
        lambda x: jnp.clip(x, -1, 1),
    ],
    "": [
        lambda x: x[::-1],
        lambda x: x.T,
        lambda x: x - jnp.mean(x),
        lambda x: (x, x),
        lambda x: jax.lax.map(jnp.sin, x),
        jnp.ravel,
        jnp.sort,
        jax.nn.softmax,
    ],
}


@pytest.mark.parametrize(("kind", "f"), [(kind, f) for kind in KINDS for f in KINDS[kind]])
def test_a_traced_program_says_whether_entries_stay_apart(kind, f):
    assert entrywise(f, (2, 3)) == kind


def test_square_arrays_are_not_taken_for_entries_that_stay_apart():
    assert entrywise(lambda x: x.T, (3, 3)) == ""
    assert entrywise(lambda x: x @ jnp.eye(3), (3, 3)) == ""
    assert entrywise(jnp.cumsum, (3,)) == ""


def test_a_function_depends_on_the_arguments_that_reach_its_result():
    assert depends_on(0, lambda x, y: x + 0 * y, 1.0, 2.0)
    assert not depends_on(1, lambda x, y: x + 1, 1.0, 2.0)
