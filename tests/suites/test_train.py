"""Training is plain stochastic gradient descent; problems begin as their description says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from conftest import flat, random_batch, random_params, relative
from tiny import changed

from gradbench import exact
from gradbench.core.errors import GradbenchError
from gradbench.estimators import make_estimator
from gradbench.models.network import dense_network
from gradbench.suites.initialise import get_initialisation
from gradbench.suites.instance import build
from gradbench.suites.read_problem import load_problem
from gradbench.suites.suite import load_suite
from gradbench.suites.train import OPTIMISERS, train

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

SIZES = (2, 3, 1)
NETWORK = dense_network(SIZES)
PSA, REINFORCE = (make_estimator(name, NETWORK) for name in ("psa", "reinforce"))
KEY = jax.random.key(5)
draw = jax.jit(jax.grad(PSA))


def trained(checkpoints, loss=PSA, batch=4, rate=0.1, optimiser="sgd", momentum=0.9):
    """Epochs and parameters, from fixed initial parameters on ten points."""
    params, data = random_params(SIZES), random_batch(2, examples=10)
    optimiser = OPTIMISERS[optimiser](rate, momentum)
    return dict(train(loss, params, data, KEY, optimiser, batch, checkpoints))


@pytest.mark.slow
def test_training_equals_a_plain_loop_of_gradient_descent_with_momentum():
    params, (inputs, targets) = random_params(SIZES), random_batch(2, examples=10)
    velocity = jax.tree.map(np.zeros_like, params)
    for epoch in range(3):
        shuffle, draws = jax.random.split(jax.random.fold_in(KEY, epoch))
        order = jax.random.permutation(shuffle, 10)
        for step, key in enumerate(jax.random.split(draws, 2)):  # two of the ten are left out
            rows = order[4 * step : 4 * step + 4]
            gradient = draw(params, key, (inputs[rows], targets[rows]))
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
            params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
    assert relative(trained((3,))[3], params) < 1e-12


@pytest.mark.slow
def test_without_momentum_a_step_goes_along_the_gradient_of_one_draw():
    params, data = random_params(SIZES), random_batch(2, examples=10)
    (key,) = jax.random.split(jax.random.split(jax.random.fold_in(KEY, 0))[1], 1)
    rows = jax.random.permutation(jax.random.split(jax.random.fold_in(KEY, 0))[0], 10)
    gradient = draw(params, key, jax.tree.map(lambda leaf: leaf[rows], data))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert relative(trained((1,), batch=10, momentum=0.0)[1], expected) < 1e-13


@pytest.mark.slow
def test_checkpoints_asked_for_do_not_change_the_course():
    some, others, one = trained((0, 1, 3)), trained((2, 3)), trained((3,))
    assert list(some) == [0, 1, 3] and list(others) == [2, 3]
    for run in (some, others):
        np.testing.assert_array_equal(flat(run[3]), flat(one[3]))


@pytest.mark.slow
def test_epoch_zero_is_the_initial_parameters_and_every_epoch_changes_them():
    run = trained((0, 1, 2))
    np.testing.assert_array_equal(flat(run[0]), flat(random_params(SIZES)))
    assert all((flat(a) != flat(b)).all() for a, b in itertools.pairwise(run.values()))


@pytest.mark.slow
def test_adam_is_that_of_optax():
    params, data = random_params(SIZES), random_batch(2, examples=10)
    shuffle, draws = jax.random.split(jax.random.fold_in(KEY, 0))
    rows = jax.random.permutation(shuffle, 10)
    (key,) = jax.random.split(draws, 1)
    gradient = draw(params, key, jax.tree.map(lambda leaf: leaf[rows], data))
    adam = optax.adam(0.1, b1=0.9)
    updates, _ = adam.update(gradient, adam.init(params), params)
    expected = optax.apply_updates(params, updates)
    run = trained((1,), batch=10, optimiser="adam")
    assert relative(run[1], expected) < 1e-12


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(GradbenchError, match="batch of 11 is larger than the 10 examples"):
        trained((1,), batch=11)


@pytest.mark.slow
def test_divergence_is_refused_after_the_checkpoints_before_it():
    network = dense_network(SIZES, "squared_error")
    params, (inputs, targets) = random_params(SIZES), random_batch(2, examples=10)
    data = (inputs, targets[:, None])
    loss, sgd = make_estimator("psa", network), OPTIMISERS["sgd"](1e9, 0.9)
    run = train(loss, params, data, KEY, sgd, 2, (0, 100))
    assert next(run)[0] == 0
    with pytest.raises(GradbenchError, match="not finite by epoch 100; lower the rate"):
        next(run)


@pytest.mark.parametrize("loss", [PSA, REINFORCE], ids=["psa", "reinforce"])
@pytest.mark.slow
def test_training_lowers_the_exact_loss(loss):
    data = random_batch(2, examples=10)
    run = trained((0, 200), loss=loss, rate=0.03)
    before, after = (float(exact.expected_loss(NETWORK, params, data)) for params in run.values())
    assert after < before - 0.05


# --- binary weights ---

WEIGHTS = """\
title = "Binary weights"

