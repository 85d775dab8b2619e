"""Ground truth: two routes and a third written with plain loops, refusals, exact moments."""

import itertools
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SCIPY, flat, precision, random_batch, random_params, relative, small
from scipy import stats

from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import make_estimator, reinforce, straight_through
from gradbench.exact import size as _size
from gradbench.exact import sums as _sums
from gradbench.exact.enumeration import brute_force, expected_loss, recursion
from gradbench.exact.moments import moments
from gradbench.exact.routes import ROUTES
from gradbench.exact.size import check_size
from gradbench.measure import exact_reference as _reference
from gradbench.measure.exact_reference import exact_gradient
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, dense_network

pytestmark = pytest.mark.usefixtures("quick_compilation")
double = pytest.mark.usefixtures("float64")


def by_loops(params, batch, noise):
    """Expected logistic loss and its gradient: plain loops over paths, examples and units."""
    names = (noise,) * len(params) if isinstance(noise, str) else noise
    widths = [len(theta["bias"]) for theta in params[:-1]]
    total = 0.0
    gradient = [{key: np.zeros_like(value) for key, value in theta.items()} for theta in params]
    for x0, y in zip(*batch, strict=True):
        for path in itertools.product(*(itertools.product((-1, 1), repeat=n) for n in widths)):
            below, probability, scores = x0, 1.0, []
            for theta, x, name in zip(params, path, names, strict=False):
                a = theta["weight"] @ below + theta["bias"]
                law = SCIPY[name]
                p = [law.cdf(x_j * a_j) for x_j, a_j in zip(x, a, strict=True)]
                probability *= np.prod(p)
                slope = [x_j * law.pdf(a_j) for x_j, a_j in zip(x, a, strict=True)]
                with np.errstate(all="ignore"):
                    score = np.nan_to_num(np.divide(slope, p), posinf=0, neginf=0)
                scores.append((score, below))
                below = np.array(x)
            if probability == 0:
                continue
            out = params[-1]["weight"][0] @ below + params[-1]["bias"][0]
            f, df = np.logaddexp(0, -out * y), -y / (1 + np.exp(out * y))
            total += probability * f
            for entry, (score, below_k) in zip(gradient, scores, strict=False):
                entry["weight"] += probability * f * np.outer(score, below_k)
                entry["bias"] += probability * f * score
            gradient[-1]["weight"][0] += probability * df * below
            gradient[-1]["bias"][0] += probability * df
    n = len(batch[1])
    return total / n, jax.tree.map(lambda g: g / n, tuple(gradient))


@pytest.mark.parametrize(
    ("sizes", "noise"),
    [
        ((3, 1, 4, 1), ("normal", "logistic")),
        ((1, 2, 1, 3, 1, 1), ("logistic", "laplace", "triangular", "normal")),
        ((2, 3, 2, 1), ("uniform", "uniform")),
    ],
)
@pytest.mark.first(1)
def test_two_routes_a_finite_difference_and_plain_loops_agree(sizes, noise):
    network, params, _ = small(sizes, noise, seed=5)
    batch = random_batch(sizes[0], examples=3)  # not a power of two
    found = exact_gradient(network, params, batch)
    assert found.route == "recursion"
    assert set(found.agreement) == {"brute force", "finite difference"}
    assert all(difference < 1e-9 for difference in found.agreement.values())
    value, gradient = by_loops(params, batch, noise)
    np.testing.assert_allclose(found.value, value, rtol=1e-13)
    assert relative(found.gradient, gradient) < 1e-12


