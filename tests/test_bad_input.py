"""Bad input: wrong models, parameters, batches, keys and options are refused in one sentence."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_batch, random_params

import gradbench
from gradbench import GradbenchError, estimators, exact
from gradbench.models import SBN, Dense, Readout, RealNetwork

KEY = jax.random.key(0)
NETWORK = SBN((Dense(2, 2), Dense(2, 2, "normal")), Readout(2, 1))
SIZES = (2, 2, 2, 1)
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), random_params(SIZES))
BATCH = jax.tree.map(lambda leaf: leaf.astype(np.float32), random_batch(2))
INPUTS, TARGETS = BATCH


def model(params, example, binary):
    x = binary(params["w"] @ example[0] + params["b"])
    return (params["v"] @ x - example[1]) ** 2


def first(weight=PARAMS[0]["weight"], bias=PARAMS[0]["bias"]):
    """Parameters of the network with another first layer."""
    return ({"weight": weight, "bias": bias}, *PARAMS[1:])


FREE = {"w": np.ones((3, 2), np.float32), "b": np.zeros(3, np.float32), "v": np.ones(3, np.float32)}

# What takes a model, parameters and a batch. None of the wrong ones gets far enough to be compiled.
ENTRIES = {
    "expected_loss": exact.expected_loss,
    "brute_force": exact.brute_force,
    "explain": lambda m, p, b: gradbench.explain("disarm", m, p, b),
    "disarm": lambda m, p, b: estimators.disarm(m)(p, KEY, b),
    "exact": lambda m, p, b: estimators.exact(m)(p, KEY, b),
    "nvil": lambda m, p, b: estimators.nvil(m)(p, KEY, b),
    "moments_work": lambda m, p, b: exact.moments_work(estimators.arm(m), p, b),
}
# The same where a gradient in the parameters is taken.
GRADIENTS = {
    "moments": lambda m, p, b: exact.moments(estimators.disarm(m), p, b),
    "reference": gradbench.reference,
    "sampled reference": partial(gradbench.reference, method="sampled"),
    "diagnose": lambda m, p, b: gradbench.diagnose(estimators.disarm(m), p, b, KEY),
    "recommend": gradbench.recommend,
}


def assert_refused(call, *words):
    """One sentence of a GradbenchError, in one line, with a remedy after a semicolon."""
    with pytest.raises(GradbenchError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and ";" in said and len(said) < 600
    for word in words:
        assert word in said, said


@dataclass
class Unhashable:
    scale: float = 1.0

    def __call__(self, params, example, binary):
        return self.scale * model(params, example, binary)


def tupled(params, example, binary):
    return model(params, example, binary), 0.0, 0.0


def stateful(params, example, binary):
    params["b"] = params["b"] + 1
    return model(params, example, binary)


def without_units(params, example, binary):
    return jnp.sum(binary(params["w"][:0, 0])) + model(params, example, binary)


def inside_if(params, example, binary):
    x = binary(params["w"] @ example[0])
    return jnp.sum(x) if x[0] > 0 else jnp.sum(-x)


MODELS = {
    "nothing": (None, "the model is None"),
    "a number": (3, "the model is 3"),
    "a name": ("psa", "the model is 'psa'"),
    "a tuple": ((model,), "type tuple"),
    "parameters": (FREE, "type dict"),
    "an array": (np.ones(3), "type ndarray"),
    "a class": (SBN, "the class SBN", "instance"),
    "a module": (gradbench, "type module"),
    "no arguments": (lambda: 0.0, "takes the arguments ()"),
    "two arguments": (lambda params, example: 0.0, "(params, example)"),
    "four arguments": (
        lambda params, example, binary, more: 0.0,
        "(params, example, binary, more)",
    ),
    "a real network": (RealNetwork((Dense(2, 2),), Readout(2, 1)), "(params, example)"),
    "a loss": (estimators.psa(NETWORK), "a loss of (params, key, batch)"),
    "an exact loss": (estimators.exact(NETWORK), "a loss of (params, key, batch)"),
    "an estimator": (estimators.psa, "takes the arguments (model"),
    "never binary": (lambda p, e, binary: jnp.sum(p["v"]), "never calls binary"),
    "returns nothing": (lambda p, e, binary: print(end=str(binary(p["v"]))[:0]), "NoneType"),
    "returns a triple": (tupled, "a tuple of 3 things"),
    "returns text beside it": (lambda p, e, binary: (model(p, e, binary), "a"), "'a' beside its"),
    "changes its parameters": (stateful, "changes ['b'] of its parameters"),
    "returns text": (lambda p, e, binary: str(binary(p["v"]))[:3], "an objective of type str"),
    "returns a vector": (lambda p, e, binary: binary(p["v"]), "of shape (3,)"),
    "returns a complex": (lambda p, e, binary: 1j * jnp.sum(binary(p["v"])), "complex"),
    "returns a boolean": (lambda p, e, binary: jnp.all(binary(p["v"]) > 0), "bool"),
    "returns a whole number": (lambda p, e, binary: jnp.argmax(binary(p["v"])), "int"),
    "no units": (without_units, "layer 1 of the model has no units"),
    "binary of text": (lambda p, e, binary: jnp.sum(binary("v")), "binary() got", "str"),
    "binary of None": (lambda p, e, binary: jnp.sum(binary(None)), "binary() got", "NoneType"),
    "binary of integers": (lambda p, e, binary: jnp.sum(binary(jnp.arange(3))), "binary() got"),
    "binary of a complex": (lambda p, e, binary: jnp.sum(binary(1j * p["v"])), "binary() got"),
    "binary of nothing": (lambda p, e, binary: jnp.sum(binary()), "does not run", "TypeError"),
    "unknown noise": (lambda p, e, binary: jnp.sum(binary(p["v"], "cauchy")), "cauchy"),
    "noise a number": (lambda p, e, binary: jnp.sum(binary(p["v"], 3)), "3"),
    "a condition": (inside_if, "the values of its arguments", "jnp.where"),
    "numpy inside": (lambda p, e, binary: jnp.sum(binary(p["v"])) + np.sin(e[1]), "jax.numpy"),
    "compiled": (jax.jit(model), "does not run"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_model_is_refused_by_every_entry_point(name):
    wrong, *words = MODELS[name]
    for call in (ENTRIES | GRADIENTS).values():
        assert_refused(lambda call=call: call(wrong, FREE, BATCH), *words)


PARAMETERS = {
    "nothing": (None, "type NoneType"),
    "a number": (3.0, "type float"),
    "text": ("weights", "type str"),
    "an array": (np.ones(3), "type array"),
    "a dictionary": (dict(enumerate(PARAMS)), "type dict"),
    "no entries": ((), "got 0 parameter entries"),
    "too few layers": (PARAMS[:2], "got 2 parameter entries"),
    "too many layers": ((*PARAMS, PARAMS[0]), "got 4 parameter entries"),
    "a layer of nothing": ((None, *PARAMS[1:]), "weight and a bias"),
    "a layer of text": (("x", *PARAMS[1:]), "weight and a bias"),
    "a missing key": (({"weight": PARAMS[0]["weight"]}, *PARAMS[1:]), "['weight']"),
    "an extra key": (({**PARAMS[0], "scale": np.ones(2)}, *PARAMS[1:]), "'scale'"),
    "a wrong key": (({"w": 1, "b": 2}, *PARAMS[1:]), "['b', 'w']"),
    "keys that are no names": (({"weight": np.ones((2, 2)), 3: 0}, *PARAMS[1:]), "pytree"),
    "a wrong shape": (first(np.ones((2, 5))), "(2, 5)"),
    "a wrong bias": (first(bias=np.ones(3)), "(3,)"),
    "too many axes": (first(np.ones((2, 2, 1))), "(2, 2, 1)"),
    "a weight of one number": (first(np.float32(1)), "()"),
    "lists": (jax.tree.map(lambda leaf: leaf.tolist(), PARAMS), "arrays"),
    "lists in a layer": (
        first([[1.0, 2.0], [3.0, 4.0]]),
        "arrays",
    ),
    "objects": (first(np.array([["a", None]] * 2, object)), "object", "['weight']"),
    "words": (first(np.array([["a", "b"]] * 2)), "<U1"),
    "dates": ((np.zeros(2, "M8[s]"), *PARAMS[1:]), "datetime64"),
    "records": ((np.zeros(2, [("a", float)]), *PARAMS[1:]), "[0]"),
    "swapped with the batch": (BATCH, "2 parameter entries"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_wrong_parameters_are_refused_by_every_entry_point(name):
    wrong, *words = PARAMETERS[name]
    for entry, call in (ENTRIES | GRADIENTS).items():
        gradient = entry in GRADIENTS
        assert_refused(lambda call=call: call(NETWORK, wrong, BATCH), *([] if gradient else words))


UNREAL = {
    "whole numbers": (lambda leaf: leaf.astype(int), "int64"),
    "booleans": (lambda leaf: leaf > 0, "bool"),
    "complex numbers": (lambda leaf: leaf + 1j, "complex"),
    "NaN": (lambda leaf: leaf * np.nan, "nan"),
    "infinity": (lambda leaf: leaf / 0.0, "inf"),
    "keys": (lambda leaf: jax.random.split(KEY, leaf.shape), "key"),
}


@pytest.mark.parametrize("name", UNREAL)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_parameters_that_have_no_gradient_are_refused_where_one_is_taken(name):
    change, *words = UNREAL[name]
    wrong = (*PARAMS[:-1], {**PARAMS[-1], "weight": change(PARAMS[-1]["weight"])})
    for call in GRADIENTS.values():
        assert_refused(lambda call=call: call(NETWORK, wrong, BATCH), "[2]['weight']", *words)


BATCHES = {
    "nothing": (None, "pairs"),
    "no pair": (INPUTS, "pairs"),
    "three things": ((INPUTS, TARGETS, TARGETS), "pairs"),
    "a dictionary": ({"x": INPUTS, "y": TARGETS}, "pairs"),
    "text": ("data.csv", "'data.csv'"),
    "a number": (3.0, "3.0"),
    "a pair of numbers": ((1.0, 2.0), "1.0 at [0]"),
    "a pair of arrays of one number": ((np.float32(1), np.float32(2)), "()"),
    "no examples": ((INPUTS[:0], TARGETS[:0]), "at least one"),
    "as many targets as inputs": ((INPUTS, TARGETS[:2]), "the same number of examples"),
    "one target": ((INPUTS, np.float32(1)), "the same number of examples"),
    "lists": (jax.tree.map(lambda leaf: leaf.tolist(), BATCH), "at [0][0][0]", "asarray"),
    "rows of several lengths": (
        (np.array([[1.0], [1.0, 2.0]], object), TARGETS[:2]),
        "object",
        "one length",
    ),
    "words": ((np.array([["a", "b"]] * 3), TARGETS), "<U1"),
    "dates": ((INPUTS, np.zeros(3, "M8[s]")), "datetime64"),
    "a flag": ((INPUTS, True), "True at [1]"),
    "a function": ((INPUTS, np.sin), "ufunc at [1]"),
    "too many inputs": ((np.ones((3, 5), np.float32), TARGETS), "(5,)"),
    "inputs of no numbers": ((np.ones((3, 0), np.float32), TARGETS), "(0,)"),
    "swapped with the parameters": (PARAMS, "the same number of examples"),
    "a key": (KEY, "batch"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_wrong_batch_is_refused_by_every_entry_point(name):
    wrong, *words = BATCHES[name]
    for call in (ENTRIES | GRADIENTS).values():
        assert_refused(lambda call=call: call(NETWORK, PARAMS, wrong), *words)


def test_there_are_more_than_a_hundred_wrong_things():
    assert sum(map(len, (MODELS, PARAMETERS, UNREAL, BATCHES))) > 85
