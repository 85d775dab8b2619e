"""The certificate through the public entry points: the classes that the registry claims are found.

An adapter runs a model through ``binarize`` or through an ``expectation`` for each of its layers.
For exact enumeration the functions are given the uniforms of a site in the place of those that
their key would give.
"""

from dataclasses import replace
from functools import partial
from unittest.mock import patch

import jax
import jax.numpy as jnp
import pytest
from jax.lax import stop_gradient

from gradbench import GradbenchError, binarize, expectation
from gradbench.core import surrogate
from gradbench.core.run import as_examples, batch_size, find_sites, run_at_states, run_model
from gradbench.core.surrogate import SurrogateLoss
from gradbench.estimators import ESTIMATORS, get_estimator, make_estimator
from gradbench.ops import binarize as binarization
from gradbench.ops.binarize import local_estimators
from gradbench.testing import certificate, check_estimator
from gradbench.testing.problems import problems

pytestmark = pytest.mark.usefixtures("quick_compilation")

DEPTH = 3  # of the nests of expectations, each of which traces its function several times


def given(home, u):
    """The functions of a module get these uniforms, of one array per stream, whatever the key."""
    if home is binarization:
        return patch.object(home, "unit_uniforms", lambda *_: u)
    drawn = tuple((stream[..., None],) for stream in u)  # of one example
    return patch.object(home, "draw_uniforms", lambda *_: drawn)


def at_site(u, k):
    return tuple(stream[k] for stream in u)


def binarized(spec, home=binarization):
    """The estimator of a model that is run with ``binarize`` at every site."""

    def make(model):
        def example_loss(params, u, example):
            count = iter(range(99))

            def binary(a, noise="logistic"):
                k = next(count)
                with given(home, at_site(u, k)):
                    return binarize(
                        a, key=jax.random.key(k), estimator=spec, noise=noise, hard=False
                    )

            return model(params, example, binary)

        return replace(make_estimator(spec, model), example_loss=example_loss)

    return make


def nest(model, params, example, spec, draw):
    """The value of a nest of expectations, one per site: ``draw(g, a, site)`` evaluates one."""
    sites = find_sites(model, params, example)
    if len(sites) > DEPTH:
        raise GradbenchError(f"{len(sites)} layers are too many for these tests; give fewer")

    def value(*states):
        k = len(states)
        if k == len(sites):
            return run_at_states(model, params, example, states).f
        rest = lambda site, a: jnp.ones_like(a)  # noqa: E731
        a = run_model(model, params, example, rest, states).a[k]
        g = expectation(lambda x: value(*states, x), spec, noise=sites[k].noise)
        return draw(g, a, k)

    return value()


def nested(spec):
    """The estimator of a model that is a nest of expectations.

    A draw with given uniforms is enumerated as those of the estimator are, by states or by
    uniforms. By states it cannot be where f is evaluated for several of them: the layers above
    would have those of one path for all. Such nests draw.
    """
    entry, arguments = get_estimator(spec)
    sizes = {"L": 1, "D": 2, "n": 2} | entry.hyperparameters | arguments
    once = entry.price(**arguments).evaluate(**sizes)[0] <= 1

    def make(model):
        def example_loss(params, u, example):
            def draw(g, a, k):
                with given(surrogate, tuple(v.ravel() for v in at_site(u, k))):
                    return g(a, jax.random.key(k))

            return nest(model, params, example, spec, draw)

        original = make_estimator(spec, model)
        if isinstance(original, SurrogateLoss) and (original.randomness == "uniforms" or once):
            return replace(original, example_loss=example_loss, couples_batch=False)
        return drawn(spec)(model)

    return make


def batched(model, one):
    """The loss that is the mean of ``one(params, key, example)`` over a batch."""

    def loss(params, key, batch):
        examples = as_examples(model, key, batch)
        keys = jax.random.split(key, batch_size(examples))
        return jnp.mean(jax.vmap(partial(one, params))(keys, examples))

    return loss


def drawn(spec):
    """The nest with keys of its own, in the place of uniforms that are given."""

    def make(model):
        def one(params, key, example):
            keys = jax.random.split(key, DEPTH)
            return nest(model, params, example, spec, lambda g, a, k: g(a, keys[k]))

        loss = batched(model, one)
        loss.second_order = spec == "exact"  # of which second derivatives are right
        return loss

    return make


