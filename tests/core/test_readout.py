"""Layers behind the last stochastic unit, found in models of JAX, Flax, Equinox and the package."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from conftest import flax_list
from flax import nnx

from gradbench.core.readout import readout_of

X = jnp.ones((2, 4))


class Flax(nnx.Module):
    def __init__(self, rngs):
        self.hidden = flax_list([nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
        self.head, self.scale = nnx.Linear(3, 2, rngs=rngs), nnx.Param(jnp.ones(()))

    def __call__(self, x, binary):
        for layer in self.hidden:
            x = binary(layer(x))
        return self.scale * self.head(x)


class Equinox(eqx.Module):
    layers: list
    head: eqx.nn.Linear

    def __init__(self, key):
        self.layers = [eqx.nn.Linear(4, 3, key=key), eqx.nn.Linear(3, 3, key=key)]
        self.head = eqx.nn.Linear(3, 2, key=key)


def equinox(params, x, binary):
    """Its layers run inside of jit, through which what depends on what is followed."""
    for layer in params.layers:
        x = binary(jax.jit(lambda layer, x: jax.nn.relu(layer(x)))(layer, x))
    return jax.jit(lambda head, x: head(x))(params.head, x).sum()


GRAPH, STATE = nnx.split(Flax(nnx.Rngs(0)))
A, B, C = jnp.ones((3, 4)), jnp.ones((3, 3)), jnp.ones(3)
CASES = {
    "flax": (
        lambda params, x, binary: nnx.merge(GRAPH, params)(x, binary).sum(),
        STATE,
        ("head", "scale"),
    ),
    "equinox": (equinox, Equinox(jax.random.key(0)), ("head",)),
    "dictionary": (
        lambda p, x, binary: p["last"] @ binary(p["second"] @ binary(p["first"] @ x)),
        {"first": A, "second": B, "last": C},
        ("last",),
    ),
    # The names of the entries of a tuple say nothing: here the last one feeds the last units.
    "no readout": (lambda p, x, binary: binary(p[1] @ binary(p[0] @ x)).sum(), (A, B), ()),
    # What is read out and feeds a unit as well is hidden.
    "skip": (
        lambda p, x, binary: binary(p["first"] @ x).sum() + p["first"].sum() * p["gain"],
        {"first": A, "gain": jnp.ones(())},
        ("gain",),
    ),
    # A scale inside of scan reaches the units after it.
    "scan": (
        lambda p, x, binary: (
            binary(jax.lax.scan(lambda c, a: (c + p["scale"] * a, None), x, A)[0]) @ p["out"]
        ),
        {"scale": jnp.ones(()), "out": jnp.ones(4)},
        ("out",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_readout_is_what_reaches_no_unit(case):
    model, params, expected = CASES[case]
    assert readout_of(model, params, X) == expected
