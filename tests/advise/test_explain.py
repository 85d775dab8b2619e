"""`explain`: the route it tells is the route that is taken."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
from conftest import small

import gradbench
from gradbench import explain
from gradbench.estimators import ESTIMATORS
from gradbench.estimators.registry import evaluations
from gradbench.models import SBN, Add, AveragePool, Compose, Conv, Dense, Readout


@dataclass(frozen=True)
class Plain:
    """A layer without a hook for PSA."""

    inputs: int
    outputs: int
    noise: str = "normal"

    def init(self, key):
        return jax.random.normal(key, (self.outputs, self.inputs))

    def __call__(self, theta, x):
        return theta @ x


def routes(text):
    """The lines of the route."""
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("route")), len(lines))
    return [line.removeprefix("route").strip() for line in lines[first:]]


def network(*layers):
    return SBN(layers, Readout(layers[-1].outputs, 1))


pooled = Compose((AveragePool(2), Conv((2, 2, 1), 1, 2)), inputs=(4, 4, 1))
mixed = Compose((jnp.sin, Dense(3, 2)), inputs=3)
skip = Add((Conv((4, 4, 1), 1, 3, padding=1), lambda x: x))


@pytest.mark.parametrize(
    ("layers", "route"),
    [
        ((Dense(2, 3), Dense(3, 2)), "all flips at once, by Dense.flip_pullback"),
        ((Dense(2, 3), Plain(3, 2)), "3 flips in turn, Plain again for each"),
        ((Dense(2, 3), mixed), "3 flips in turn, Compose again for each"),
        ((Conv((5, 5, 1), 1, 2), pooled), "all flips at once, by Compose.flip_pullback"),
        ((Conv((5, 5, 1), 1, 2), skip), "all flips at once, by Add.flip_pullback"),
    ],
    ids=["hook", "no hook", "composed", "pooled", "skip"],
)
@pytest.mark.slow
def test_psa_takes_the_route_that_is_told(layers, route, monkeypatch):
    model = SBN(layers, lambda theta, x, target: jnp.sum(x) * theta)
    params = (*(layer.init(jax.random.key(k)) for k, layer in enumerate(layers)), jnp.ones(()))
    batch = (jnp.ones((2, *jnp.shape(jnp.zeros(layers[0].inputs)))), jnp.ones(2))
    told = routes(explain("psa", model, params, batch))
    assert told[0] == f"layer 1 to layer 2: {route}"
    assert "in turn" in told[1]  # a lambda has no `flips`

    calls = []
    for kind in (Dense, Conv):
        hook = kind.flip_pullback
        monkeypatch.setattr(
            kind, "flip_pullback", lambda *a, hook=hook: calls.append(1) or hook(*a)
        )
    jax.eval_shape(jax.grad(gradbench.estimators.psa(model)), params, jax.random.key(0), batch)
    assert bool(calls) == ("at once" in told[0])


def test_a_function_is_run_again_for_each_unit_and_counted_so():
    chain, params, batch = small((2, 3, 2, 1))
    runs = []

    def function(params, example, binary):
        runs.append(None)
        return chain(params, example, binary)

    told = explain("psa", function, params, batch)
    assert routes(told) == ["each of 5 units flipped in turn, and the model run again: 6 runs"]
    assert "6 per draw and example" in told
    assert "3 per draw and example" in explain("psa", chain, params, batch)
    assert evaluations("psa", [3, 2], chain=False) == 6
    assert evaluations("psa", [3, 2]) == 3


def test_what_is_told_fits_the_model():
    chain, params, batch = small((2, 3, 1), noise="normal")
    told = explain("psa", chain, params, batch)
    assert "unbiased" in told  # one layer
    assert "3 units [3], normal" in told


def test_every_estimator_that_takes_any_model_is_explained():
    chain, params, batch = small((2, 3, 1))
    for name, entry in ESTIMATORS.items():
        if not entry.needs:
            assert explain(name, chain, params, batch).startswith("estimator")


@pytest.mark.parametrize(
    ("spec", "message"),
    [("psaa", "did you mean 'psa'"), ("psa(x=1)", "has no hyper-parameter 'x'")],
)
def test_what_is_unknown_is_refused(spec, message):
    chain, params, batch = small((2, 3, 1))
    with pytest.raises(gradbench.GradbenchError, match=message):
        explain(spec, chain, params, batch)