def keyed(spec):
    """The model run with ``binarize`` at every site, each with a key of its own."""

    def make(model):
        def one(params, key, example):
            count = iter(range(99))

            def binary(a, noise="logistic"):
                own = jax.random.fold_in(key, next(count))
                return binarize(a, key=own, estimator=spec, noise=noise)

            return model(params, example, binary)

        return batched(model, one)

    return make


# -------------------------------------------------------------------------------- binarize


def few(seed):
    """Binary weights under every class of objectives, and two layers: other noise than logistic."""
    return tuple(p for p in problems(seed) if p.name in ("binary weights", "two layers"))


@pytest.fixture
def shortly(monkeypatch):
    """The classes are found on two problems, how a draw behaves is left to the slow tests."""
    monkeypatch.setattr(certificate, "problems", few)
    monkeypatch.setattr(certificate, "conduct", lambda *_: [])


def claimed(spec):
    entry, arguments = get_estimator(spec)
    return entry.claim(**arguments)


# FouST differentiates the objective between the states and takes its value at them: what sees a
# unit alone has one state for both: the objective's own parameters, and the layers above, see what
# is between the states.
FOUND_BY_BINARIZE = {"foust": "biased"}


def assert_found(make, spec, found):
    certificate = check_estimator(make(spec))
    assert certificate.found == found, str(certificate)
    entry, arguments = get_estimator(spec)
    valued = entry.estimates_value(**arguments) and spec not in FOUND_BY_BINARIZE
    assert set(certificate.failed) <= (set() if valued else {"value"}), str(certificate)


@pytest.mark.usefixtures("shortly")
@pytest.mark.parametrize("spec", ["straight_through", "zgr", "darn(phi=0.2)", "mve"])
@pytest.mark.slow
def test_binarize_has_the_class_of_its_estimator_by_enumeration(spec):
    assert_found(binarized, spec, claimed(spec))


@pytest.mark.slow
@pytest.mark.parametrize("spec", local_estimators())
def test_binarize_has_the_class_and_the_conduct_of_every_local_estimator(spec):
    assert_found(binarized, spec, FOUND_BY_BINARIZE.get(spec, claimed(spec)))


@pytest.mark.slow
def test_binarize_with_keys_of_its_own_has_the_class_of_zgr():
    certificate = check_estimator(keyed("zgr"))
    assert certificate.found == "quadratic", str(certificate)
    assert not certificate.exact and not certificate.failed


@pytest.mark.usefixtures("shortly")
@pytest.mark.slow
def test_a_wrong_slope_in_binarize_is_seen():
    right = binarization.marked

    def half(x):
        return right(stop_gradient(x / 2) + x / 2)

    with patch.object(binarization, "marked", half):
        assert check_estimator(binarized("zgr")).found == "biased"


# ------------------------------------------------------------------------------ expectation


def of_each_layer(spec):
    """The class of a nest whose every part is one layer."""
    return {"one layer": "unbiased"}.get(claimed(spec), claimed(spec))


@pytest.mark.usefixtures("shortly")
@pytest.mark.parametrize("spec", ["reinforce", "disarm", "arm"])
@pytest.mark.slow
def test_nested_expectations_have_the_class_of_their_estimator(spec):
    assert_found(nested, spec, of_each_layer(spec))


FREE = [name for name, entry in sorted(ESTIMATORS.items()) if not entry.needs]


@pytest.mark.filterwarnings("ignore:.* at its initial state, where nothing is learned")
@pytest.mark.slow
@pytest.mark.parametrize("spec", FREE)
def test_nested_expectations_have_the_class_and_the_conduct_of_every_estimator(spec):
    assert_found(nested, spec, of_each_layer(spec))


@pytest.mark.usefixtures("shortly")
@pytest.mark.slow
def test_a_value_that_is_no_longer_differentiated_is_seen():
    """The gradient of what f closes over: here that of the layers below."""

    def make(model):
        def one(params, key, example):
            keys = jax.random.split(key, DEPTH)

            def draw(g, a, k):
                value = g(a, keys[k])
                return stop_gradient(value) if k else value

            return nest(model, params, example, "reinforce", draw)

        return batched(model, one)

    certificate = check_estimator(make)
    assert certificate.found != "unbiased"