[data]
name = "overlapping_classes"
points = 10

[network]
hidden = [2]
noise = "triangular"
objective = "logistic_loss"
initialisation = "uniform"

[network.weights]
noise = "uniform"

[training]
estimator = "nested(weights='straight_through(proxy=\\"identity\\")', activations='psa')"
rate = 0.1
momentum = 0.9
batch = 4
checkpoints = [0, 2, 20]

[training.weights]
optimiser = "mirror_descent"
rate = 1.5
"""


@pytest.fixture
def problem_of(tmp_path):
    """Makes the problem of WEIGHTS with parts replaced, so that each is there."""

    def problem_of(*changes):
        (tmp_path / "mine.toml").write_text(changed(WEIGHTS, *changes))
        return load_problem(tmp_path / "mine.toml")

    return problem_of


STEPS = {  # of latent weights, by the optimiser and the noise
    ("mirror_descent", "uniform"): lambda eta, g: np.clip(eta - 1.5 * g, -1, 1),
    # p' / (1 - p') = p / (1 - p) exp(-rate g) in p = (1 + eta) / 2
    ("exponentiated_gradient", "uniform"): lambda eta, g: np.tanh(np.arctanh(eta) - 0.75 * g),
    ("sgd", "logistic"): lambda eta, g: eta - 1.5 * g,
}
NESTED = WEIGHTS.partition("estimator = ")[2].partition("\n")[0]


@pytest.mark.parametrize(("optimiser", "noise"), STEPS)
@pytest.mark.slow
def test_training_of_binary_weights_equals_a_plain_loop_and_biases_go_their_own_way(
    problem_of, optimiser, noise
):
    changes = [("mirror_descent", optimiser), ('"uniform"\n\n[tr', f'"{noise}"\n\n[tr')]
    spec = "nested(weights='straight_through(proxy=\"identity\")', activations='psa')"
    if optimiser == "sgd":
        spec = "nested(weights='straight_through', activations='psa')"
        changes.append((NESTED, f'"{spec}"'))
    built = build(problem_of(*changes, ('"uniform"\n\n[net', '"uniform"\nscale = 0.9\n\n[net')))
    gradient_of = jax.jit(jax.grad(make_estimator(spec, built.network)))

    params, key = built.initial(), built.key("training")
    velocity = [np.zeros_like(theta["bias"]) for theta in params]
    for epoch in range(2):
        shuffle, draws = jax.random.split(jax.random.fold_in(key, epoch))
        order = jax.random.permutation(shuffle, 10)
        for step, draw_key in enumerate(jax.random.split(draws, 2)):
            rows = order[4 * step : 4 * step + 4]
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], built.data)
            gradient = gradient_of(params, draw_key, batch)
            velocity = [0.9 * v + g["bias"] for v, g in zip(velocity, gradient, strict=True)]
            params = tuple(
                {
                    "weight": STEPS[optimiser, noise](theta["weight"], g["weight"]),
                    "bias": theta["bias"] - 0.1 * v,
                }
                for theta, g, v in zip(params, gradient, velocity, strict=True)
            )
    initial, trained = itertools.islice(built.checkpoints(), 2)
    np.testing.assert_array_equal(flat(initial), flat(built.initial()))
    assert relative(trained, params) < 1e-12
    assert relative(initial, params) > 0.1


@pytest.mark.slow
def test_bop_flips_the_weights_of_a_problem_without_noise_and_no_more(problem_of):
    """At the given threshold; at a large one no weight flips."""
    spec = "nested(weights='deterministic_straight_through(proxy=\"identity\")', activations='psa')"
    literal = '"' + spec.replace('"', '\\"') + '"'

    def weights(threshold):
        bop = [("mirror_descent", "bop"), ("rate = 1.5", f"rate = 0.1\nthreshold = {threshold}")]
        built = build(problem_of((NESTED, literal), *bop))
        return [
            np.concatenate([np.ravel(theta["weight"]) for theta in params])
            for params in built.checkpoints()
        ]

    first, *_, last = weights("1e-6")
    assert np.any(last == -first)
    np.testing.assert_array_equal(np.abs(last), np.abs(first))
    first, *_, last = weights("1e3")
    np.testing.assert_array_equal(last, first)


@pytest.mark.slow
def test_latent_weights_of_bounded_noise_stay_in_its_support(problem_of):
    """Steps of 1.5 leave [-1, 1] at once where they are not clipped."""
    weights = [
        np.concatenate([np.ravel(theta["weight"]) for theta in params])
        for params in build(problem_of()).checkpoints()
    ]
    assert np.abs(weights).max() == 1.0
    assert np.abs(weights[1]).max() == 1.0 and np.abs(weights[0]).max() < 1.0


@pytest.mark.slow
def test_without_an_optimiser_of_their_own_weights_are_trained_as_biases_are(problem_of):
    text = WEIGHTS[WEIGHTS.index("\n[training.weights]") :]
    problem = problem_of((text, ""), (NESTED, '"straight_through"'), ("[0, 2, 20]", "[1]"))
    built = build(problem)
    (trained,) = built.checkpoints()
    loss = make_estimator("straight_through", built.network)
    sgd = OPTIMISERS["sgd"](0.1, 0.9)
    run = train(loss, built.initial(), built.data, built.key("training"), sgd, 4, (1,))
    np.testing.assert_array_equal(flat(trained), flat(next(run)[1]))


TRAINING_OF_WEIGHTS = WEIGHTS[WEIGHTS.index("\n[training.weights]") :]
MISMATCHES = {
    "unknown": (
        [("mirror_descent", "mirror_decent")],
        'mine.toml, line 24: training.weights.optimiser is "mirror_decent"; did you mean '
        "'mirror_descent'?",
    ),
    "no weights": (
        [('[network.weights]\nnoise = "uniform"\n', ""), (NESTED, '"psa"')],
        "training.weights is there without network.weights; take it out",
    ),
    "identity with sgd": (
        [("mirror_descent", "sgd")],
        "the optimiser 'sgd' of weights reads dE/deta but the estimator is",
    ),
    "no identity": (
        [(NESTED, "\"nested(weights='straight_through', activations='psa')\"")],
        "the optimiser 'mirror_descent' of weights reads dE/dw but the estimator is",
    ),
    "default without identity": (
        [(NESTED, '"nested"'), ("mirror_descent", "exponentiated_gradient")],
        "the optimiser 'exponentiated_gradient' of weights reads dE/dw but the estimator is "
        "\"nested(activations='psa', weights='straight_through')\"; take straight_through with "
        "proxy='identity'",
    ),
    "density": (
        [(NESTED, "\"straight_through(proxy='density')\"")],
        "the optimiser 'mirror_descent' of weights reads dE/dw but the estimator is "
        "\"straight_through(proxy='density')\"; take straight_through with proxy='identity'",
    ),
    "identity alone with sgd": (
        [(NESTED, "\"straight_through(proxy='identity')\""), ("mirror_descent", "sgd")],
        "the optimiser 'sgd' of weights reads dE/deta but the estimator is "
        "\"straight_through(proxy='identity')\"; take straight_through without proxy='identity'",
    ),
    "proximal_kl": (
        [("mirror_descent", "proximal_kl")],
        "proximal_kl got weights with uniform noise; take logistic noise",
    ),
    "strength": (
        [("rate = 1.5", "rate = 1.5\nstrength = 0.1")],
        "the optimiser 'mirror_descent' of weights got strength = 0.1; take it out, or take "
        "proximal_kl",
    ),
    "threshold": (
        [("rate = 1.5", "rate = 1.5\nthreshold = 0.1")],
        "the optimiser 'mirror_descent' of weights got threshold = 0.1; take it out, or take bop",
    ),
    "bop without identity": (
        [(NESTED, '"nested"'), ("mirror_descent", "bop")],
        "the optimiser 'bop' of weights reads dE/dw but the estimator is",
    ),
    "rate of bop": (
        [("mirror_descent", "bop")],
        "the rate is 1.5; give a number above 0 and at most 1",
    ),
    "real units": (
        [
            ('noise = "uniform"', 'noise = "uniform"\nactivation = "tanh"'),
            ('noise = "triangular"\n', ""),
        ],
        "nested() got a model without binary weights under stochastic activations; take",
    ),
    "nested without weights": (
        [('[network.weights]\nnoise = "uniform"\n', ""), (TRAINING_OF_WEIGHTS, "")],
        "nested() got a model without binary weights under stochastic activations; take",
    ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_training_that_does_not_fit_binary_weights_is_refused_in_one_sentence(problem_of, name):
    changes, sentence = MISMATCHES[name]
    with pytest.raises(GradbenchError) as caught:
        build(problem_of(*changes))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert "problem 'mine': " in str(caught.value) or "mine.toml, line" in sentence


# --- initial parameters ---


def grid():
    """Inputs whose features are independent, of another mean and scale each: [64, 3]."""
    sides = [np.array([0.0, 1.0, 3.0, 8.0]) * scale + scale for scale in (0.1, 1.0, 30.0)]
    return np.array(list(itertools.product(*sides)))


@pytest.mark.parametrize("states", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("name", ["normalised", "fixed_scale"])
@pytest.mark.first(1)
@pytest.mark.slow
def test_normalised_pre_activations_have_mean_zero_and_the_standard_deviation_asked_for(
    name, states
):
    """Over the data in the first layer, over fair states above: exact for independent inputs."""
    network = dense_network((3, 4, 5, 2), "squared_error", states=states)
    params = get_initialisation(name)(network, KEY, grid(), 1.7)
    inputs = grid()
    for theta in params if name == "fixed_scale" else params[:-1]:
        a = inputs @ theta["weight"].T + theta["bias"]
        np.testing.assert_allclose(a.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(a.std(axis=0), 1.7, rtol=1e-12)
        inputs = np.array(list(itertools.product(states, repeat=a.shape[1])))


@pytest.mark.slow
def test_normalisation_keeps_the_directions_and_the_output_layer():
    network = dense_network((3, 4, 5, 2), "squared_error")
    drawn, params = network.init(KEY), get_initialisation("normalised")(network, KEY, grid(), 0.5)
    for before, after in zip(drawn[:-1], params[:-1], strict=True):
        ratio = np.asarray(after["weight"] / before["weight"])
        np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones_like(ratio), rtol=1e-12)
        assert (ratio > 0).all()
    np.testing.assert_array_equal(flat(params[-1]), flat(drawn[-1]))


def test_uniform_parameters_fill_the_interval_asked_for():
    network = dense_network((30, 40, 1))
    values = flat(get_initialisation("uniform")(network, KEY, np.zeros((1, 30)), 2.0))
    assert -2 <= values.min() < -1.98 and 1.98 < values.max() <= 2
    assert abs(values.mean()) < 5 * 2 / np.sqrt(3 * values.size)


def test_inputs_without_any_spread_cannot_be_normalised():
    network = dense_network((2, 3, 1))
    with pytest.raises(GradbenchError, match="all 7 examples are equal"):
        get_initialisation("normalised")(network, KEY, np.full((7, 2), 0.1), 1.0)


def test_an_input_that_never_varies_does_no_harm():
    """As the pixels in the corners of the digits."""
    inputs = grid()
    inputs[:, 1] = 0.0
    network = dense_network((3, 4, 1))
    theta = get_initialisation("normalised")(network, KEY, inputs, 1.0)[0]
    a = inputs @ theta["weight"].T + theta["bias"]
    np.testing.assert_allclose([a.mean(axis=0), a.std(axis=0) - 1], 0, atol=1e-12)


def test_unknown_names_get_help():
    with pytest.raises(GradbenchError, match="did you mean 'normalised'"):
        get_initialisation("normalized")


# --- problems ---


def test_the_problem_psa_is_that_of_the_paper():
    built = build(load_problem("psa"))
    training = built.problem.training
    assert [(x.inputs, x.outputs, x.noise) for x in built.network.layers] == [
        (2, 5, "logistic"),
        (5, 5, "logistic"),
        (5, 5, "logistic"),
    ]
    assert built.network.states == (0, 1)
    assert (built.network.objective.outputs, built.network.objective.loss) == (1, "logistic_loss")
    assert (training.estimator, training.rate, training.momentum) == ("reinforce", 0.03, 0.9)
    assert (training.batch, training.optimiser, training.checkpoints) == (10, "sgd", (1, 100, 2000))
    inputs, targets = built.batch
    assert inputs.shape == (200, 2) and inputs.dtype == np.float64
    assert sorted(set(np.asarray(targets))) == [-1, 1] and float(jnp.sum(targets)) == 0
    np.testing.assert_array_equal(built.data[0], inputs)
    np.testing.assert_array_equal(built.data[1], targets)


@pytest.mark.slow
def test_what_a_problem_draws_depends_on_seed_replicate_and_its_name_alone():
    problem = load_problem("quick")
    built = build(problem, seed=3, replicate=1)
    again = build(problem, seed=3, replicate=1)
    np.testing.assert_array_equal(flat(again.initial()), flat(built.initial()))
    np.testing.assert_array_equal(again.batch[0], built.batch[0])
    for other in (build(problem, 3, 0), build(problem, 2, 1)):
        assert (flat(other.initial()) != flat(built.initial())).all()
        assert (np.asarray(other.batch[0]) != np.asarray(built.batch[0])).all()
        assert (jax.random.key_data(other.key("x")) != jax.random.key_data(built.key("x"))).any()
    assert (jax.random.key_data(built.key("x")) != jax.random.key_data(built.key("y"))).any()


def test_variants_share_data_initial_parameters_and_noise_and_values_of_a_sweep_do_not(tmp_path):
    variants = '[variants.slow]\n"training.rate" = 0.01\n[variants.bare]\n'
    sweep = '[sweep]\nby = "rate"\n"training.rate" = [0.01, 0.02]\n'
    shared = {}
    for name, text in (("variants", variants), ("sweep", sweep)):
        suite = load_suite(tiny.write(tmp_path / name, tiny.SUITE + text))
        one, two = (build(problem) for problem in suite.problems)
        assert one.problem.name != two.problem.name
        np.testing.assert_array_equal(one.data[0], two.data[0])
        keys = [jax.random.key_data(built.key("draws at epoch 10")) for built in (one, two)]
        shared[name] = {bool((keys[0] == keys[1]).all())}
        shared[name] |= {bool((flat(one.initial()) == flat(two.initial())).all())}
    assert shared == {"variants": {True}, "sweep": {False}}
    plain = build(load_problem(tmp_path / "variants" / "tiny.toml"))
    slow = build(load_suite(tmp_path / "variants" / "suite.toml").problems[0])
    np.testing.assert_array_equal(flat(slow.initial()), flat(plain.initial()))
