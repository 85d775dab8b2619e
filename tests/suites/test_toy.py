"""Toy problems: objectives that know their expectation, layers of logits, and their TOML files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, flat, relative
from tiny import write

from gradbench import exact
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import NOISES as NOISE
from gradbench.estimators import psa, reinforce, straight_through
from gradbench.measure.exact_reference import exact_gradient
from gradbench.models.dense import Dense, Logits
from gradbench.models.losses import Readout
from gradbench.models.network import SBN
from gradbench.models.toys import Distance, Polynomial, Quadratic
from gradbench.suites.data import load_data
from gradbench.suites.instance import build
from gradbench.suites.read_problem import load_problem
from gradbench.suites.suite import load_suite

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

NO_DATA = (jnp.zeros((1, 0)), jnp.zeros(1))


def form(units, seed=0):
    examples = load_data("quadratic_form", {"units": units}, seed)
    return tuple(map(jnp.asarray, examples))


def value_and_gradient(route, network, params, batch):
    return jax.jit(jax.value_and_grad(lambda p: route(network, p, batch)))(params)


TOYS = {
    "power 2": (Distance((0.45,)), (0, 1), NO_DATA),
    "power 1.5": (Distance((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1.5), (0, 1), NO_DATA),
    "power 3, sum": (Distance((0.45,), 3.0, True), (-1, 1), NO_DATA),
    "polynomial": (Polynomial((1.0, -0.5, 2.0, 0.3)), (-1, 1), NO_DATA),
    "polynomial, sum": (Polynomial((1.0, -0.5), True), (0.5, 3), NO_DATA),
    "quadratic": (Quadratic(), (-1, 1), form(6)),
    "quadratic of bits": (Quadratic(), (0, 1), form(6)),
}


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.slow
def test_the_closed_form_of_a_toy_is_the_sum_over_all_paths(toy):
    objective, states, batch = TOYS[toy]
    noise = NOISES[list(TOYS).index(toy) % len(NOISES)]
    network = SBN((Logits(6, noise),), objective, states)
    params = ({"bias": jnp.array([-0.9, -0.3, 0.0, 0.2, 0.5, 0.8])}, ())
    one, two = (
        value_and_gradient(route, network, params, batch)
        for route in (exact.closed_form, exact.brute_force)
    )
    assert relative(one, two) < 1e-12
    assert np.linalg.norm(flat(one[1])) > 1e-3
    assert exact.expected_loss(network, params, batch) == pytest.approx(float(one[0]), rel=1e-12)


@pytest.mark.slow
def test_the_closed_form_reads_inputs_and_averages_over_examples_too():
    network = SBN((Dense(2, 3, "normal"),), Distance((0.2, 0.4, 0.9)), (0, 1))
    params = network.init(jax.random.key(0))
    batch = (jax.random.normal(jax.random.key(1), (4, 2)), jnp.zeros(4))
    one, two = (
        value_and_gradient(route, network, params, batch)
        for route in (exact.closed_form, exact.brute_force)
    )
    assert relative(one, two) < 1e-12


@pytest.mark.slow
def test_a_network_of_two_layers_has_no_closed_form():
    network = SBN((Dense(2, 3), Dense(3, 2)), Polynomial((1.0, 0.5)))
    batch = (jnp.ones((1, 2)), jnp.zeros(1))
    found = exact_gradient(network, network.init(jax.random.key(0)), batch)
    assert found.route == "recursion" and found.agreement["brute force"] < 1e-12


class WithoutItsVariance(Quadratic):
    """The planted bug: the expectation of a quadratic form is not its value at the mean."""

    def expected(self, theta, p, values, target):
        low, high = values
        return self(theta, low + (high - low) * p, target)


@pytest.mark.slow
def test_a_wrong_closed_form_is_refused():
    params, batch = ({"bias": jnp.full(4, 0.5)}, ()), form(4)
    assert exact_gradient(SBN((Logits(4),), Quadratic()), params, batch).route == "closed_form"
    with pytest.raises(GradbenchError, match="the two routes to the exact gradient differ by"):
        exact_gradient(SBN((Logits(4),), WithoutItsVariance()), params, batch)


@pytest.mark.slow
def test_the_toy_of_rebar_has_a_gradient_as_small_as_its_target_is_even():
    gradients = {}
    for problem in load_suite("toy").problems:
        if problem.base == "distance":
            built = build(problem)
            found = exact_gradient(built.network, built.initial(), built.batch)
            (units,) = found.gradient[0]["bias"].shape
            (target,) = problem.network.objective.distance
            assert found.route == "closed_form"
            assert found.value == pytest.approx(((1 - target) ** 2 + target**2) / 2, rel=1e-12)
            assert found.gradient[0]["bias"] == pytest.approx((1 - 2 * target) / 4 / units)
            gradients[units, target] = found.gradient
    assert set(gradients) == {(n, t) for n in (1, 200) for t in (0.45, 0.49, 0.499)}


@pytest.mark.parametrize(("variant", "logit"), [("even", 0.0), ("logit-4", -4.0)])
@pytest.mark.first(1)
def test_the_three_bits_share_one_logit(variant, logit):
    (problem,) = [p for p in load_suite("toy").problems if p.name == f"three-bits[{variant}]"]
    built = build(problem)
    params = built.initial()
    assert [leaf.tolist() for leaf in jax.tree.leaves(params)] == [[logit]]
    found = exact_gradient(built.network, params, built.batch)
    slope = float(NOISE["logistic"].pdf(jnp.array(logit)))
    assert found.gradient[0]["bias"][0] == pytest.approx(slope * (3 - 2 * (0.6 + 0.51 + 0.48)))


@pytest.mark.slow
def test_the_p_norm_toys_are_those_of_reinmax():
    problems = [p for p in load_suite("toy").problems if p.base == "p-norm"]
    assert [p.network.objective.power for p in problems] == [1.5, 2, 3]
    for problem in problems:
        built, power = build(problem), problem.network.objective.power
        found = exact_gradient(built.network, built.initial(), built.batch)
        expected = (0.55**power - 0.45**power) / 4 / 128
        assert found.gradient[0]["bias"] == pytest.approx(np.full(128, expected))


@pytest.mark.slow
def test_estimators_have_their_claimed_means_on_the_toys():
    built = build(load_problem("three-bits"))
    params, batch = built.initial(), built.batch
    truth = exact_gradient(built.network, params, batch).gradient
    for make in (reinforce, psa, straight_through):
        found = exact.moments(make(built.network), params, batch)
        assert relative(found.mean, truth) < 1e-10  # straight-through: even, so without bias
    moved = ({"bias": jnp.full(1, 0.7)}, ())
    truth = exact_gradient(built.network, moved, batch).gradient
    mean = exact.moments(straight_through(built.network), moved, batch).mean
    assert relative(exact.moments(psa(built.network), moved, batch).mean, truth) < 1e-10
    p = 1 / (1 + np.exp(-0.7))  # f' = 2(b - t) per bit, and the density p(1 - p)
    assert flat(mean)[0] == pytest.approx(p * (1 - p) * 2 * (3 * p - 1.59))
    assert relative(mean, truth) > 0.1


def test_the_random_form_is_symmetric_and_drawn_anew_for_every_seed():
    _, (target,) = form(8)
    assert target.shape == (8, 9) and np.array_equal(target[:, :8], target[:, :8].T)
    assert np.array_equal(target, form(8)[1][0])
    assert not np.array_equal(target, form(8, seed=1)[1][0])


def test_logits_read_nothing_and_are_the_pre_activations():
    layer = Logits(3, "normal", value=0.5)
    theta = layer.init(jax.random.key(0))
    assert layer(theta, jnp.zeros(0)).tolist() == [0.5] * 3 == theta["bias"].tolist()
    shared = Logits(3, shared=True)
    assert shared.init(jax.random.key(0))["bias"].shape == (1,)
    assert shared({"bias": jnp.ones(1)}, jnp.zeros(0)).tolist() == [1.0] * 3
    assert Logits(2).init(jax.random.key(0))["bias"].dtype == jnp.result_type(float)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Logits(0), "a layer of logits got .0,.; give whole numbers of at least 1"),
        (lambda: Logits(2)({"bias": jnp.ones(1)}, jnp.zeros(0)), "give a bias of shape .2,."),
        (lambda: Logits(2)({}, jnp.zeros(0)), "got parameters of shapes {}; give a bias"),
        (lambda: Logits(2)({"bias": jnp.ones(2)}, jnp.zeros(3)), "a layer that reads .0,. got an"),
        (lambda: SBN((Dense(2, 3), Logits(3)), Readout(3, 1)), "3 units but the next expects 0"),
        (lambda: Distance((0.5,), 0.5), "the power of a distance is 0.5; give at least 1"),
        (lambda: Distance((0.5, 0.1))((), jnp.ones(3), None), "got 3 units and a target of 2 num"),
        (lambda: Quadratic()((), jnp.ones(3), jnp.ones(3)), "give a matrix with c as its last col"),
    ],
)
def test_what_makes_no_toy_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        make()


PROBLEM = """\
title = "A toy"
[data]
name = "nothing"
[network]
hidden = [{ logits = 2 }]
states = [0, 1]
objective = { distance = [0.45] }
initialisation = "own"
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "distance =",
            "distanze =",
            "unknown key network.objective.distanze; did you mean 'dist",
        ),
        ("[0.45]", "0.45", "network.objective.distance is 0.45; give a list, in square brackets"),
        (
            "[0.45]",
            "[0.45], power = 0.5",
            "network.objective.power is 0.5; give a finite number",
        ),
        ("[0.45]", "[0.45], total = 1", "network.objective.total is 1; give true or false"),
        ("[0.45]", "[0.1, 0.2, 0.3]", "a distance got 2 units and a target of 3 numbers; give one"),
        ("logits = 2", "logits = 0", "network.hidden[0].logits is 0; give a whole number of at"),
        ("{ logits = 2 }", "2", "the data have no inputs; make the first layer one of logits"),
        ("nothing", "overlapping_classes", "a layer of logits reads nothing and got 2 inputs; mak"),
        (
            "states",
            "outputs = 2\nstates",
            "network.outputs is 2, which the objective 'distance' ha",
        ),
        (
            "states",
            'kl = "sampled"\nstates',
            "network.kl is 'sampled', which the objective 'dista",
        ),
        (
            '"own"',
            '"own"\nweights = {}',
            "the objective 'distance' has no binary weights; take ou",
        ),
        ('"own"', '"normalised"', "the initialisation got Logits, which has no known moments"),
        ("{ distance = [0.45] }", '"quadratic"', "a quadratic objective got 2 units and a target"),
        (
            "states = [0, 1]\nobjective = { distance = [0.45] }",
            'objective = "elbo"',
            "the objective 'elbo' got the layer 'logits', which has no decoder; give dense layers",
        ),
        (
            '{ distance = [0.45] }\ninitialisation = "own"',
            '"logistic_loss"\nweights = {}',
            "the layer 'logits' has no binary weights; take out network.weights",
        ),
        ("{ distance = [0.45] }", '"distance"', "write it as a table with the key distance"),
        ("{ distance = [0.45] }", '"distanze"', 'network.objective is "distanze"; did you mean'),
    ],
)
def test_what_is_wrong_in_the_file_of_a_toy_is_told_in_a_sentence(tmp_path, old, new, sentence):
    assert old in PROBLEM
    path = write(tmp_path, toy=PROBLEM.replace(old, new)).parent / "toy.toml"
    with pytest.raises(GradbenchError) as error:
        built = build(load_problem(path))
        exact_gradient(built.network, built.initial(), built.batch)
    assert sentence in str(error.value)


def test_the_polynomial_of_toml_is_that_of_its_coefficients(tmp_path):
    objective = "{ polynomial = [2, 0, 1], total = true }"
    text = PROBLEM.replace("{ distance = [0.45] }", objective).replace("[0, 1]", "[-1, 1]")
    built = build(load_problem(write(tmp_path, toy=text).parent / "toy.toml"))
    assert built.network.objective == Polynomial((2.0, 0.0, 1.0), True)
    x = jnp.array([0.5, -2.0])
    assert built.network.objective((), x, None) == pytest.approx(float(jnp.sum(2 * x + x**3)))
