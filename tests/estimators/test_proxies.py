"""Proxies: those of the literature as their papers have them, and functions of one's own."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, small

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.estimators import (
    ESTIMATORS,
    deterministic_straight_through,
    make_estimator,
    straight_through,
)
from gradbench.estimators.proxies import PROXIES, find_proxy, proxy

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

KEY = jax.random.key(2)
A = np.array([-3.0, -1.5, -0.7, -0.1, -0.05, 0.0, 0.06, 0.1, 0.3, 1.0, 1.5, 1.51])
OWN = """
import jax.numpy as jnp

def sech(a):
    return 1 / jnp.cosh(a)

number = 3
"""


def sech(a):
    return 1 / jnp.cosh(a)


def draw(loss):
    model, params, batch = small((2, 3, 2, 1))
    return flat(jax.grad(loss(model))(params, KEY, batch))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_reste_is_the_power_function_of_its_paper_with_a_chord_at_0_and_an_end(power):
    """sign(a) |a|^(1/o), in plain numpy: derivative, difference quotient within 0.1, 0 beyond."""
    size = np.maximum(np.abs(A), 1e-9)
    right = np.where(size <= 0.1, 0.1 ** (1 / power) / 0.1, size ** ((1 - power) / power) / power)
    right = np.where(size > 1.5, 0, right)
    np.testing.assert_allclose(find_proxy("reste")(None, jnp.asarray(A), power), right, rtol=1e-12)


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0, 10.0])
def test_ede_is_that_of_ir_net_with_its_factor_k(t):
    right = max(1 / t, 1) * t * (1 - np.tanh(A * t) ** 2)
    for name in ("ede", "ir-net"):
        found = find_proxy(name)(None, jnp.asarray(A), t)
        np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-14)


def test_the_fast_sigmoid_is_superspike_but_for_its_factor():
    right = 100 / (1 + 100 * np.abs(A)) ** 2
    for name in ("fast_sigmoid", "SuperSpike"):
        np.testing.assert_allclose(find_proxy(name)(None, jnp.asarray(A), 100.0), right, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in PROXIES if n not in ("ede", "reste", "density")])
def test_a_slope_steepens_a_proxy_and_keeps_its_integral(name):
    found, m = PROXIES[name], 3.0
    np.testing.assert_allclose(
        found(None, jnp.asarray(A), m), m * np.asarray(found(None, jnp.asarray(m * A))), rtol=1e-12
    )


@pytest.mark.parametrize("name", PROXIES)
def test_every_proxy_is_finite_in_float32_at_any_slope_and_saturation(name):
    from gradbench.core.noise import get_noise

    with single():
        a = jnp.array([-1e30, -40.0, -0.1, 0.0, 0.1, 40.0, 1e30], jnp.float32)
        for m in (0.01, 1.0, 100.0):
            found = PROXIES[name](get_noise("logistic"), a, m)
            assert found.dtype == jnp.float32 and np.all(np.isfinite(found))


@pytest.mark.parametrize("make", [straight_through, deterministic_straight_through])
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_function_of_a_is_a_proxy_as_is_its_place_in_a_spec(make, tmp_path, monkeypatch):
    (tmp_path / "my_proxies.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    right = draw(lambda model: make(model, proxy=lambda a: 2 * sech(2 * a)))
    steep = draw(lambda model: make(model, proxy=sech, slope=2.0))
    np.testing.assert_allclose(steep, right, rtol=1e-12)
    for place in ("my_proxies:sech", f"{tmp_path / 'my_proxies.py'}:sech"):
        spec = f"{make.__name__}(proxy={place!r}, slope=2)"
        np.testing.assert_array_equal(draw(lambda model, s=spec: make_estimator(s, model)), steep)
    sys.modules.pop("my_proxies")
    assert ESTIMATORS[make.__name__].claim(proxy=sech) == "biased"
    assert np.linalg.norm(steep - draw(make)) > 1e-3


@pytest.mark.slow
def test_a_named_proxy_is_the_function_of_its_name():
    named = draw(lambda model: straight_through(model, proxy="erf", slope=0.5))
    own = draw(lambda model: straight_through(model, proxy=PROXIES_BY_HAND["erf"], slope=0.5))
    np.testing.assert_allclose(own, named, rtol=1e-12)


PROXIES_BY_HAND = {"erf": lambda a: jnp.sqrt(2 / jnp.pi) * jnp.exp(-(a**2) / 2)}


@pytest.mark.slow
def test_a_parameter_of_a_function_may_be_traced_and_trained():
    model, params, batch = small((2, 2, 1))

    def gradient(width):
        loss = straight_through(model, proxy=lambda a: jnp.exp(-jnp.abs(a) / width))
        return jax.grad(loss)(params, KEY, batch)

    found, right = flat(jax.jit(gradient)(0.7)), flat(gradient(0.7))
    np.testing.assert_allclose(found, right, rtol=1e-10)


@pytest.mark.slow
def test_a_registered_proxy_is_known_by_name_and_listed():
    with PROXIES.restored():

        @proxy(aliases=("hyperbolic",))
        def my_sech(a):
            """2F' of the hyperbolic secant distribution."""
            return sech(a)

        right = draw(lambda model: straight_through(model, proxy=sech))
        for name in ("my_sech", "my-sech", "hyperbolic"):
            found = draw(lambda model, n=name: straight_through(model, proxy=n))
            np.testing.assert_array_equal(found, right)
        assert "my_sech" in PROXIES.names()
        assert PROXIES.facts("hyperbolic").summary.startswith("2F'")
    assert "my_sech" not in PROXIES


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("superspke", "proxy is 'superspke'; did you mean 'fast_sigmoid'?"),
        (None, "proxy is None; choose one of approxsign, arctan"),
        (3, "proxy is 3; choose one of"),
        ("no_such:sech", "the proxy 'no_such:sech' cannot be imported (ModuleNotFoundError"),
        ("math:pi", "the proxy 'math:pi' is 3.14"),
        (
            lambda a: jnp.sum(a),
            "the proxy <lambda> gives float32[] for pre-activations [2, 3]; give a function of a, "
            "elementwise, made of jax.numpy",
        ),
        (lambda a: "steep", "the proxy <lambda> fails on pre-activations [2, 3] (TypeError"),
        (lambda a: a > 0, "the proxy <lambda> gives bool[2, 3] for pre-activations [2, 3]"),
        (
            lambda noise, a: a,
            "the proxy <lambda> fails on pre-activations [2, 3] (TypeError: ",
        ),
    ],
)
def test_what_is_no_proxy_is_refused_in_one_sentence(given, sentence):
    for make in (straight_through, deterministic_straight_through):
        with pytest.raises(GradbenchError) as caught:
            make(lambda params, example, binary: 0.0, proxy=given)
        assert str(caught.value).startswith(sentence)
        assert "\n" not in str(caught.value)