@double
@pytest.mark.parametrize(
    ("noise", "route"),
    [
        (("logistic", "normal"), recursion),
        (("uniform", "laplace"), recursion),
        (("laplace", "triangular"), recursion),
        (("normal", "triangular"), brute_force),
        (("uniform", "laplace"), brute_force),
    ],
)
@pytest.mark.slow
def test_saturated_pre_activations_give_the_finite_and_right_gradient(noise, route):
    """Units at |a| = 1e4 are constants: the gradient is that of the network without their noise."""
    network, params, batch = small((2, 3, 2, 1), noise, scale=0.3)
    params[0]["bias"][:] = [1e4, -1e4, 0.2]
    params[1]["bias"][0] = 1e4
    value, gradient = by_loops(params, batch, noise)
    f, g = jax.jit(jax.value_and_grad(partial(route, network)))(params, batch)
    np.testing.assert_allclose(f, value, rtol=1e-13)
    assert np.all(np.isfinite(flat(g)))
    assert relative(g, gradient) < 1e-12
    np.testing.assert_array_equal(g[0]["weight"][:2], 0)
    np.testing.assert_array_equal(g[1]["bias"][0], 0)


@pytest.mark.parametrize("sizes", [(2, 2, 7, 3), (2, 7, 2, 3), (2, 2, 3)])
@pytest.mark.first(1)
def test_examples_of_a_class_share_what_is_enumerated(sizes):
    """More examples than classes, and layers whose states are summed by halves and at once."""
    network, params, (inputs, _) = small(sizes, "normal", "softmax_cross_entropy")
    batch = np.concatenate([inputs, 1 - inputs]), np.array([2, 0, 2, 1, 1, 2])
    assert network.objective.classes == 3
    found = exact_gradient(network, params, batch)
    assert found.agreement["brute force"] < 1e-10
    several = exact_gradient(network, params, tuple(part[:3] for part in batch))
    rest = exact_gradient(network, params, tuple(part[3:] for part in batch))
    np.testing.assert_allclose(found.value, (several.value + rest.value) / 2, rtol=1e-12)


@double
@pytest.mark.parametrize("has_classes", [True, False])
@pytest.mark.parametrize("form", [lambda p: p, lambda p: {"one": p[:, 0], "other": p[:, 1]}])
def test_targets_that_are_no_numbers_of_classes_are_enumerated_example_by_example(
    form, has_classes
):
    """An objective that has ``classes`` may take probabilities of them; targets are any pytree."""

    class Soft:
        classes = 2 if has_classes else None

        def __call__(self, theta, x, target):
            p = jnp.stack(jax.tree.leaves(target)).ravel()
            return -jnp.vdot(p, jax.nn.log_softmax(theta * x))

    layer = Dense(1, 2)
    network, params = SBN((layer,), Soft()), (layer.init(jax.random.key(0)), np.array(0.7))
    batch = random_batch(1, 5)[0], form(np.random.default_rng(0).dirichlet([1, 1], 5))
    found = exact_gradient(network, params, batch)
    assert found.agreement["brute force"] < 1e-10


@double
@pytest.mark.parametrize(("units", "examples"), [(2, 1), (2, 2), (7, 1), (7, 20)])
def test_what_is_not_finite_counts_where_a_state_can_occur(units, examples):
    """Above a layer, summed by halves (7 units, 1 example) and at once."""

    def objective(theta, x, target):
        return jnp.where(x[-1] > 0, jnp.sum(x) * theta, target)  # infinite

    network = SBN((Dense(1, 1, "uniform"), Dense(1, units, "uniform")), objective)
    zero = {"weight": np.zeros((units, 1)), "bias": np.zeros(units)}
    never = zero | {"bias": np.array([0.0] * (units - 1) + [5.0])}
    first = {"weight": np.zeros((1, 1)), "bias": np.array([0.5])}
    batch = random_batch(1, examples)[0], np.full(examples, np.inf)
    f, g = jax.value_and_grad(partial(recursion, network))((first, never, np.array(2.0)), batch)
    np.testing.assert_allclose(f, 2, rtol=1e-13)
    np.testing.assert_allclose(g[2], 1, rtol=1e-13)
    assert np.all(np.isfinite(flat(g)))
    f, _ = jax.value_and_grad(partial(recursion, network))((first, zero, np.array(2.0)), batch)
    assert not np.isfinite(f)


