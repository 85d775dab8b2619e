"""Networks of dense layers: shapes, codings, the flip hook, and what they refuse."""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, flat, random_batch, random_params, relative, small

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import flip, run_at_states, run_model
from gradbench.estimators import psa, reinforce
from gradbench.exact.enumeration import brute_force, recursion
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, RealNetwork, dense_network

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
KEY = jax.random.key(0)


# -------------------------------------------------------------------------------- forward


@pytest.mark.parametrize("inputs", [1, 2, 7])
@pytest.mark.parametrize("states", [(-1, 1), (0, 1), (2.0, -0.5)])
def test_a_network_computes_affine_layers_of_coded_states(inputs, states):
    network, params, batch = small((inputs, 3, 2, 1), states=states)
    x, target = batch[0][0], batch[1][0]
    run = run_model(network, params, (x, target), lambda site, a: jnp.where(a > 0, 1.0, -1.0))
    for k, theta in enumerate(params):
        out = theta["weight"] @ x + theta["bias"]
        if k < 2:
            np.testing.assert_allclose(run.a[k], out, rtol=1e-14)
            x = np.where(out > 0, states[1], states[0])
    np.testing.assert_allclose(run.f, np.log1p(np.exp(-out[0] * target)), rtol=1e-14)


def test_a_dense_layer_reads_states_of_any_shape_with_as_many_units():
    network, params, (inputs, targets) = small((4, 3, 1))
    images = inputs.reshape(-1, 2, 1, 2)
    values = [jax.jit(partial(recursion, network))(params, (x, targets)) for x in (inputs, images)]
    assert values[0] == values[1]


def test_every_layer_has_its_own_noise():
    layers = (Dense(2, 3, "uniform"), Dense(3, 2, get_noise("laplace")))
    run = run_model(
        SBN(layers, Readout(2, 1)),
        random_params((2, 3, 2, 1)),
        (np.zeros(2), 1.0),
        lambda site, a: a,
    )
    assert [site.noise.name for site in run.sites] == ["uniform", "laplace"]


@pytest.mark.slow
def test_initial_parameters_fit_and_are_uniform_on_minus_one_to_one():
    network = dense_network((3, 40, 30, 2), "softmax_cross_entropy")
    params = network.init(KEY)
    shapes = [{k: v.shape for k, v in theta.items()} for theta in params]
    assert shapes == [
        {"weight": (n, m), "bias": (n,)} for m, n in itertools.pairwise((3, 40, 30, 2))
    ]
    values = flat(params)
    assert np.all(np.abs(values) < 1)
    assert np.ptp(values) > 1.99
    assert abs(values.mean()) < 5.5 * np.sqrt(1 / 3 / values.size)
    assert len(set(np.round(values, 12))) == values.size  # no two layers share their numbers


