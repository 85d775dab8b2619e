"""Display names: what figures and tables call an estimator, with and without its plugin."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import write_run

from gradbench import metrics
from gradbench.core.display import display_name, display_names, names_to_keep
from gradbench.core.names import visible
from gradbench.core.specs import canonical
from gradbench.estimators import ESTIMATORS, mean_of, register

TIMES = "\N{MULTIPLICATION SIGN}"
NAMES = {
    "psa": "PSA",
    "straight_through": "ST",
    "straight_through(proxy='identity')": "ST, identity proxy",
    "concrete(temperature=0.1)": "Concrete, t = 0.1",
    "arm(descendants='independent')": "ARM, independent tails",
    "rloo(samples=4)": "RLOO, 4 samples",
    "rloo(samples=1)": "RLOO, 1 sample",
    "stochastic_triples(pruned=True)": "stochastic triples, pruned",
    "ugc(threshold=None)": "UGC, no threshold",
    "decoupled_st(backward=2, forward=0.5)": "decoupled ST, backward = 2, forward = 0.5",
    "nested": f"ST {TIMES} PSA",
    "nested(activations='leg', weights='arm')": f"ARM {TIMES} LEG",
    "mean_of(draws=4, estimator='arm')": f"mean of 4 {TIMES} ARM",
    "per_layer(layers='reinforce, psa')": "REINFORCE / PSA",
    "average": "mean of ST and ZGR",
}


@pytest.mark.parametrize(("spec", "name"), NAMES.items())
def test_the_name_of_an_estimator(spec, name):
    assert display_name(spec) == name


def test_every_estimator_of_the_package_has_a_name_of_its_own():
    found = display_names(ESTIMATORS.names())
    assert len(set(found.values())) == len(found)
    assert all(ESTIMATORS[name].display_name for name in found)
    assert all(len(text) < 30 and "{" not in text for text in found.values())


def test_a_preset_is_named_by_what_it_means():
    assert display_name(canonical("agr")) == "Gumbel-Rao, all samples"


@given(st.text())
def test_any_text_has_a_name_of_one_line(text):
    assert display_name(text) == visible(display_name(text))
    assert display_name("psa", {"psa": text}) == visible(text or display_name("psa"))


def test_what_is_malformed_or_unknown_is_called_by_its_text():
    for text in ("psa(", "nobody(x=1)", "psa(a, b)", "{draws}", "$x$"):
        assert display_name(text) == text


def test_no_two_estimators_share_a_name():
    known = {"theirs": "PSA"}
    assert display_names(["psa", "theirs", "arm"], known) == {
        "psa": "psa",
        "theirs": "theirs",
        "arm": "ARM",
    }


@pytest.fixture
def plugin():
    with ESTIMATORS.restored():

        @register(
            family="arm",
            exactness="unbiased",
            source="this test",
            display_name="two {draws.__class__} {draws}",
        )
        def of_a_plugin(model, *, draws: int = 2):
            """The mean of draws."""
            return mean_of(model, draws=draws)

        yield "of_a_plugin(draws=3)"


def test_results_keep_the_names_of_plugins_alone(plugin, tmp_path):
    # What is no hyper-parameter stays text: nothing is read out of the value.
    assert display_name(plugin) == "two {draws.__class__} 3"
    inside = f'mean_of(draws=2, estimator="{plugin}")'
    kept = names_to_keep(["psa", plugin, inside, "mean_of"])
    assert kept == {
        plugin: "two {draws.__class__} 3",
        inside: f"mean of 2 {TIMES} {kept[plugin]}",
    }


@pytest.mark.slow
def test_frames_have_the_names_that_results_keep(tmp_path):
    write_run(tmp_path, names={"psa": "Ours $x_1$", "reinforce": ""})
    for frame in (
        metrics.summary(tmp_path),
        metrics.curves(tmp_path),
        metrics.coordinates(tmp_path),
        metrics.rank(tmp_path),
    ):
        known = metrics.names_in(frame)
        assert known == {"psa": "Ours $x_1$"}
        assert display_name("psa", known) == "Ours $x_1$"
    write_run(tmp_path / "other")
    assert "display_name" not in metrics.summary(tmp_path / "other")
    assert metrics.names_in(metrics.summary(tmp_path / "other")) == {}


def test_names_are_read_without_jax():
    code = (
        "import sys; from gradbench.core.display import display_name as name; "
        "print(name('psa')); assert 'jax' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "PSA\n"
