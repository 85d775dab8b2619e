"""From the description of a network, in a TOML file, to its layers and initial parameters."""

import json
import re
from dataclasses import asdict
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import NOISES, flat
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import changed

from gradbench.cli.show import show
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import label
from gradbench.exact.enumeration import expected_loss
from gradbench.metrics import summary
from gradbench.metrics.directory import unfinished
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.compose import Compose
from gradbench.models.conv import AveragePool, Conv, ConvForm
from gradbench.models.dense import Dense, DenseForm
from gradbench.models.elbo import ELBO
from gradbench.models.layer import axes
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, RealNetwork
from gradbench.plots.suite import plot
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.config import Document
from gradbench.suites.initialise import get_initialisation
from gradbench.suites.instance import build
from gradbench.suites.networks import ACTIVATIONS
from gradbench.suites.problem import Problem
from gradbench.suites.read_problem import load_problem, read_problem
from gradbench.suites.runner import run

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

KEY = jax.random.key(3)
exact_loss = jax.jit(expected_loss, static_argnums=0)

PROBLEM = """\
title = "Bits of digits"

[data]
name = "binary_digits"
examples = 8

[network]
inputs = [8, 8, 1]
hidden = [2]
outputs = 64
objective = "bernoulli_likelihood"
initialisation = "fan_in"
"""


def load(folder, *changes):
    """The problem of a file, with parts of PROBLEM replaced."""
    (folder / "mine.toml").write_text(changed(PROBLEM, *changes))
    return load_problem(folder / "mine.toml")


def refusal(folder, *changes):
    """The sentence about a file, or about the problem that is built of it."""
    with pytest.raises(GradbenchError) as caught:
        build(load(folder, *changes))
    sentence = str(caught.value).replace(f"{folder}/", "")
    assert "\n" not in sentence
    return sentence


def hidden(text):
    return ("hidden = [2]", f"hidden = {text}")


def network_of(folder, *changes):
    return build(load(folder, *changes)).network


# --- layers ---


def test_hidden_layers_are_read_as_they_are_written(tmp_path):
    problem = load(
        tmp_path,
        hidden(
            "[{ conv = 1, kernel = 3, stride = 2, padding = 1, pool = 2 }, { conv = 2 }, 5, "
            "{ dense = 8, through = [16, 4] }, { dense = 3 }]"
        ),
    )
    assert problem.network.hidden == (
        ConvForm(1, kernel=3, stride=2, padding=1, pool=2),
        ConvForm(2, kernel=3, stride=1, padding=0, pool=1),
        5,
        DenseForm(8, through=(16, 4)),
        DenseForm(3),
    )
    assert json.loads(json.dumps(asdict(problem)))["network"]["hidden"][3] == {
        "dense": 8,
        "through": [16, 4],
    }


def test_the_network_has_the_layers_and_shapes_of_its_description(tmp_path):
    network = network_of(
        tmp_path,
        hidden(
            "[{ conv = 1, kernel = 3, padding = 1, pool = 2 }, { conv = 2, kernel = 2, stride = 2 "
            "}, { dense = 3, through = [5] }, { dense = 4 }, 2]"
        ),
        ("[8, 8, 1]", '[8, 8, 1]\nnoise = "normal"\nstates = [0, 1]'),
    )
    pooled, conv, through, *dense = network.layers
    assert pooled == Compose(
        (AveragePool(2), Conv((4, 4, 1), 1, 3, 1, 1, "normal")), inputs=(8, 8, 1)
    )
    assert conv == Conv((4, 4, 1), 2, 2, 2, 0, "normal")
    assert through.parts == (Dense(8, 5, "normal"), jnp.tanh, Dense(5, 3, "normal"))
    assert dense == [Dense(3, 4, "normal"), Dense(4, 2, "normal")]
    shapes = [axes(layer.outputs) for layer in network.layers]
    assert shapes == [(4, 4, 1), (2, 2, 2), (3,), (4,), (2,)]
    assert network.objective == Readout(2, 64, "bernoulli_likelihood")
    assert network.states == (0, 1)