@double
@pytest.mark.slow
def test_an_objective_that_is_infinite_on_impossible_states_has_a_finite_expectation():
    def objective(theta, x, target):
        return jnp.where(x[0] > 0, jnp.sum(x) * theta, jnp.inf)

    network = SBN((Dense(1, 2, "uniform"),), objective)
    params = ({"weight": np.zeros((2, 1)), "bias": np.array([5.0, 0.5])}, np.array(2.0))
    for route in (recursion, brute_force):
        f, g = jax.jit(jax.value_and_grad(partial(route, network)))(params, random_batch(1))
        np.testing.assert_allclose(f, 2 * (1 + 0.5), rtol=1e-14)
        np.testing.assert_allclose(g[1], 1.5, rtol=1e-14)
        np.testing.assert_allclose(g[0]["bias"], [0, 2], rtol=1e-14)


@double
def test_a_model_with_skips_and_mixed_noise_is_enumerated_by_brute_force():
    def model(params, example, binary):
        x = binary(params[0] * example)
        y = binary(params[1] + x[0], noise="laplace")
        return (x[0] * x[1] + y) * params[2]

    params, example = (np.array([0.3, -0.4]), np.array(0.2), np.array(1.7)), 0.8
    p = stats.logistic.cdf(np.array([0.3, -0.4]) * example)
    mean = sum(
        (p[0] if i > 0 else 1 - p[0]) * (i * (2 * p[1] - 1) + 2 * stats.laplace.cdf(0.2 + i) - 1)
        for i in (-1, 1)
    )
    found = expected_loss(model, params, np.array([example]))
    np.testing.assert_allclose(found, 1.7 * mean, rtol=1e-13)


@double
@pytest.mark.slow
def test_the_size_of_chunks_does_not_change_the_answer(monkeypatch):
    network, params, batch = small((2, 3, 2, 1))
    loss = straight_through(network)
    # `jit` of a new function each time: the chunk is not part of any cache's key
    plain = jax.jit(lambda p: evaluate(network, loss, p, batch))(params)
    monkeypatch.setattr(_sums, "TABLE", 8)
    monkeypatch.setattr(_sums, "PATHS", 8)
    monkeypatch.setattr(_sums, "_FEW", 0)
    chunked = jax.jit(lambda p: evaluate(network, loss, p, batch))(params)
    np.testing.assert_allclose(flat(chunked), flat(plain), rtol=1e-12, atol=1e-15)


def evaluate(network, loss, params, batch):
    routes = [
        jax.value_and_grad(partial(r, network))(params, batch) for r in (recursion, brute_force)
    ]
    return routes, moments(loss, params, batch)


# ------------------------------------------------------------------------- the reference


@double
@pytest.mark.slow
def test_a_wrong_gradient_would_be_recorded(monkeypatch):
    network, params, batch = small((2, 2, 1))
    params = jax.tree.map(jnp.asarray, params)

    def wrong(network, params, batch):
        bias = params[0]["bias"][0]
        return recursion(network, params, batch) + 1e-6 * (bias - jax.lax.stop_gradient(bias))

    _, gradient = jax.jit(jax.value_and_grad(partial(recursion, network)))(params, batch)
    off = jax.tree.map(lambda g: g * (1 + 1e-6), gradient)
    by_differences = partial(_reference._finite_difference, ROUTES["recursion"])
    assert by_differences(network, params, batch, gradient) < 1e-9
    assert by_differences(network, params, batch, off) > 1e-7
    replace_route(monkeypatch, "recursion", wrong)
    assert _reference._second_route(network, params, batch) > 1e-7


def replace_route(monkeypatch, name, expected_loss):
    """A route of the package with another expected loss, for the length of a test."""
    wrong = replace(ROUTES[name], expected_loss=expected_loss)
    monkeypatch.setitem(ROUTES._things, name, wrong)


