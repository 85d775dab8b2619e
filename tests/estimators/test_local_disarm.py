"""Local DisARM: a signal for each sample of a bound from its antithetic twin, by enumeration."""

import importlib
import itertools

import four_bits
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import EXACT, SEEN, exact_bias, example_draws, random_uniforms, total_variance
from conftest import random_params, small

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.estimators import ESTIMATORS, check_spec, disarm, local_disarm, vimco
from gradbench.models.multisample import MultiSample

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


def autoencoder(params, example, binary):
    """-log p(x, b) + log q(b | x) of inputs x and two latent bits b: -log of a weight p / q."""
    encoder, decoder = params
    a = encoder["weight"] @ example + encoder["bias"]
    b = binary(a)
    out = decoder["weight"] @ b + decoder["bias"]
    return jnp.sum(jnp.logaddexp(0, -example * out)) - jnp.sum(jnp.logaddexp(0, -a * b))


def variational(scale=1.5):
    x = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (1, 3)))
    return autoencoder, jax.tree.map(jnp.asarray, random_params((3, 2, 3), scale, seed=2)), x


@pytest.mark.slow
def test_it_is_unbiased_on_an_importance_weighted_bound():
    network, params, batch = variational()
    bias, value = exact_bias(local_disarm(MultiSample(network, 2)), params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_on_four_bits_it_has_less_variance_than_vimco():
    """The order of magnitude of the collection: .87 against 1.58."""

    def third(params, example, binary):
        return four_bits.model(params, example, binary) / 3

    model, params = MultiSample(third, 2), (jnp.asarray(four_bits.A),)
    one, other = (
        total_variance(make(model), params, four_bits.BATCH) for make in (local_disarm, vimco)
    )
    assert 0.2 < one / other < 0.7
    bias, _ = exact_bias(local_disarm(model), params, four_bits.BATCH)
    assert bias[0] < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("descendants", ["shared", "independent"])
def test_it_is_unbiased_in_several_layers_and_with_other_noise(descendants):
    network, params, batch = small((1, 1, 1, 1), ("normal", "uniform"), seed=3)
    model = MultiSample(network, 2)
    at = jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda leaf: leaf[:1], batch)))
    bias, value = exact_bias(local_disarm(model, descendants=descendants), *at)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_it_is_unbiased_with_three_samples():
    network, params, batch = small((1, 1, 1), "laplace", seed=3)
    at = jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda leaf: leaf[:1], batch)))
    bias, value = exact_bias(local_disarm(MultiSample(network, 3)), *at)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_a_twin_in_the_place_of_another_sample_is_seen(monkeypatch):
    module = importlib.import_module("gradbench.estimators.vimco")
    right = module._replaced
    monkeypatch.setattr(module, "_replaced", lambda f, other: jnp.flip(right(f, other), axis=0))
    network, params, batch = variational()
    bias, value = exact_bias(local_disarm(MultiSample(network, 2)), params, batch)
    assert bias[0] > SEEN
    assert value < EXACT


@pytest.mark.slow
def test_a_draw_is_the_literal_rule_of_the_paper():
    """In bits and logits: (L - L^k~) / 2 (b - b~) max(p, 1 - p), sample by sample."""
    network, params, batch = variational()
    model, samples = MultiSample(network, 3), 3
    u = random_uniforms(20, 1, ((2,),) * samples)
    draw = jax.jit(jax.vmap(jax.grad(local_disarm(model).example_loss), (None, 0, None)))
    found = np.asarray(draw(params, u, batch[0])[0]["bias"])
    a = np.asarray(params[0]["weight"] @ batch[0] + params[0]["bias"])
    p = 1 / (1 + np.exp(-a))

    def f(b):
        return float(network(params, batch[0], lambda a: jnp.asarray(2.0 * b - 1)))

    table = {b: f(np.array(b)) for b in itertools.product((0, 1), repeat=2)}

    def log_mean(losses):
        return -np.log(np.mean(np.exp(-np.array(losses))))

    # Beside the signals the draw has the derivative of the weights' own logits, sum_k v_k dlog q.
    for row in range(20):
        own = [np.asarray(v[row]) for v in u[0]]
        b = [(v < p).astype(int) for v in own]
        twins = [(1 - v < p).astype(int) for v in own]
        losses = [table[tuple(one)] for one in b]
        w = np.exp(-np.array(losses))
        right = np.zeros(2)
        for k in range(samples):
            other = [table[tuple(twins[k])] if j == k else losses[j] for j in range(samples)]
            signal = (log_mean(losses) - log_mean(other)) / 2
            right += signal * (b[k] - twins[k]) * np.maximum(p, 1 - p)
            right += w[k] / w.sum() * (b[k] - p)
        np.testing.assert_allclose(found[row], right, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_for_one_sample_it_is_disarm_draw_by_draw():
    network, params, batch = small((2, 3, 2, 1), ("logistic", "normal"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = random_uniforms(10, 2, ((3,), (2,)))
    for descendants in ("shared", "independent"):
        losses = [
            local_disarm(MultiSample(network, 1), descendants=descendants),
            disarm(network, descendants=descendants),
        ]
        one, other = example_draws(losses, params, example, u)
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_saturated_units_give_finite_draws_in_single_precision():
    network, params, batch = small((2, 3, 1), "uniform")
    params[0]["bias"][:] = [40, -40, 0.5]
    with single():
        narrow = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (params, batch))
        loss = local_disarm(MultiSample(network, 2))
        g = jax.tree.leaves(jax.jit(jax.grad(loss))(narrow[0], jax.random.key(0), narrow[1]))
    assert {leaf.dtype for leaf in g} == {np.dtype("float32")}
    assert all(np.all(np.isfinite(leaf)) for leaf in g)


def test_what_the_registry_says_and_what_is_refused():
    entry = ESTIMATORS["local_disarm"]
    assert (
        entry.claim() == "unbiased" and not entry.needs_derivative() and str(entry.price()) == "2"
    )
    network, *_ = small((2, 2, 1))
    with pytest.raises(GradbenchError) as caught:
        local_disarm(network)
    assert str(caught.value) == (
        "local_disarm got a model that is no MultiSample; give a MultiSample"
    )
    with pytest.raises(GradbenchError, match="descendants is 'fresh'; choose one of"):
        check_spec("local_disarm(descendants='fresh')")
