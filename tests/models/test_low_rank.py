"""Low-rank flips: the bound holds, the rank is chosen by it, and small layers stay exact."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import exact_bias
from conftest import flat, precision, relative, small
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradbench import explain
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import run_at_states
from gradbench.estimators import psa
from gradbench.models import (
    ELBO,
    SBN,
    Add,
    AveragePool,
    Compose,
    Concatenate,
    Conv,
    Dense,
    Function,
    Readout,
    bound_flips,
    low_rank,
    low_rank_bound,
    ranks,
)
from gradbench.models.layer import axes
from gradbench.models.low_rank import low_rank_pull
from gradbench.models.term_flips import Term

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
SMOOTH = ("logistic", "normal")


def parts(layer, width, seed=0, size=2.0):
    """Weights with the largest change ``width``, states, pre-activations and signals."""
    keys = jax.random.split(jax.random.key(seed), 4)
    theta = layer.init(keys[0])
    largest = jnp.max(jnp.abs(theta["weight"]))
    theta = {**theta, "weight": theta["weight"] * (width / size / largest)}
    x = jnp.where(jax.random.bernoulli(keys[1], shape=axes(layer.inputs)), 1.0, -1.0) * size / 2
    a = 3 * jax.random.normal(keys[2], axes(layer.outputs))
    return theta, x, a, jax.random.normal(keys[3], axes(layer.outputs))


def low(layer, rank, theta, x, a, g, size=2.0):
    cdf = get_noise(layer.noise).cdf
    change = -2 * x
    return low_rank_pull(rank, cdf, layer.transposed, size, theta["weight"], a, change, g)


def allowed(layer, rank, theta, g, width, size=2.0):
    """The bound of the error of each pull, from its statement."""
    noise = get_noise(layer.noise)
    steepest = noise.derivative_bound(1)
    most = layer.transposed(jnp.abs(theta["weight"]), jnp.abs(g)) * size * steepest
    return low_rank_bound(noise, rank, width) * most


def error(layer, rank, width, seed=0, size=2.0):
    """Errors of the pulls, and what they may be at most."""
    theta, x, a, g = parts(layer, width, seed, size)
    exact = layer.flip_pullback(theta, x, -x, a, g)
    found = jnp.abs(low(layer, rank, theta, x, a, g, size) - exact)
    return found, allowed(layer, rank, theta, g, width, size)


layers = st.one_of(
    st.builds(Dense, st.integers(1, 6), st.integers(1, 6), st.sampled_from(SMOOTH)),
    st.builds(
        lambda n, c, k, s, p, noise: Conv((n, n, c), 2, k, s, p, noise),
        *(st.integers(3, 4), st.integers(1, 2), st.integers(1, 3), st.integers(1, 2)),
        st.sampled_from(("valid", "same")),
        st.sampled_from(SMOOTH),
    ),
)


@settings(max_examples=25)
@given(layers, st.sampled_from((2, 4, 6, 8, 12)), st.floats(-4, 2), st.integers(0, 99))
@example(Dense(3, 2, "normal"), 2, 2.0, 0)
@example(Conv((3, 3, 1), 2, 2, 1, "same"), 8, 0.5, 1)
@pytest.mark.slow
def test_the_error_of_a_pull_is_within_its_bound(layer, rank, log_width, seed):
    found, most = error(layer, rank, 10.0**log_width, seed, size=1.0 if seed % 2 else 2.0)
    assert np.all(found <= most + 1e-13)


@pytest.mark.parametrize("layer", [Dense(5, 4), Conv((3, 3, 2), 2, 2, 1, "same", "normal")])
@pytest.mark.slow
def test_errors_at_widths_over_orders_of_magnitude_are_within_the_bound(layer):
    widths = jnp.logspace(-3, 2, 40)
    found, most = jax.jit(jax.vmap(partial(error, layer, 4)))(widths)
    assert np.all(found <= most + 1e-13)


@pytest.mark.parametrize("noise", SMOOTH)
@pytest.mark.parametrize("rank", ranks.RANKS)
@pytest.mark.first(1)
def test_the_bound_is_nearly_attained(noise, rank):
    layer, one = Dense(1, 1, noise), jnp.ones(1)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def error_at(theta, a):
        exact = layer.flip_pullback(theta, one, -one, a, one)
        return jnp.abs(low(layer, rank, theta, one, a, one) - exact)

    for width, factor in ((0.5, 1.5), (2.0, 3.0)):
        theta = {"weight": jnp.full((1, 1), width / 2), "bias": jnp.zeros(1)}
        worst = np.max(error_at(theta, jnp.linspace(-4, 4, 161)[:, None]))
        assert worst > allowed(layer, rank, theta, one, width)[0] / factor


@pytest.mark.slow
def test_derivatives_of_the_noises_are_within_their_bounds():
    a = jnp.linspace(-6, 6, 401)
    for name in SMOOTH:
        noise = get_noise(name)
        derivative = noise.cdf
        for k in range(1, 7):
            derivative = jax.vmap(jax.grad(lambda a, f=derivative: f(a)))  # of scalars
            found = np.max(np.abs(derivative(a)))
            derivative = partial(_scalar, derivative)
            assert found <= noise.derivative_bound(k) * (1 + 1e-12)
            assert found > noise.derivative_bound(k) / (1.01 if k % 2 else 1.5)


def _scalar(function, a):
    return function(a[None])[0]


@pytest.mark.slow
def test_a_lost_part_of_the_interpolant_is_seen(monkeypatch):
    right = low_rank._coefficients

    def without_base(rank, phi, a, width, g):
        odd, even = right(rank, phi, a, width, g)
        return odd, even * 1.01

    layer = Dense(6, 5)
    monkeypatch.setattr(low_rank, "_coefficients", without_base)
    found, most = error(layer, 8, 1.0)
    assert np.any(found > most)


# -------------------------------------------------------------------------- the choice of a rank


def wide(weight=0.1, noise="logistic", states=(-1, 1)):
    """A network with one large pull, whose largest weight is given, and a batch."""
    network = SBN((Dense(2, 70, noise), Dense(70, 64, noise)), Readout(64, 1), states)
    params = network.init(KEY)
    (upper,) = params[1:2]
    scale = weight / jnp.max(jnp.abs(upper["weight"]))
    upper = {"weight": upper["weight"] * scale, "bias": upper["bias"]}
    batch = (jax.random.normal(KEY, (3, 2)), jnp.array([1.0, -1, 1]))
    return network, (params[0], upper, params[2]), batch


def gradient(network, params, batch, **options):
    return jax.grad(psa(network, **options))(params, KEY, batch)


def told(spec, network, params, batch):
    lines = explain(spec, network, params, batch).splitlines()
    return next(line for line in lines if "layer 1 to layer 2" in line)


@pytest.mark.parametrize(
    ("weight", "states", "route"),
    [
        (0.3, (-1, 1), "of rank 4, wrong by at most 1.3e-04 of the largest slope"),
        (0.6, (0, 1), "of rank 4, wrong by at most 1.3e-04 of the largest slope"),
        (0.05, (-1, 1), "of rank 2, wrong by at most 4.2e-04 of the largest slope"),
        (1.0, (-1, 1), "of rank 8, wrong by at most 1.7e-04 of the largest slope"),
        (4.0, (-1, 1), "the exact pull: no rank below its cost meets the tolerance 0.001"),
        (np.nan, (-1, 1), "the exact pull: no rank below its cost meets the tolerance 0.001"),
    ],
)
@pytest.mark.slow
def test_explain_names_the_rank_that_is_taken(weight, states, route, monkeypatch):
    network, params, batch = wide(weight, states=states)
    assert route in told("psa", network, params, batch)
    taken = []
    pull = low_rank.low_rank_pull

    def spy(rank, phi, transposed, size, weight, a, change, g):
        jax.debug.callback(lambda: taken.append(rank), ordered=False)
        return pull(rank, phi, transposed, size, weight, a, change, g)

    monkeypatch.setattr(ranks, "low_rank_pull", spy)
    jax.block_until_ready(jax.jit(partial(gradient, network))(params, batch))
    jax.effects_barrier()
    assert {f"of rank {rank}," in route for rank in taken} <= {True}
    assert bool(taken) == ("of rank" in route)


def test_explain_knows_no_rank_without_weights():
    network, params, batch = wide()
    shapes = jax.eval_shape(lambda: params)
    route = told("psa(tolerance=0.01)", network, shapes, batch)
    assert "of the least rank whose bound meets the tolerance 0.01" in route


@pytest.mark.slow
def test_what_meets_no_tolerance_or_has_no_low_rank_is_the_exact_pull():
    for noise, weight, options in (
        ("logistic", 4.0, {}),
        ("uniform", 0.1, {"tolerance": 1.0}),
        ("laplace", 0.1, {"tolerance": 1.0}),
    ):
        network, params, batch = wide(weight, noise)
        exact = flat(gradient(network, params, batch, tolerance=0))
        np.testing.assert_allclose(
            flat(gradient(network, params, batch, **options)), exact, rtol=1e-12, atol=1e-15
        )


@pytest.mark.slow
def test_a_draw_of_low_rank_is_that_of_the_exact_pull_within_the_tolerance():
    network, params, batch = wide(0.4)
    exact = gradient(network, params, batch, tolerance=0)
    for tolerance, least in ((1e-3, 1e-9), (0.5, 1e-9), (1e-9, 0.0)):
        found = gradient(network, params, batch, tolerance=tolerance)
        assert least <= relative(found[0], exact[0]) < max(4 * min(tolerance, 1e-2), 1e-12)
        for k in (1, 2):  # nothing is pulled below the last layer
            assert relative(found[k], exact[k]) < 1e-12


@pytest.mark.parametrize("sizes", [(2, 3, 2, 1), (2, 5, 5, 5, 1)])
@pytest.mark.slow
def test_what_can_be_enumerated_stays_the_same_bit_for_bit(sizes):
    network, params, batch = small(sizes, scale=0.1)
    exact = flat(gradient(network, params, batch, tolerance=0))
    np.testing.assert_array_equal(flat(gradient(network, params, batch)), exact)
    np.testing.assert_array_equal(flat(gradient(network, params, batch, tolerance=9)), exact)


@pytest.fixture
def forced(monkeypatch):
    """Low rank in layers of any size."""
    monkeypatch.setattr(ranks, "FEW_UNITS", 0)
    monkeypatch.setattr(ranks, "FEW_PAIRS", 0)


def test_the_bias_of_low_rank_flips_is_within_the_bound(forced):
    network, params, batch = small((2, 3, 2, 1), scale=0.5, seed=3)
    exact, _ = exact_bias(psa(network, tolerance=0), params, batch)
    found, _ = exact_bias(psa(network, tolerance=1e-2), params, batch)
    width = 2 * np.max(np.abs(params[1]["weight"]))
    most = low_rank_bound("logistic", 4, width)
    assert most < 1e-2
    # One pull, below the last layer: its relative error is that of the first gradient.
    assert 0 < abs(found[0] - exact[0]) < 3 * most
    np.testing.assert_allclose(found[1:], exact[1:], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_traced_parameters_take_the_rank_of_their_values(forced):
    network, params, batch = small((2, 3, 2, 1), scale=0.3)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 5 * leaf, 40 * leaf]), params)
    draw = partial(gradient, network, batch=batch)
    right = [draw(jax.tree.map(lambda leaf, k=k: leaf[k], several)) for k in range(3)]
    together = jax.jit(jax.vmap(draw))(several)
    _, scanned = jax.lax.scan(lambda _, one: (None, draw(one)), None, several)
    for k, one in enumerate(right):
        for found in (together, scanned):
            own = jax.tree.map(lambda leaf, k=k: leaf[k], found)
            np.testing.assert_allclose(flat(own), flat(one), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_forward_and_reverse_differentiation_agree(forced):
    network, params, batch = small((2, 3, 2, 1), scale=0.3)
    loss = partial(psa(network), key=KEY, batch=batch)
    direction = jax.tree.map(jnp.cos, params)
    _, forward = jax.jvp(loss, (params,), (direction,))
    reverse = sum(
        jnp.vdot(*both)
        for both in zip(
            jax.tree.leaves(jax.grad(loss)(params)), jax.tree.leaves(direction), strict=True
        )
    )
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)


@pytest.mark.slow
def test_single_precision_rounds_and_no_more():
    network, params, batch = wide(0.4)
    right = gradient(network, params, batch)
    with precision(False):
        params, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, batch))
        network32 = SBN(network.layers, network.objective)
        layer, (theta, x, a, g) = Dense(70, 64), parts(Dense(70, 64), 0.8)
        found = low(layer, 8, *jax.tree.map(jnp.float32, (theta, x, a, g)))
        assert found.dtype == jnp.float32
        assert flat(gradient(network32, params, batch)).dtype == np.float32
    exact = low(layer, 8, theta, x, a, g)
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6 * float(jnp.sum(jnp.abs(g))))
    assert flat(right).dtype == np.float64


@pytest.mark.slow
def test_weights_of_zero_pull_nothing():
    theta, x, a, g = parts(Dense(4, 3), 1.0)
    theta = jax.tree.map(jnp.zeros_like, theta)
    np.testing.assert_array_equal(low(Dense(4, 3), 4, theta, x, a, g), 0)


@pytest.mark.parametrize("tolerance", [-1e-3, np.nan, np.inf, "small", None])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(GradbenchError, match=r"tolerance is .*; give a number of at least 0"):
        psa(small((2, 3, 1))[0], tolerance=tolerance)


def test_a_bound_that_is_not_known_is_refused():
    with pytest.raises(GradbenchError, match="'laplace' has no bound of its derivatives; take"):
        low_rank_bound("laplace", 4, 1.0)
    for rank in (0, 3):
        with pytest.raises(GradbenchError, match=f"the rank is {rank}; give an even number"):
            low_rank_bound("normal", rank, 1.0)


# ------------------------------------------------------------------- layers made of other layers

IMAGE = (8, 8, 1)
MADE = {
    "pooled": Compose((AveragePool(2), Conv((4, 4, 1), 2, 3, padding=1)), inputs=IMAGE),
    "a skip connection": Add((Conv(IMAGE, 1, 3, padding=1), lambda x: x / 4)),
    "side by side": Concatenate((Conv(IMAGE, 1, 3, padding=1), Conv(IMAGE, 2, 1))),
    "two dense layers": Compose((Dense(64, 40), Dense(40, 64))),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.first(1)
def test_layers_made_of_affine_parts_have_flips_of_low_rank(name, forced):
    layer = MADE[name]
    theta = jax.tree.map(lambda leaf: leaf / 10, layer.init(KEY))
    x = jnp.where(jax.random.bernoulli(KEY, shape=axes(layer.inputs)), 1.0, -1.0)
    g = jax.random.normal(KEY, axes(layer.outputs))

    @jax.jit
    def errors(theta):
        a = layer(theta, x)
        exact = layer.flip_pullback(theta, x, -x, a, g)
        pull = partial(layer.one_layer.low_rank_pullback, theta, x, -x, a, g, 2.0)
        weight = jnp.abs(layer.one_layer.flip_weight(theta))
        most = layer.one_layer.transposed(weight, jnp.abs(g)).reshape(x.shape) * 2 / 4
        return [(jnp.max(jnp.abs(pull(t) - exact) / (most + 1e-9)), t) for t in (1e-2, 1e-4, 1e-6)]

    found = errors(theta)
    assert all(error <= tolerance for error, tolerance in found)
    assert found[0][0] > found[-1][0] > 0


@pytest.mark.parametrize("tolerance", [0, 1e-5])
def test_flat_states_below_a_layer_made_of_others_are_flipped_as_one_by_one(tolerance, forced):
    pooled = Compose((AveragePool(2), Conv((2, 2, 1), 1, 2, padding=1)), inputs=(4, 4, 1))
    batch = jnp.linspace(-1, 1, 6).reshape(3, 2), jnp.ones(3)
    plain = Function(pooled, (4, 4, 1), pooled.init)  # whose structure is not known
    networks = [SBN((Dense(2, 16), layer), Readout(9, 1)) for layer in (pooled, plain)]
    params = jax.tree.map(lambda leaf: leaf / 4, networks[0].init(KEY))
    found, right = (
        flat(jax.jit(partial(gradient, network, tolerance=tolerance))(params, batch=batch))
        for network in networks
    )
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-12 + 10 * tolerance)


def test_the_rank_of_a_layer_made_of_others_is_told():
    pooled = Compose((AveragePool(2), Conv((10, 10, 1), 4, 3, padding=1)), inputs=(20, 20, 1))
    network = SBN((Dense(2, 400), pooled), Readout(400, 1))
    params = jax.tree.map(lambda leaf: leaf / 10, network.init(KEY))
    route = network.with_tolerance(1e-3).flip_route(0, params)
    assert route.startswith("layer 1 to layer 2: all flips at once, of rank 2, wrong by at most")
    assert (
        network.flip_route(0) == "layer 1 to layer 2: all flips at once, by Compose.flip_pullback"
    )


# ------------------------------------------------------------------------------ evidence bounds


def autoencoder(kl, layers=1, scale=0.3, noise="logistic", likelihood="bernoulli_likelihood"):
    """A small autoencoder of bits or counts, its parameters and a batch."""
    sizes = (6, 4, 3)[: layers + 1]
    encoders = tuple(Dense(m, n, noise) for m, n in itertools.pairwise(sizes))
    decoders = tuple(Dense(n, m) for m, n in itertools.pairwise(sizes))
    network = SBN(encoders, ELBO(decoders, kl, likelihood))
    params = jax.tree.map(lambda leaf: scale * leaf, network.init(KEY))
    prior = jnp.linspace(-1, 1, sizes[-1])
    params = (*params[:-1], {**params[-1], "prior": prior})
    bits = jnp.where(jax.random.bernoulli(KEY, shape=(5, 6)), 1.0, -1.0)
    counts = likelihood == "multinomial_likelihood"
    return network, params, (bits, jnp.arange(30.0).reshape(5, 6) % 4 if counts else bits)


@pytest.mark.parametrize(
    ("kl", "layers"), [("closed", 2), ("sampled", 2), ("closed", 1), ("sampled", 1)]
)
@pytest.mark.first(1)
@pytest.mark.slow
def test_flips_in_the_terms_of_a_bound_are_exact_within_the_tolerance(kl, layers, forced):
    network, params, batch = autoencoder(kl, layers)

    def draw(tolerance):
        loss = psa(network, tolerance=tolerance)
        return jax.jit(jax.value_and_grad(loss))(params, KEY, batch)

    value, exact = draw(0)
    errors = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        low, found = draw(tolerance)
        errors.append([relative(*both) for both in zip(found, exact, strict=True)])
        assert abs(low - value) < tolerance * abs(value)
        assert max(errors[-1]) < 2 * tolerance
    for first, second in itertools.pairwise(errors[:2]):
        assert all(one > two > 0 for one, two in zip(first, second, strict=True))  # none is exact


def changes(network, params, batch, k, tolerance):
    """Changes of the bound with each unit of layer k flipped, [examples, units]."""
    units, network = [layer.outputs for layer in network.layers], network.with_tolerance(tolerance)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def of_example(params, example):
        bits = jax.random.bernoulli(KEY, shape=(sum(units),))
        x = jnp.split(jnp.where(bits, 1.0, -1.0), np.cumsum(units)[:-1])
        run = run_at_states(network, params, example, x)
        return network.flip_objective(params, example, run, k) - run.f

    return of_example(params, batch)


def flipped(network, params, batch, k):
    """The same from the bound alone, run once for each unit."""
    units = [layer.outputs for layer in network.layers]

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def of_example(params, example):
        bits = jax.random.bernoulli(KEY, shape=(sum(units),))
        x = jnp.split(jnp.where(bits, 1.0, -1.0), np.cumsum(units)[:-1])
        f = run_at_states(network, params, example, x).f

        def one(i):
            other = (*x[:k], x[k].at[i].multiply(-1), *x[k + 1 :])
            return run_at_states(network, params, example, other).f - f

        return jax.vmap(one)(jnp.arange(units[k]))

    return of_example(params, batch)


@pytest.mark.parametrize("kl", ["closed", "sampled"])
@pytest.mark.parametrize("noise", ["logistic", "normal"])
@pytest.mark.parametrize("likelihood", ["bernoulli_likelihood", "multinomial_likelihood"])
@pytest.mark.first(1)
def test_flips_in_a_bound_are_those_of_the_bound_run_again(kl, noise, likelihood, forced):
    network, params, batch = autoencoder(kl, 2, 0.3, noise, likelihood)
    for k in (0, 1):
        right = flipped(network, params, batch, k)
        scale = np.max(np.abs(right))
        for tolerance, most in ((0, 1e-12), (1e-5, 1e-4)):
            found = changes(network, params, batch, k, tolerance)
            np.testing.assert_allclose(found, right, rtol=0, atol=most * scale)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.first(2)
def test_the_error_of_flips_in_the_term_above_is_within_its_bound(seed, forced):
    generator = np.random.default_rng(seed)
    layer, width = Dense(5, 4), float(generator.uniform(0.2, 1.2))
    closed, last = seed % 2 == 0, seed % 4 < 2
    decoders = (Dense(5, 6), Dense(4, 5), Dense(3, 4))[: 2 if last else 3]
    encoders = (Dense(6, 5), layer, Dense(4, 3))[: len(decoders)]
    network = SBN(encoders, ELBO(decoders, "closed" if closed else "sampled"))
    params = network.init(jax.random.key(seed))
    weight = params[1]["weight"] * width / 2 / jnp.max(jnp.abs(params[1]["weight"]))
    prior = 2 * jax.random.normal(KEY, params[-1]["prior"].shape)
    params = (
        params[0],
        {**params[1], "weight": weight},
        *params[2:-1],
        params[-1] | {"prior": prior},
    )
    x, x_above = (jnp.sign(generator.normal(size=n)) for n in (5, 4))
    a = layer(params[1], x)
    term = Term(params, 1, get_noise("logistic"), x, a, x_above)

    def one(i):
        other = x.at[i].multiply(-1)
        moved = term._replace(below=other, a=layer(params[1], other))
        return network.objective.term(*moved) - network.objective.term(*term)

    right = jnp.stack([one(i) for i in range(5)])
    offer = network.objective.flips_below(0, layer, 1.0)
    for rank in ranks.RANKS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(offer.choice), "take", lambda self, w, low, exact, r=rank: low(r)())
            found = offer.changes(term, lambda: right)
        share = offer.choice.bound(rank, width)
        steepest = 1.0 if not closed else 0.22395 + (jnp.abs(prior) / 4 if last else 0)
        most = share * 2 * jnp.sum(jnp.abs(weight) * jnp.reshape(steepest, (-1, 1)), axis=0)
        assert np.all(np.abs(found - right) <= most + 1e-13)
        assert np.max(np.abs(found - right)) > np.max(most) / 1e4 or np.max(most) < 1e-9


@pytest.mark.parametrize("function", ["ENTROPY", "SOFTPLUS"])
def test_derivatives_of_what_a_bound_has_of_its_units_are_within_their_bounds(function):
    function = getattr(bound_flips, function)
    a = jnp.linspace(0.01, 6, 300)
    derivative = function.value
    for k in range(1, 6):
        derivative = partial(_scalar, jax.vmap(jax.grad(derivative)))
        found = np.max(np.abs(jax.jit(jax.vmap(derivative))(a)))
        assert function.bound(k) / 2.1 < found <= function.bound(k) * (1 + 1e-9)
    slope = jax.vmap(jax.grad(function.value))(a)
    np.testing.assert_allclose(function.slope(a), slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 40.0, 1000.0, np.nan])
@pytest.mark.first(1)
def test_flips_of_counts_are_exact_for_weights_of_any_size(scale):
    network, params, batch = autoencoder("closed", 1, scale, likelihood="multinomial_likelihood")

    def draw(network):
        loss = lambda params: jnp.sum(changes(network, params, batch, 0, 0) ** 2)  # noqa: E731
        return jax.value_and_grad(loss)(params)

    found = draw(network)
    network = SBN(network.layers, InTurn(network.objective))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(draw(network)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * scale)


class InTurn:
    """A bound that offers no flips at once."""

    def __init__(self, bound):
        self.term, self.inputs, self.init = bound.term, bound.inputs, bound.init


@pytest.mark.slow
def test_the_route_through_a_bound_is_told(forced):
    network, params, batch = autoencoder("closed")
    told = explain("psa(tolerance=0.05)", network, params, batch)
    assert "layer 1 to the objective: all flips at once, of rank 2, wrong by at most" in told
    several = explain("psa(tolerance=0)", network, params, batch)
    assert "layer 1 to the objective: 4 flips in turn, ELBO again for each" in several


def test_terms_that_lower_layers_are_seen_by_are_told():
    """The objective of a chain sees its last layer alone; an evidence bound sees all of them."""
    layers = Dense(5, 4), Dense(4, 3)
    bound = SBN(layers, ELBO((Dense(4, 5), Dense(3, 4))))
    assert bound.flip_route(0) == (
        "layer 1 to layer 2: all flips at once, by Dense.flip_pullback; "
        "to the objective: 4 flips in turn, ELBO again for each"
    )
    assert bound.flip_route(1) == "layer 2 to the objective: 3 flips in turn, ELBO again for each"
    chain = SBN(layers, Readout(3, 1))
    assert chain.flip_route(0) == "layer 1 to layer 2: all flips at once, by Dense.flip_pullback"
    assert chain.flip_route(1) == "layer 2 to the objective: all flips at once, by Readout.flips"


def test_the_two_terms_that_see_a_layer_may_have_routes_of_their_own(forced):
    least = "all flips at once, of the least rank whose bound meets the tolerance 0.01"
    in_turn = "4 flips in turn, ELBO again for each"
    counted = "all flips at once, by products with exp(2 W) and exp(-2 W)"
    for noise, likelihood, own, above in (
        ("logistic", "bernoulli_likelihood", least, least),
        ("normal", "bernoulli_likelihood", least, in_turn),
        ("normal", "multinomial_likelihood", counted, in_turn),
    ):
        network, *_ = autoencoder("closed", 2, 1.0, noise, likelihood)
        route = network.with_tolerance(0.01).flip_route(0)
        assert route == (
            f"layer 1 to layer 2: {least}; "
            f"to the objective: in its own term {own}; in that of layer 2 {above}"
        )


@pytest.mark.slow
def test_derivatives_of_a_decoders_flips_are_within_their_bound():
    layer, size, rank = Dense(4, 3), 2.0, 4
    theta, x, b, _ = parts(layer, 1.0)
    softplus = bound_flips.SOFTPLUS
    line, ct = jnp.linspace(0, 1, 3), jnp.array([1.0, -2, 0.5, 3])

    def low(weight, b):
        pull = partial(low_rank.smooth_pull, rank, softplus, layer.transposed, size)
        return ct @ pull(weight, b, -2 * x, line)

    def exact(weight, b):
        v = weight * (-2 * x)
        change = jax.nn.softplus(b[:, None] + v) - jax.nn.softplus(b[:, None]) - v * line[:, None]
        return jnp.sum(change, axis=0) @ ct

    most = low_rank.slope_bound_of(softplus, rank, 1.0)
    found, right = (jax.grad(f, (0, 1))(theta["weight"], b) for f in (low, exact))
    assert np.all(np.abs(found[0] - right[0]) <= most * size * np.abs(ct))
    assert np.all(np.abs(found[1] - right[1]) <= most * np.sum(np.abs(ct)))
    assert relative(found[0], right[0]) < 1e-3
    np.testing.assert_allclose(low(theta["weight"], b), exact(theta["weight"], b), rtol=1e-3)