@pytest.mark.slow
def test_the_reference_of_a_float32_caller_is_float64_and_no_flag_is_left():
    network, params, batch = small((2, 2, 1))
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, batch))
    found = exact_gradient(network, *single)
    assert {leaf.dtype for leaf in jax.tree.leaves(found.gradient)} == {np.dtype(np.float64)}
    assert isinstance(found.value, float)
    assert jnp.ones(()).dtype == np.float32
    _, gradient = by_loops(*jax.tree.map(lambda leaf: np.asarray(leaf, float), single), "logistic")
    assert relative(found.gradient, gradient) < 1e-12
    with pytest.raises(GradbenchError):
        exact_gradient(network, params, (batch[0] * np.nan, batch[1]))
    assert jnp.ones(()).dtype == np.float32


@double
@pytest.mark.slow
def test_the_second_route_looks_at_as_many_examples_as_it_can_afford(monkeypatch):
    network, params, batch = small((2, 3, 1))
    monkeypatch.setattr(_reference, "_SECOND_ROUTE", 2 * 2**3)
    assert _reference._second_route(network, params, batch) < 1e-9
    monkeypatch.setattr(_reference, "_SECOND_ROUTE", 2**3 - 1)
    assert _reference._second_route(network, params, batch) is None


@pytest.mark.slow
def test_integer_images_are_taken_as_numbers():
    network, params, _ = small((2, 2, 1), scale=0.1)
    inputs, targets = np.array([[0, 25], [3, 7]]), np.array([-1, 1])
    found = exact_gradient(network, params, (inputs.astype(np.uint8), targets.astype(np.int8)))
    _, gradient = by_loops(params, (inputs.astype(float), targets), "logistic")
    assert relative(found.gradient, gradient) < 1e-12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_and_data_that_are_not_finite_are_refused(value):
    network, params, (inputs, targets) = small((2, 2, 1))
    broken = inputs.copy()
    broken[1, 1] = value
    with pytest.raises(GradbenchError, match=rf"the data hold {value} at \[0\]; give finite"):
        exact_gradient(network, params, (broken, targets))
    params[1]["bias"][0] = value
    with pytest.raises(GradbenchError, match=rf"the parameters hold {value} at \[1\]\['bias'\]"):
        exact_gradient(network, params, (inputs, targets))


def test_wrong_targets_and_shapes_are_refused():
    network, params, (inputs, targets) = small((2, 2, 1))
    for batch, sentence in (
        ((inputs, 0 * abs(targets)), "the target 0.0; code the two classes as -1 and"),
        ((inputs, targets[:-1]), "same number of examples"),
        ((inputs[:, :1], targets), "got an input of shape"),
        ((inputs, targets[:, None]), "return one real number per example"),
        ((inputs[:0], targets[:0]), "at least one"),
    ):
        with pytest.raises(GradbenchError, match=sentence):
            exact_gradient(network, params, batch)
    with pytest.raises(GradbenchError, match="parameter entries"):
        exact_gradient(network, params[:1], (inputs, targets))


# ------------------------------------------------------------------------------- too large


@pytest.mark.parametrize(
    ("sizes", "budget", "words"),
    [
        (
            (2, 30, 30, 1),
            None,
            ["layers of 30-30 units", "GiB, over the memory budget of 2 GiB"],
        ),
        ((2, 5, 5, 1), 1 << 20, ["layers of 5-5 units", "the memory budget of 0.0009766 GiB"]),
        ((2, 22, 22, 1), 1 << 40, ["layers of 22-22 units", "operations, over the limit"]),
        ((2, 3000, 1), None, ["layers of 3000 units", "GiB, over the memory budget"]),
    ],
)
def test_a_network_too_large_is_refused_with_size_budget_and_remedy(sizes, budget, words):
    network = dense_network(sizes)
    params = jax.tree.map(np.zeros_like, random_params(sizes))
    options = {} if budget is None else {"memory": budget}
    with pytest.raises(GradbenchError) as caught:
        exact_gradient(network, params, random_batch(2), **options)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith("use narrower layers or fewer examples")
    assert "\n" not in sentence