def test_the_inputs_have_the_shape_asked_for_and_the_same_numbers(tmp_path):
    flat_, shaped = (
        build(load(tmp_path, ("inputs = [8, 8, 1]\n", inputs)))
        for inputs in ("", "inputs = [4, 8, 2]\n")
    )
    assert flat_.batch[0].shape == (8, 64) and shaped.batch[0].shape == (8, 4, 8, 2)
    np.testing.assert_array_equal(shaped.data[0].reshape(8, 64), flat_.data[0])
    np.testing.assert_array_equal(shaped.batch[1], flat_.batch[1])


@pytest.mark.slow
def test_pooling_comes_before_the_convolution(tmp_path):
    built = build(load(tmp_path, hidden("[{ conv = 2, kernel = 2, stride = 2, pool = 3 }]")))
    image = built.batch[0][0]
    means = np.asarray(image)[:6, :6].reshape(2, 3, 2, 3, 1).mean(axis=(1, 3))
    theta = built.initial()[0]
    expected = np.einsum("ohwc,hwc->o", theta[1]["weight"], means) + theta[1]["bias"]
    np.testing.assert_allclose(built.network.layers[0](theta, image).ravel(), expected, rtol=1e-12)


# --- any description ---


@st.composite
def chains(draw):
    """Inputs of 64 numbers, hidden layers for them, and the shapes that these must have."""
    shape = tuple(draw(st.sampled_from([[8, 8, 1], [4, 4, 4], [16, 4], [64]])))
    inputs, layers, shapes = list(shape), [], []
    for _ in range(draw(st.integers(0, 2)) if len(shape) > 1 else 0):
        pool, padding = draw(st.integers(1, 2)), draw(st.integers(0, 1))
        space = [n // pool + 2 * padding for n in shape[:-1]]
        assume(min(shape[:-1]) >= pool)
        kernel = draw(st.integers(1, min(3, *space)))
        stride, channels = draw(st.integers(1, 5)), draw(st.integers(1, 2))
        shape = (*((n - kernel) // stride + 1 for n in space), channels)
        layer = {"conv": channels, "kernel": kernel, "stride": stride, "padding": padding}
        layers.append(layer | ({"pool": pool} if pool > 1 else {}))
        shapes.append(shape)
    for units in draw(st.lists(st.integers(1, 4), min_size=not layers, max_size=2)):
        through = draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
        dense = {"dense": units, "through": through}
        layers.append(draw(st.sampled_from([units, {"dense": units}, dense])))
        shapes.append((units,))
    assume(max(map(prod, shapes)) <= 8)
    return inputs, layers, shapes


def described(inputs, layers, objective="bernoulli_likelihood", **more):
    """The problem of these layers on eight digits, and that its description survives JSON."""
    network = {"inputs": inputs, "hidden": layers, "objective": objective}
    if objective != "elbo":
        network["outputs"] = 64
    values = {
        "title": "Any",
        "data": {"name": "binary_digits", "examples": 8},
        "network": network | {"initialisation": "fan_in"} | more,
    }
    problem = read_problem("any", Document("any.toml", values))
    again = json.loads(json.dumps(values))
    assert problem == read_problem("any", Document("any.toml", again))
    assert isinstance(problem, Problem)
    json.dumps(asdict(problem), allow_nan=False)
    return problem


def assert_finite(built):
    params = built.initial()
    loss = exact_loss(built.network, params, built.batch)
    assert np.isfinite(loss) and np.isfinite(flat(params)).all()


@given(chain=chains(), noise=st.sampled_from(NOISES), zero_one=st.booleans())
@settings(max_examples=5)
@pytest.mark.slow
def test_every_chain_is_built_with_its_shapes_and_has_a_finite_exact_loss(chain, noise, zero_one):
    inputs, layers, shapes = chain
    states = [0, 1] if zero_one else [-1, 1]
    built = build(described(inputs, layers, noise=noise, states=states))
    assert [axes(layer.outputs) for layer in built.network.layers] == shapes
    assert_finite(built)


@given(
    units=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    through=st.lists(st.integers(1, 5), max_size=2),
    kl=st.sampled_from(["closed", "sampled"]),
    noise=st.sampled_from(NOISES[:2]),
)
@settings(max_examples=2)
@pytest.mark.slow
def test_every_elbo_is_built_with_decoders_that_mirror_its_encoder(units, through, kl, noise):
    layers = [{"dense": n, "through": through} if through else n for n in units]
    built = build(described([64], layers, "elbo", kl=kl, noise=noise))
    objective = built.network.objective
    assert isinstance(objective, ELBO) and objective.kl == kl
    for layer, decoder in zip(built.network.layers, objective.decoders, strict=True):
        assert sizes_of(decoder) == sizes_of(layer)[::-1]
    assert_finite(built)


def sizes_of(layer):
    """Units from the input to the output of a perceptron, which all parts between are tanh."""
    parts = layer.parts if isinstance(layer, Compose) else (layer,)
    assert all(part is jnp.tanh for part in parts[1::2])
    return [parts[0].inputs, *(part.outputs for part in parts[::2])]


# --- ELBO ---


def test_an_elbo_of_two_layers_decodes_each_with_its_own_layers_in_reverse(tmp_path):
    network = network_of(
        tmp_path,
        hidden("[{ dense = 4, through = [16, 8] }, { dense = 3, through = [5] }]"),
        ('"bernoulli_likelihood"', '"elbo"\nkl = "sampled"'),
        ("outputs = 64\n", ""),
    )
    assert [sizes_of(layer) for layer in network.layers] == [[64, 16, 8, 4], [4, 5, 3]]
    assert network.objective.kl == "sampled" and network.objective.likelihood == (
        "bernoulli_likelihood"
    )
    assert [sizes_of(decoder) for decoder in network.objective.decoders] == [
        [4, 8, 16, 64],
        [3, 5, 4],
    ]


# --- binary weights ---


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_binary_weights_are_put_on_stochastic_or_real_units(tmp_path, activation):
    text = f'\n[network.weights]\nnoise = "uniform"\nactivation = "{activation}"\n'
    text = text if activation else text.replace('activation = "None"', "")
    network = network_of(tmp_path, ('"fan_in"\n', f'"fan_in"\n{text}'))
    assert isinstance(network, BinaryWeights) and network.noise == "uniform"
    assert network.entries is None  # all layers and the readout
    if activation:
        assert network.network == RealNetwork(
            (Dense(64, 2),), Readout(2, 64, "bernoulli_likelihood"), ACTIVATIONS[activation]
        )
    else:
        assert network.network == SBN((Dense(64, 2),), Readout(2, 64, "bernoulli_likelihood"))
        assert not network.random  # the exact expectation, unless an estimator nests another


def test_what_is_enumerated_is_said_in_words(tmp_path):
    weights = '"fan_in"\n[network.weights]\n'
    conv = hidden("[{ conv = 2, kernel = 4, stride = 4 }, 3]")
    assert build(load(tmp_path, conv)).units == "8-3 hidden units"
    assert build(load(tmp_path, ('"fan_in"\n', weights))).units == (
        "2 hidden units, 256 binary weights"
    )
    real = ('"fan_in"\n', f'{weights}activation = "tanh"\n')
    assert build(load(tmp_path, conv, real)).units == (
        "8-3 real units, 248 binary weights"  # 2 * 16 + 3 * 8 + 64 * 3
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("0", "[0] is 0; give a whole number of at least 1"),
        ("true", "[0] is true; give a whole number of at least 1"),
        ("{}", "[0] is {}; name the layer by one of the keys conv, dense, logits"),
        ("{ dense = 0 }", "[0].dense is 0; give a whole number of at least 1"),
        (
            "{ through = [3] }",
            "[0] is { through = [3] }; name the layer by one of the keys conv, dense, logits",
        ),
        ("{ dense = 2, through = 3 }", "[0].through is 3; give a list, in square brackets"),
        (
            "{ dense = 2, through = [4, 0.5] }",
            "[0].through[1] is 0.5; give a whole number of at least 1",
        ),
        (
            "{ dense = 2, trough = [4] }",
            "unknown key network.hidden[0].trough; did you mean 'through'?",
        ),
        ("{ conv = 1, kernl = 3 }", "unknown key network.hidden[0].kernl; did you mean 'kernel'?"),
        (
            "{ conv = 1, dense = 2 }",
            "[0] is { conv = 1, dense = 2 }; give one of conv and dense",
        ),
        ("{ conv = -1 }", "[0].conv is -1; give a whole number of at least 1"),
        (
            "{ conv = 1, kernel = [3, 3] }",
            "[0].kernel is [3, 3]; give a whole number of at least 1",
        ),
        ("{ conv = 1, stride = 0 }", "[0].stride is 0; give a whole number of at least 1"),
        ("{ conv = 1, padding = -1 }", "[0].padding is -1; give a whole number of at least 0"),
        ('{ conv = 1, pool = "2" }', '[0].pool is "2"; give a whole number of at least 1'),
        ("4, { conv = 1, pool = 1e2 }", "[1].pool is 100.0; give a whole number of at least 1"),
    ],
)
def test_a_wrong_layer_is_told_with_file_line_and_remedy(tmp_path, layer, sentence):
    told = refusal(tmp_path, hidden(f"[{layer}]"))
    place = "network.hidden" if sentence.startswith("[") else ""
    assert told == f"mine.toml, line 9: {place}{sentence}"


ELBO_ = ('outputs = 64\nobjective = "bernoulli_likelihood"', 'objective = "elbo"')
WEIGHTS = ('"fan_in"\n', '"fan_in"\n\n[network.weights]\n')
REFUSED = {
    "inputs": (
        [("[8, 8, 1]", "[8, 4]")],
        "network.inputs is (8, 4) but an input has 64 numbers; give a shape of that size",
    ),
    "conv of a vector": (
        [hidden("[{ conv = 1 }]"), ("inputs = [8, 8, 1]", "")],
        "a convolution got the input shape (64,); give [length, channels] or [height, width, "
        "channels]",
    ),
    "conv after dense": (
        [hidden("[4, { conv = 1 }]")],
        "a convolution got the input shape (4,); give [length, channels] or [height, width, "
        "channels]",
    ),
    "kernel": (
        [hidden("[{ conv = 1, kernel = 9 }]")],
        "the kernel (9, 9) is larger than its padded input (8, 8); make it smaller, or pad the "
        "input",
    ),
    "pool": (
        [hidden("[{ conv = 1, pool = 9 }]")],
        "average pooling over 9 got an input of shape (8, 8, 1); give a window from 1 to 8",
    ),
    "elbo with conv": (
        [hidden("[{ conv = 1 }]"), ELBO_],
        "the objective 'elbo' got the layer 'conv', which has no decoder; give dense layers",
    ),
    "elbo with weights": (
        [ELBO_, WEIGHTS],
        "the objective 'elbo' has no binary weights; take out network.weights",
    ),
    "elbo without bits": (
        [ELBO_, ('"binary_digits"', '"digits"'), ("[8, 8, 1]", "[64]")],
        "bernoulli_likelihood got the target",
    ),
    "activation": (
        [("[network]", '[network]\nweights.activation = "tahn"')],
        "mine.toml, line 8: network.weights.activation is \"tahn\"; did you mean 'tanh'?",
    ),
    "noise of weights": (
        [("[network]", '[network]\nweights.noise = "unifrom"')],
        "mine.toml, line 8: network.weights.noise is \"unifrom\"; did you mean 'uniform'?",
    ),
    "normalised weights": (
        [WEIGHTS, ('"fan_in"', '"normalised"')],
        "the initialisation got BinaryWeights, which has no known moments; take 'fan_in'",
    ),
    "normalised through": (
        [hidden("[{ dense = 2, through = [3] }]"), ('"fan_in"', '"normalised"')],
        "the initialisation got Compose, which has no known moments; take 'fan_in'",
    ),
    "pooled fixed_scale": (
        [hidden("[{ conv = 1, pool = 2 }]"), ('"fan_in"', '"fixed_scale"')],
        "the initialisation got Compose, which has no known moments; take 'fan_in'",
    ),
    "elbo fixed_scale": (
        [ELBO_, ('"fan_in"', '"fixed_scale"')],
        "the initialisation got ELBO, which has no known moments; take 'fan_in'",
    ),
    "data beyond memory": (
        [('"binary_digits"\nexamples = 8', '"quadratic_form"\nunits = 10000000')],
        "Unable to allocate",
    ),
    "states beyond numbers": (
        [("hidden", "states = [-1, 1e200]\nhidden")],
        "the states are (-1.0, 1e+200); give two different numbers of at most 1e+06",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_be_is_refused_with_the_name_or_the_line_of_the_problem(
    tmp_path, name
):
    changes, sentence = REFUSED[name]
    place = "" if sentence.startswith("mine.toml") else "problem 'mine': "
    assert refusal(tmp_path, *changes).startswith(f"{place}{sentence}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([ELBO_, ("hidden", 'kl = "close"\nhidden')], 'line 9: network.kl is "close"; did you'),
        ([("[8, 8, 1]", "[8, 0]")], "line 8: network.inputs[1] is 0; give a whole number of at"),
        ([("[8, 8, 1]", "64")], "line 8: network.inputs is 64; give a list, in square brackets"),
        (
            [WEIGHTS, ("weights]\n", "weights]\nnoize = 1\n")],
            "line 15: unknown key network.weights",
        ),
        (
            [("[network]", "[network]\nweights = 1")],
            "line 8: network.weights is 1; make it a table",
        ),
    ],
)
def test_a_wrong_value_of_the_network_is_told_with_file_and_line(tmp_path, changes, sentence):
    assert refusal(tmp_path, *changes).startswith(f"mine.toml, {sentence}")


# --- initial parameters ---

SIGNS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], float)


def independent_images():
    """Images [4, 2, 1], pixels pairwise uncorrelated, of another mean and scale each."""
    hadamard = np.block([[SIGNS, SIGNS], [SIGNS, -SIGNS]])  # its columns are orthogonal
    images = np.concatenate([hadamard, -hadamard])  # 16 examples of 8 pixels of mean zero
    return (images * np.linspace(0.5, 3, 8) + np.linspace(-1, 4, 8)).reshape(16, 4, 2, 1)


@pytest.mark.parametrize("states", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("name", ["normalised", "fixed_scale"])
@pytest.mark.slow
def test_pre_activations_of_channels_have_mean_zero_and_the_scale_on_the_average_over_positions(
    name, states
):
    first = Conv((4, 2, 1), 2, (3, 2), 1, padding=1)
    second = Conv(first.outputs, 3, 2, 2)
    readout = Readout(prod(second.outputs), 2, "squared_error")
    network = SBN((first, second), readout, states)
    images = independent_images()
    params = get_initialisation(name)(network, KEY, images, 1.7)

    a = jax.vmap(lambda x: first(params[0], x))(images)
    assert_channels(np.mean(a, axis=0), np.var(a, axis=0))
    # Fair states: the mean, and a variance that adds up over the taps of a kernel.
    low, high = states
    for layer, theta in ((second, params[1]), (readout, params[2])):
        if isinstance(layer, Readout):
            if name == "normalised":
                np.testing.assert_array_equal(flat(theta), flat(network.init(KEY)[2]))
                continue
            layer = Dense(layer.inputs, layer.outputs)
        centre = jnp.full(layer.inputs, (low + high) / 2)
        squared = {"weight": theta["weight"] ** 2, "bias": 0 * theta["bias"]}
        variance = layer(squared, jnp.full(layer.inputs, ((high - low) / 2) ** 2))
        assert_channels(layer(theta, centre), variance)


def assert_channels(mean, variance):
    """Statistics of pre-activations, averaged over positions: 0 and 1.7^2."""
    mean, variance = (np.asarray(x).reshape(-1, np.shape(x)[-1]) for x in (mean, variance))
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(variance.mean(axis=0), 1.7**2, rtol=1e-12)


@pytest.mark.slow
def test_normalised_encoders_of_an_elbo_leave_the_decoders(tmp_path):
    built = build(load(tmp_path, ELBO_, ('"fan_in"', '"normalised"')))
    drawn, params = built.network.init(built.key("initial")), built.initial()
    np.testing.assert_array_equal(flat(params[-1]), flat(drawn[-1]))
    a = np.asarray(built.data[0]).reshape(8, 64) @ params[0]["weight"].T + params[0]["bias"]
    np.testing.assert_allclose(a.mean(axis=0), 0, atol=1e-12)


def weights_and_rest(tree):
    """The leaves called "weight", and all others, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
    weights = {name: leaf for name, leaf in named if name.endswith("['weight']")}
    return weights, {name: leaf for name, leaf in named if name not in weights}


@pytest.mark.parametrize("objective", ["elbo", "readout"])
@pytest.mark.slow
def test_fan_in_scales_every_weight_by_what_its_unit_reads_and_has_no_biases(objective):
    dense = [Dense(400, 300), Compose((Dense(300, 50), jnp.tanh, Dense(50, 200)))]
    mirror = (Compose((Dense(300, 400),)), Dense(200, 300))
    network = SBN(tuple(dense), ELBO(mirror))
    if objective == "readout":
        pooled = Compose((AveragePool(2), Conv((10, 10, 4), 64, 5)), inputs=(20, 20, 4))
        network = SBN((pooled,), Readout(prod(pooled.outputs), 3, "squared_error"))
        network = BinaryWeights(network, lambda model: None)
    weights, rest = weights_and_rest(get_initialisation("fan_in")(network, KEY, None, 1.5))
    drawn, _ = weights_and_rest(network.init(KEY))
    assert len(weights) == (5 if objective == "elbo" else 2)
    for name, weight in weights.items():
        bound = 1.5 * np.sqrt(3 / prod(weight.shape[1:]))
        np.testing.assert_allclose(weight, bound * drawn[name], rtol=1e-12)
        # The variance of U(-bound, bound) is 1.5^2 / inputs; 6 standard deviations of its estimate.
        assert abs(weight.var() / (bound**2 / 3) - 1) < 6 * np.sqrt(0.8 / weight.size)
    assert rest and all((leaf == 0).all() for leaf in rest.values())


# --- a whole run ---

TRAINING = """
[training]
estimator = "straight_through"
optimiser = "adam"
rate = 0.1
batch = 4
checkpoints = [0, 2]
"""
WEIGHTS_PROBLEM = """\
title = "Binary weights"

[data]
name = "overlapping_classes"
points = 8

[network]
hidden = [1]
objective = "logistic_loss"
initialisation = "uniform"
scale = 0.9

[network.weights]
noise = "uniform"

[training]
estimator = "straight_through(proxy='identity')"
rate = 0.1
batch = 4
checkpoints = [0, 2]

[training.weights]
optimiser = "mirror_descent"
rate = 1
"""
SUITE = """\
title = "A suite"
problems = ["conv.toml", "vae.toml"]
estimators = ["straight_through"]
draws = 6
"""
LONG = "nested(activations='concrete(temperature=0.1)', weights='straight_through')"
WEIGHTS_SUITE = f"""\
title = "Weights"
problems = ["weights.toml"]
estimators = ["exact", "{LONG}"]
draws = 6
figure = "training"
[variants.mirror]
[variants.exponentiated]
"training.weights.optimiser" = "exponentiated_gradient"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quick_compilation):
    """The folder of a finished run of convolutions and an ELBO, and of one of binary weights."""
    folder = tmp_path_factory.mktemp("runs")
    pooled, deep = "[{ conv = 2, kernel = 4, pool = 2 }]", "[{ dense = 2, through = [3] }]"
    conv = changed(PROBLEM, hidden(pooled))
    vae = changed(PROBLEM, hidden(deep), ELBO_) + TRAINING
    suites = [
        tiny.write(folder / "networks", SUITE, conv=conv, vae=vae),
        tiny.write(folder / "weights", WEIGHTS_SUITE, weights=WEIGHTS_PROBLEM),
    ]
    for suite in suites:
        run(suite, suite.parent / "results", progress=False)
    return folder


EPOCHS = ("epoch 0", "epoch 2")
VARIANTS = ("weights[mirror]", "weights[exponentiated]")
PLACES = {
    "networks": [("conv", "untrained"), *(("vae", epoch) for epoch in EPOCHS)],
    "weights": [(name, epoch) for name in VARIANTS for epoch in EPOCHS],
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.slow
def test_a_run_stores_every_cell_checkpoint_and_reference_and_draws_all_figures(runs, name):
    results = Results.open(runs / name / "results")
    places = [(*place, estimator) for place in PLACES[name] for estimator in estimators(results)]
    found = [(c.place.problem, c.place.checkpoint, c.estimator) for c in results.cells()]
    assert sorted(found) == sorted(places)
    for cell in results.cells():
        assert sum(block.layers[0].count for block in cell.load()[1]) == 6
    figures = {path.name for path in plot(results)}
    problems = {problem for problem, _ in PLACES[name]}
    once, each = ("plane", "pareto"), ("rmse", "cosine", "cost", "bias-map")
    kinds = {f"{problem}-0-{kind}" for problem in problems for kind in each}
    kinds |= {f"{problem}-{kind}" for problem in problems for kind in once}
    if name == "weights":
        kinds |= {f"{problem}-training" for problem in problems} | {"losses"}
    endings = ("pdf", "svg", "png", "py")
    assert figures == {f"{kind}.{ending}" for kind in kinds for ending in endings}
    drawn = [results.figures / figure for figure in figures if not figure.endswith(".py")]
    assert all(path.stat().st_size > 5000 for path in drawn)
    assert unfinished(results) == (0, len(places))


def estimators(results):
    return results.manifest["suite"]["estimators"]


@pytest.mark.slow
def test_only_the_exact_estimator_of_weights_has_no_error(runs):
    frame = summary(runs / "weights" / "results")
    exact = frame["estimator"] == "exact"
    assert exact.sum() == 12  # two variants, epochs and layers, and the network
    assert (frame[exact]["rmse"] < 1e-12).all() and (frame[exact]["variance"] < 1e-24).all()
    assert (frame[~exact]["rmse"] > 1e-3).all() and (frame[~exact]["variance"] > 1e-6).all()


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.slow
def test_every_row_has_the_exact_loss_and_the_epoch_of_its_checkpoint(runs, name):
    results = Results.open(runs / name / "results")
    for row in summary(results).to_dict("records"):
        place = CheckpointId(row["problem"], 0, row["checkpoint"])
        assert row["loss"] == results.load_reference(place).value
        epoch = {"untrained": np.nan, "epoch 0": 0, "epoch 2": 2}[place.checkpoint]
        np.testing.assert_equal(float(row["epoch"]), epoch)


@pytest.mark.parametrize(("problem", "checkpoint"), PLACES["networks"])
@pytest.mark.slow
def test_nested_parameters_are_stored_and_found_again(runs, problem, checkpoint):
    built = build(load_problem(runs / "networks" / f"{problem}.toml"))
    results, place = (
        Results.open(runs / "networks" / "results"),
        CheckpointId(problem, 0, checkpoint),
    )
    stored, initial = results.load_checkpoint(place), built.initial()
    assert jax.tree.structure(stored) == jax.tree.structure(initial)
    assert jax.tree.map(np.shape, stored) == jax.tree.map(np.shape, initial)
    same = flat(stored) == flat(initial)
    assert same.mean() < 0.1 if checkpoint == "epoch 2" else same.all()
    loss = exact_loss(built.network, stored, built.batch)
    assert results.load_reference(place).value == pytest.approx(float(loss), rel=1e-12)


@pytest.mark.slow
def test_variants_begin_at_the_same_parameters_and_part(runs):
    results = Results.open(runs / "weights" / "results")
    before, after = (
        [flat(results.load_checkpoint(CheckpointId(name, 0, epoch))) for name in VARIANTS]
        for epoch in EPOCHS
    )
    np.testing.assert_array_equal(*before)
    assert (after[0] != after[1]).any()


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.slow
def test_the_columns_of_the_table_line_up_with_their_headings(runs, name):
    text = show(runs / name / "results")
    headings = {line for line in text.splitlines() if "RMSE" in line and "band" in line}
    rows = [line for line in text.splitlines() if re.search(r"-?\d\.\d\d +-?\d\.\d\d$", line)]
    frame = summary(runs / name / "results")
    assert len(rows) == (~frame["zero_gradient"]).sum()
    names = {label(spec) for spec in estimators(Results.open(runs / name / "results"))}
    titles = r"RMSE|\|bias\||std|cosine|band"
    for row in rows:  # the columns of one place are as wide as their contents
        (heading,) = (line for line in headings if len(line) == len(row))
        ends = [match.end() for match in re.finditer(titles, heading)]
        assert all(row[end - 1] != " " and row[end : end + 1].strip() == "" for end in ends), row
        first = heading.index("estimator")
        assert re.split("(?: =)? {2,}", row[first:])[0] in names