@pytest.mark.slow
def test_an_objective_can_be_any_function_without_parameters():
    def energy(theta, x, target):
        assert theta == ()
        return jnp.prod(x) * target + jnp.max(x * jnp.arange(3))

    network = SBN((Dense(2, 3),), energy)
    params = network.init(KEY)
    assert params[-1] == ()
    batch = random_batch(2)
    g = jax.jit(jax.grad(psa(network)))(params, KEY, batch)
    assert jax.tree.structure(g) == jax.tree.structure(params)
    routes = [
        jax.jit(jax.grad(partial(r, network)))(params, batch) for r in (recursion, brute_force)
    ]
    assert relative(*routes) < 1e-12


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: SBN((), Readout(2, 1)), r"got the layers \(\); give a tuple of at least one"),
        (
            lambda: SBN((Dense(2, 3), Dense(4, 2)), Readout(2, 1)),
            "layer 1 has 3 units but the next",
        ),
        (lambda: SBN((Dense(2, 3),), Readout(4, 1)), "layer 1 has 3 units but the next expects 4"),
        (
            lambda: SBN((Dense(2, 3),), Readout(3, 1), (1, 1)),
            r"the states are \(1, 1\); give",
        ),
        (lambda: SBN((Dense(2, 3, "gauss"),), Readout(3, 1)), "unknown noise 'gauss'"),
        (lambda: dense_network((2, 1)), "do not make a network"),
        (lambda: SBN(Dense(2, 3), Readout(3, 1)), "got the layers Dense.*; give a tuple"),
        (lambda: SBN((Dense(2, 3), jnp.tanh), Readout(3, 1)), "layer 2 is .*; wrap a function in"),
        (lambda: SBN((Dense(2, 3),), "logistic_loss"), "the objective is 'logistic_loss'; give a"),
        (lambda: SBN((Dense(2, 3),), Readout(3, 1), (0, np.nan)), "the states are .*; give two"),
        (lambda: SBN((Dense(2, 3),), Readout(3, 1), (0, 1e200)), "the states are .*; give two"),
        (lambda: SBN((Dense(2, 3),), Readout(3, 1), 1), "the states are 1; give two different"),
        (lambda: Dense(2, 3, "gauss"), "unknown noise 'gauss'"),
        (lambda: Readout(0, 1), "a readout got .0, 1.; give whole numbers"),
        (lambda: RealNetwork((Dense(2, 3),), Readout(3, 1), "tanh"), "the activation .* 'tanh'; "),
        (lambda: RealNetwork((), Readout(3, 1)), "give a tuple of at least one"),
        (lambda: dense_network((2, 0, 1)), "do not make a network"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(build, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        build()


@pytest.mark.parametrize("change", ["input", "image", "weight", "bias", "readout"])
def test_shapes_that_do_not_match_are_refused(change):
    network, params, (inputs, targets) = small((2, 3, 1))
    if change == "input":
        inputs = inputs[:, :1]
    elif change == "image":
        inputs = np.stack([inputs, inputs], axis=1)
    elif change == "readout":
        params = (params[0], {**params[1], "weight": np.ones((1, 2))})
    else:
        params = ({**params[0], change: np.ones((3, 3, 3))}, params[1])
    with pytest.raises(
        GradbenchError, match=r"an affine layer with weight .* got an input of shape"
    ):
        reinforce(network)(params, KEY, (inputs, targets))


@pytest.mark.parametrize("entries", [1, 3])
def test_a_wrong_number_of_parameter_entries_is_refused(entries):
    network, params, batch = small((2, 3, 1))
    wrong = (params * 2)[:entries]
    with pytest.raises(GradbenchError, match=f"of 1 layers got {entries} parameter entries"):
        reinforce(network)(wrong, KEY, batch)
    with pytest.raises(GradbenchError, match=f"of 1 layers got {entries} parameter entries"):
        network.check(wrong, batch)


# ------------------------------------------------------------------------------- codings


def recode(params):
    """Parameters of the {-1, 1} network that equals the {0, 1} network with `params`."""
    first, *rest = params
    return (
        first,
        *(
            {"weight": t["weight"] / 2, "bias": t["bias"] + jnp.sum(t["weight"], axis=1) / 2}
            for t in rest
        ),
    )


@pytest.mark.slow
def test_a_network_coded_01_equals_the_one_coded_pm1_with_transformed_weights():
    sizes = (2, 3, 2, 1)
    coded, params, batch = small(sizes, states=(0, 1))
    plain = dense_network(sizes)

    @jax.jit
    def pairs(params):
        found = []
        for make in (lambda n: recursion, lambda n: brute_force):
            f, g = make(coded), make(plain)
            found.append(
                (
                    jax.value_and_grad(lambda p, f=f: f(coded, p, batch))(params),
                    jax.value_and_grad(lambda p, g=g: g(plain, recode(p), batch))(params),
                )
            )
        # the chain rule through `recode` turns a draw of one into a draw of the other
        one = jax.grad(psa(coded))(params, KEY, batch)
        two = jax.grad(lambda p: psa(plain)(recode(p), KEY, batch))(params)
        return found, (one, two)

    values, (one, two) = pairs(params)
    for (f, df), (g, dg) in values:
        np.testing.assert_allclose(f, g, rtol=1e-13)
        assert relative(df, dg) < 1e-12
    assert relative(one, two) < 1e-12


# -------------------------------------------------------------------------- the flip hook


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_flip_pull_equals_flipping_every_unit(noise):
    network, params, batch = small((2, 4, 3, 1), noise=noise, states=(0, 1), seed=3)
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    x = (jnp.array([1.0, -1, -1, 1]), jnp.array([1.0, 1, -1]))
    g = jnp.array([0.3, -2.0, 0.7])

    @jax.jit
    def both(params):
        run = run_at_states(network, params, example, x)
        fast = network.flip_pullback(params, run, 0, g)
        cdf = get_noise(noise).cdf
        rows = [flip(x[0], i) for i in range(x[0].size)]
        above = [run_at_states(network, params, example, (row, x[1])).a[1] for row in rows]
        return fast, jnp.stack([g @ (cdf(a) - cdf(run.a[1])) for a in above])

    fast, generic = both(params)
    assert np.linalg.norm(generic) > 1e-3
    np.testing.assert_allclose(fast, generic, rtol=0, atol=1e-10)


def test_parameters_without_weight_and_bias_are_refused():
    network, params, batch = small((2, 3, 1))
    for wrong, found in (
        ({"weight": params[0]["weight"]}, "weight"),
        (params[0]["bias"], "not a dictionary"),
    ):
        with pytest.raises(GradbenchError, match=f"got parameters .*{found}.*; give a weight and"):
            reinforce(network)((wrong, params[1]), KEY, batch)


def test_examples_that_are_not_pairs_are_refused():
    network, params, (inputs, _) = small((2, 3, 1))
    with pytest.raises(GradbenchError, match=r"not pairs; give \(inputs, targets\)"):
        reinforce(network)(params, KEY, inputs)


def test_a_network_of_a_list_of_layers_is_that_of_a_tuple():
    assert hash(SBN([Dense(2, 3)], Readout(3, 1))) == hash(SBN((Dense(2, 3),), Readout(3, 1)))


@pytest.mark.slow
def test_psa_needs_no_hook_of_a_layer():
    @dataclass(frozen=True)
    class Plain:
        """A layer with the bare protocol: Dense without its flip_pull."""

        dense: Dense
        noise = "logistic"
        inputs = property(lambda self: self.dense.inputs)
        outputs = property(lambda self: self.dense.outputs)
        init = property(lambda self: self.dense.init)

        def __call__(self, theta, x):
            return self.dense(theta, x)

    network, params, batch = small((2, 3, 2, 1))
    plain = SBN(tuple(map(Plain, network.layers)), network.objective)
    assert not hasattr(plain.layers[0], "flip_pullback")
    draws = [jax.jit(jax.grad(psa(model)))(params, KEY, batch) for model in (network, plain)]
    assert relative(draws[1], draws[0]) < 1e-6


def test_sizes_may_be_numbers_of_numpy():
    network = dense_network(tuple(np.array([2, 3, 1])))
    same = dense_network((2, 3, 1))
    assert jax.tree.map(jnp.shape, network.init(KEY)) == jax.tree.map(jnp.shape, same.init(KEY))