@pytest.mark.parametrize("units", [60, 3000])
def test_a_model_with_too_many_paths_is_refused(units):
    def model(params, example, binary):
        return jnp.sum(binary(params[0]))

    sentence = rf"all 2\^{units} paths through {units} units for 3 examples"
    with pytest.raises(GradbenchError, match=sentence):
        expected_loss(model, (np.zeros(units),), np.zeros((3, 1)))
    loss = jax.jit(jax.grad(make_estimator("exact", model)))
    with pytest.raises(GradbenchError, match=sentence):
        loss((np.zeros(units),), jax.random.key(0), np.zeros((3, 1)))


def test_networks_of_the_issue_fit_the_budget():
    for hidden in ((5, 5, 5), (8, 8, 8), (10, 10, 10), (11, 11, 11), (12, 12, 12)):
        sizes = (2, *hidden, 1)
        with precision(True):
            check_size(dense_network(sizes), random_params(sizes), random_batch(2, examples=200))


# ----------------------------------------------------------------------------- exact moments


@double
@pytest.mark.parametrize("make", [reinforce, straight_through])
@pytest.mark.slow
def test_exact_moments_are_the_average_over_all_paths_of_all_examples(make):
    """Literally: for a batch of two, all pairs of paths, each draw made by the public loss."""
    sizes = (2, 2, 1, 1)
    network, params, _ = small(sizes, "normal", seed=2)
    batch = random_batch(2, examples=2)
    loss = make(network)
    found = jax.jit(partial(moments, loss))(params, batch)

    paths = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    draw = jax.jit(jax.vmap(jax.value_and_grad(loss.example_loss), (None, 0, None)))
    per_example = []
    for x0, y in zip(*batch, strict=True):
        u = ((1 - paths[:, :2]) / 2, (1 - paths[:, 2:]) / 2)
        value, g = draw(params, (u,), (x0, y))
        a0 = params[0]["weight"] @ x0 + params[0]["bias"]
        a1 = paths[:, :2] @ params[1]["weight"].T + params[1]["bias"]
        p = np.prod(stats.norm.cdf(paths * np.hstack([np.tile(a0, (8, 1)), a1])), axis=1)
        rows = np.concatenate([np.reshape(leaf, (8, -1)) for leaf in jax.tree.leaves(g)], axis=1)
        per_example.append((p, value, rows))
    (p, f, g), (q, h, k) = per_example
    weight = np.outer(p, q)[..., None]
    draws = (g[:, None] + k[None]) / 2
    mean = np.sum(weight * draws, axis=(0, 1))
    assert np.isclose(weight.sum(), 1)
    np.testing.assert_allclose(flat(found.mean), mean, rtol=1e-12, atol=1e-14)
    variance = np.sum(weight * (draws - mean) ** 2, axis=(0, 1))
    np.testing.assert_allclose(flat(found.variance), variance, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found.value, (p @ f + q @ h) / 2, rtol=1e-12)


@double
def test_exact_moments_ignore_draws_on_paths_of_probability_zero():
    network, params, batch = small((2, 2, 1), "uniform", scale=0.1)
    params[0]["bias"][:] = [3.0, 0.2]

    def example_loss(params, u, example):
        run = sampled(network, params, u[0], example)
        return run.f * jnp.where(u[0][0][0] == 1, jnp.nan, 1.0)  # never sampled

    found = jax.jit(partial(moments, surrogate_loss(network, example_loss)))(params, batch)
    right = jax.jit(partial(brute_force, network))(params, batch)
    np.testing.assert_allclose(found.value, right, rtol=1e-13)
    assert np.all(np.isfinite(flat((found.mean, found.variance))))


@double
@pytest.mark.slow
def test_layers_and_objectives_of_ones_own_are_enumerated():
    class Squashed(Dense):
        def __call__(self, theta, x):
            return jnp.tanh(super().__call__(theta, x))

    network = SBN((Dense(2, 3), Squashed(3, 2, "triangular")), Readout(2, 1))
    params, batch = random_params((2, 3, 2, 1)), random_batch(2)
    routes = [
        jax.jit(jax.grad(partial(r, network)))(params, batch) for r in (recursion, brute_force)
    ]
    assert relative(*routes) < 1e-12


