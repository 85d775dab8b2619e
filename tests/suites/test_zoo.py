"""The suites zoo, toy and temperature: complete lists, figures, and slopes over the temperature."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tiny import write

import gradbench
from gradbench import exact
from gradbench.core.errors import GradbenchError
from gradbench.core.run import run_at_states
from gradbench.core.specs import family
from gradbench.estimators import ESTIMATORS, concrete, st_gumbel_softmax
from gradbench.exact import quadrature
from gradbench.measure.exact_reference import exact_gradient
from gradbench.metrics.temperature import Unit, slopes, slopes_text, split, unit_of
from gradbench.models.dense import Dense, Logits
from gradbench.models.network import SBN
from gradbench.models.toys import Polynomial, Quadratic
from gradbench.plots.style import FAMILIES, GROUPS, family_of, group_of, styles
from gradbench.suites.data import load_data
from gradbench.suites.suite import load_suite

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

OURS = {n: e for n, e in ESTIMATORS.items() if e.make.__module__.startswith("gradbench.estim")}
# For binary weights, for multi-sample objectives, and those that are made of others.
ELSEWHERE = ("nested", "weights", "vimco", "combination")


def test_the_zoo_is_the_registry_without_those_that_do_not_run_there():
    several = {n for n, e in OURS.items() if e.layers == "any" and e.family not in ELSEWHERE}
    assert {family(name) for name in load_suite("zoo").estimators} == several
    assert {p.name for p in load_suite("zoo").problems} == {"psa", "digits"}
    assert load_suite("zoo").problems[0].checkpoints == (1, 100, 2000)


def test_the_toys_are_measured_with_all_but_those_that_tabulate_the_states():
    any_network = {n for n, e in OURS.items() if e.family not in ELSEWHERE}
    found = {family(name) for name in load_suite("toy").estimators}
    assert found == any_network - {"top_c", "unordered_set"}


def test_the_families_of_the_figures_are_those_of_the_registry():
    for name, entry in OURS.items():
        assert family_of(name) == entry.family or name == "nested"
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted([*grouped, "exact"]) == sorted(FAMILIES)
    assert group_of("rloo") == "score" and group_of("exact") == group_of("mine") == "other"


def test_families_of_a_group_differ_in_colour_and_marker():
    for group in GROUPS.values():
        assert len({FAMILIES[name].color for name in group}) == len(group)
        assert len({FAMILIES[name].marker for name in group}) == len(group)
        zoo = [n for n in load_suite("zoo").estimators if family_of(n) in group]
        looks = styles(zoo).values()
        assert len(set(looks)) == len(zoo) <= 15


# --- slopes ---


def frame(bias, std, temperatures=(0.01, 0.02, 0.04, 0.4), se=0.0, name="concrete"):
    """A summary of an estimator whose bias and deviation are functions of the temperature."""
    return pd.DataFrame(
        {"problem": "p", "replicate": 0, "checkpoint": "untrained", "layer": "layer 1"}
        | {"estimator": f"{name}(temperature={t})", "zero_gradient": False}
        | {"bias2": bias(t) ** 2, "bias2_se": se, "variance": std(t) ** 2}
        for t in temperatures
    )


def test_slopes_are_those_of_powers_over_the_three_smallest_temperatures():
    # Another power at the largest of the four does not count.
    found = slopes(frame(lambda t: 3 * t**2 if t < 0.1 else 1.0, lambda t: 5 * t**-0.5))
    (row,) = found.to_dict("records")
    assert row["series"] == "concrete" and (row["low"], row["high"]) == (0.01, 0.04)
    assert row["bias"] == pytest.approx(2) and row["std"] == pytest.approx(-0.5)


def test_a_bias_that_is_not_seen_has_no_slope():
    hidden = slopes(frame(lambda t: t, lambda t: 1.0, se=0.1))
    assert np.isnan(hidden["bias"].item()) and hidden["std"].item() == pytest.approx(0, abs=1e-12)
    text = slopes_text(frame(lambda t: t, lambda t: 1.0, se=0.1))
    assert text.splitlines()[-1].split()[:3] == ["concrete", "-", "0.00"]
    assert slopes(frame(lambda t: t, lambda t: 1.0, (1.0, 2.0, 3.0))).empty
    assert slopes(frame(lambda t: t, lambda t: 1.0, (0.1, 0.2))).empty
    assert slopes_text(frame(lambda t: t, lambda t: 1.0, (0.1, 0.2))) == ""


def test_the_series_of_an_estimator_is_all_of_it_but_the_temperature():
    assert split("concrete(temperature=0.5)") == ("concrete", 0.5)
    assert split("concrete(relaxation='rebar', temperature=1)") == (
        "concrete(relaxation='rebar')",
        1.0,
    )
    assert split("psa") == ("psa", None)


SMALL = (0.005, 0.0075, 0.01)


def of_moments(make, network, params, batch, temperatures=SMALL):
    """The summary of an estimator from its exact moments, and absolute bias and mean square."""
    truth = exact_gradient(network, params, batch).gradient[0]["bias"]
    rows, forms = [], []
    for t in temperatures:
        found = exact.moments(make(network, temperature=t), params, batch)
        bias = np.asarray(found.mean[0]["bias"]) - truth
        variance = np.asarray(found.variance[0]["bias"])
        norm = np.linalg.norm(truth)
        one = frame(lambda t: np.linalg.norm(bias) / norm, lambda t: 1.0, (t,))  # noqa: B023
        rows.append(one.assign(variance=variance.sum() / norm**2))
        forms.append((bias, variance + np.asarray(found.mean[0]["bias"]) ** 2))
    return pd.concat(rows), forms


@pytest.mark.parametrize("make", [concrete, st_gumbel_softmax])
@pytest.mark.parametrize(("coefficients", "power"), [((1.5,), 2), ((1.5, 0.5), 1)])
@pytest.mark.first(1)
@pytest.mark.slow
def test_bias_and_deviation_have_the_slopes_of_the_closed_forms(make, coefficients, power):
    network = SBN((Logits(1),), Polynomial(coefficients))
    batch = (jnp.zeros((1, 0)), jnp.zeros(1))
    params = ({"bias": jnp.ones(1)}, ())
    summary, forms = of_moments(make, network, params, batch)
    (row,) = slopes(summary).to_dict("records")
    assert row["bias"] == pytest.approx(power, abs=0.015)
    assert row["std"] == pytest.approx(-0.5, abs=0.015)
    if make is concrete:
        unit = Unit(1.0, *[*coefficients, 0.0][:2])
        truth = exact_gradient(network, params, batch).gradient[0]["bias"]
        assert truth == pytest.approx(unit.gradient, rel=1e-12)
        errors = []
        for t, (bias, square) in zip(SMALL, forms, strict=True):
            errors.append(abs(bias[0] / unit.concrete_bias(t) - 1))
            assert square[0] == pytest.approx(unit.concrete_square(t), rel=2 * t)
        assert errors[0] < 0.01 and all(a < b for a, b in pairwise(errors))  # tends to it


@pytest.mark.slow
def test_a_random_form_has_the_slopes_of_its_diagonal():
    batch = tuple(map(jnp.asarray, load_data("quadratic_form", {"units": 2})))
    network, params = SBN((Logits(2),), Quadratic()), ({"bias": jnp.array([1.0, -0.5])}, ())
    summary, forms = of_moments(concrete, network, params, batch)
    (row,) = slopes(summary).to_dict("records")
    assert row["bias"] == pytest.approx(1, abs=0.015)
    assert row["std"] == pytest.approx(-0.5, abs=0.015)
    units = [Unit(a, 1.0, q / 2) for a, q in zip([1.0, -0.5], np.diag(batch[1][0]), strict=True)]
    assert forms[0][0] == pytest.approx([u.concrete_bias(SMALL[0]) for u in units], rel=0.01)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.first(1)
def test_all_units_of_a_chain_of_width_1_are_unsaturated_with_probability_t_to_its_length(layers):
    network = SBN((Dense(1, 1),) * layers, Polynomial((1.0,)))
    params = (
        *({"weight": jnp.full((1, 1), 1.5), "bias": jnp.full(1, 0.3)} for _ in range(layers)),
        (),
    )
    node, weight = np.polynomial.legendre.leggauss(12)
    grid = np.stack([g.ravel() for g in np.meshgrid(*[node] * layers)], axis=-1)
    weights = np.prod([w.ravel() for w in np.meshgrid(*[weight] * layers)], axis=0)

    def probability(t):
        """P(abs y < 0.99 in all layers): the density of s = a - z where y = tanh(s / 2t)."""
        reach = 2 * t * np.arctanh(0.99)

        def density(s):
            y = tuple(jnp.tanh(v / (2 * t))[None] for v in s)
            run = run_at_states(network, params, (jnp.ones(1), jnp.zeros(())), y)
            sites = zip(run.sites, run.a, s, strict=True)
            return jnp.prod(jnp.stack([site.noise.pdf(a - v)[0] for site, a, v in sites]))

        return reach**layers * float(jax.vmap(density)(jnp.asarray(reach * grid)) @ weights)

    t = np.array([0.002, 0.004, 0.008])
    found = np.array([probability(value) for value in t])
    assert np.all(found < 1)
    assert np.polyfit(np.log(t), np.log(found), 1)[0] == pytest.approx(layers, abs=0.02)


def test_closed_forms_are_drawn_for_the_units_that_they_are_for():
    suite = load_suite("temperature").as_dict()
    found = {p["name"]: unit_of(p["network"]) for p in suite["problems"]}
    assert found == {
        "polynomial[linear]": Unit(1.0, 1.0, 0.0),
        "polynomial[quadratic]": Unit(1.0, 1.0, 0.5),
        "quadratic[three-units]": None,
    }
    (first, *_) = suite["problems"]
    cubic = first["network"] | {"objective": {"polynomial": [1, 0, 1]}}
    assert unit_of(cubic) is None
    assert unit_of(first["network"] | {"noise": "normal"}) is None
    assert unit_of(load_suite("psa").as_dict()["problems"][0]["network"]) is None


# --- the suites, small ---

SMALL_SUITE = """\
title = "Small"
problems = ["polynomial", "three-bits"]
estimators = [
    "concrete(temperature=0.1)", "concrete(temperature=0.2)", "concrete(temperature=0.4)", "zgr"
]
draws = 40
figure = "temperature"
[variants.quadratic]
problem = "polynomial"
"network.objective.polynomial" = [1.0, 0.5]
"""


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:  # a rougher integral will do
        patch.setattr(quadrature, "_SMOOTH", (12,))
        gradbench.run(str(write(folder, SMALL_SUITE)), folder / "results", progress=False)
    return folder / "results"


@pytest.mark.slow
def test_a_suite_of_temperatures_ends_its_table_with_the_slopes(small_run):
    text = gradbench.show(small_run)
    _, _, after = text.partition("log-log slopes of |bias| and std")
    assert "  polynomial[quadratic], layer 1\n    concrete " in after
    assert "three-bits, layer 1\n    concrete " in after and "zgr" not in after
    names = {path.name for path in gradbench.plot(small_run)}
    assert names == {f"temperature.{ending}" for ending in ("pdf", "png", "svg", "py")}


def test_a_variant_of_one_problem_leaves_the_others(tmp_path):
    problems = load_suite(write(tmp_path, SMALL_SUITE)).problems
    assert [p.name for p in problems] == ["polynomial[quadratic]", "three-bits"]
    wrong = SMALL_SUITE.replace('problem = "polynomial"', 'problem = "polynomal"')
    with pytest.raises(GradbenchError, match=r"variants.quadratic.problem is .*; did you mean"):
        load_suite(write(tmp_path, wrong))