# ------------------------------------------------------------- what cannot be had is refused


def test_exact_moments_of_what_is_not_lifted_are_refused():
    network, params, batch = small((2, 2, 1))
    with pytest.raises(GradbenchError, match=r"made by surrogate_loss\(\) .*measure draws"):
        moments(make_estimator("exact", network), params, batch)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((2, 9, 1), "uniforms of 9 units is too large"), ((2, 3, 3, 1), r"over the limit of 3e\+07")],
)
def test_exact_moments_over_too_many_uniforms_are_refused(sizes, message):
    network, params, batch = small(sizes)
    with pytest.raises(GradbenchError, match=f"{message}; |{message}.*measure draws"):
        moments(make_estimator("concrete", network), params, batch)


def test_exact_moments_over_too_many_paths_are_refused():
    network, params, batch = small((2, 40, 1))
    with pytest.raises(GradbenchError, match=r"all 2\^40 paths through 40 units .*fewer examples"):
        moments(reinforce(network), params, batch)


def test_the_table_between_two_wide_layers_counts_as_work_even_for_one_example():
    network, params, _ = small((2, 20, 20, 1))
    with pytest.raises(GradbenchError, match=r"20-20 units for 1 example takes 1e\+13 operations"):
        exact_gradient(network, params, random_batch(2, examples=1))


def test_a_model_without_a_hash_is_refused():
    @dataclass
    class Model:
        noise: str

        def __call__(self, params, example, binary):
            return jnp.sum(binary(params[0] * example, self.noise))

    with pytest.raises(GradbenchError, match=r"the model of type Model has no hash.*frozen datacl"):
        exact_gradient(Model("logistic"), (np.ones(2),), np.ones((3, 2)))


def test_integer_parameters_are_refused():
    network, params, batch = small((2, 2, 1))
    with pytest.raises(GradbenchError, match=r"the parameters hold int64 at .*; give real numbers"):
        exact_gradient(network, jax.tree.map(lambda leaf: leaf.astype(int), params), batch)


@pytest.mark.parametrize("scale", [0.0, 1e-7])
@pytest.mark.slow
def test_layers_whose_gradient_vanishes_have_a_reference(scale):
    """A readout of zeros, as at some initialisations: below it nothing but rounding is left."""
    network, params, batch = small((2, 3, 3, 1))
    readout = {**params[-1], "weight": scale * params[-1]["weight"]}
    found = exact_gradient(network, (*params[:-1], readout), batch)
    assert found.agreement["brute force"] < 1e-9
    assert np.linalg.norm(flat(found.gradient[0])) < 1e-6 < np.linalg.norm(flat(found.gradient[-1]))
    constant = SBN(network.layers, lambda theta, x, target: 1.0 + 0 * x[0])
    exact_gradient(constant, (*params[:-1], ()), batch)


def test_the_width_of_a_row_is_that_of_the_largest_array_also_inside_jit_and_scan():
    def part(rows):
        wide = jax.jit(lambda row: jnp.sin(jnp.outer(row, jnp.ones(50))))

        def step(total, row):
            return total + jnp.sum(wide(row)), None

        shared = jnp.ones((1000, 1000))  # does not grow with the rows
        return jax.lax.scan(step, 0.0, rows)[0] + jnp.sum(shared) + jnp.sum(jax.vmap(wide)(rows))

    assert _size.row_width(part, jnp.zeros((1, 7))) == 7 * 50


@pytest.mark.slow
def test_two_routes_that_disagree_are_no_reference(monkeypatch):
    network, params, batch = small((2, 2, 1))
    replace_route(
        monkeypatch,
        "brute_force",
        lambda model, params, batch: 1.001 * brute_force(model, params, batch),
    )
    with pytest.raises(GradbenchError, match=r"two routes to the exact gradient differ by 1.0e-03"):
        exact_gradient(network, params, batch)
