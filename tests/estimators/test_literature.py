"""Estimators are found by the names of the literature, and hyper-parameters by theirs."""

import json
import re
import subprocess
import sys

import jax
import pytest
from conftest import flat, small
from stored import assert_one_sentence

from gradbench import estimators
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import canonical
from gradbench.estimators import ESTIMATORS, get_estimator, make_estimator
from gradbench.estimators.registry import any_model, claims_of, evaluations

NAMES = {
    "u2g": "disarm",
    "sah": "psa",
    "ste": "straight_through",
    "st": "straight_through",
    "gumbel_softmax": "concrete",
    "gs": "concrete",
    "relaxed_bernoulli": "concrete",
    "stgs": "st_gumbel_softmax",
    "st_gs": "st_gumbel_softmax",
    "gst": "gapped_straight_through",
    "gst-1.0": "gapped_straight_through",
    "gst-p": "gapped_straight_through(gap='auto')",
    "mvd": "measure_valued",
    "loorf": "rloo",
    "vargrad": "rloo",
    "go": "ram",
    "indecater": "ram",
    "adf": "ap2",
    "pbnet": "local_reparameterization",
    "tanh": "mean_field",
    "ap1": "mean_field",
    "score_function": "reinforce",
    "score-function": "reinforce",
    "Score_Function": "reinforce",
    "hubara": "deterministic_straight_through",
    "BitFlip-1": "bitflip",
    "es": "evolution_strategies",
    "i-mle": "imle",
    "perturb_and_map": "imle",
    "binaryconnect": "deterministic_straight_through(proxy='identity')",
    "swish_sign": "deterministic_straight_through(proxy='swish', slope=5)",
    "binaryconnect(slope=2)": "deterministic_straight_through(proxy='identity', slope=2)",
    "gst-p(gap=2)": "gapped_straight_through(gap=2)",
    "mean_of(estimator='u2g', draws=3)": "mean_of(draws=3, estimator='disarm')",
    "nested(weights='ste', activations='sah')": (
        "nested(activations='psa', weights='straight_through')"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_literature_means_a_spec(name):
    assert canonical(name) == NAMES[name]
    (entry, arguments), (known, right) = get_estimator(name), get_estimator(NAMES[name])
    assert entry is known
    assert {
        k: canonical(v) if k in ("estimator", "weights", "activations") else v
        for k, v in arguments.items()
    } == right
    assert evaluations(name, (3, 2)) == evaluations(NAMES[name], (3, 2))
    assert [*claims_of([name]).values()] == [*claims_of([NAMES[name]]).values()]


def test_the_index_means_the_same_without_loading_the_registry():
    code = (
        "import json, sys\nfrom gradbench.core.specs import canonical\n"
        "found = {name: canonical(name) for name in json.loads(sys.argv[1])}\n"
        "assert 'jax' not in sys.modules\nprint(json.dumps(found))"
    )
    command = [sys.executable, "-c", code, json.dumps([*NAMES])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == NAMES


def test_what_an_alias_means_is_shown(capsys):
    from gradbench.cli.main import main

    assert main(["show", "estimator", "u2g"]) == 0
    assert capsys.readouterr().out.startswith("disarm(descendants='shared')")
    assert main(["show", "estimator", "gst-p"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("gapped_straight_through(gap='auto'")
    assert "gst_p (gapped_straight_through(gap='auto'))" in shown


@pytest.mark.parametrize(
    ("name", "meant"),
    [("gumbel_softmx", "concrete"), ("loorff", "rloo"), ("relaxed-bernouli", "concrete")],
)
def test_a_misspelt_name_of_the_literature_is_answered_by_meaning(name, meant):
    with pytest.raises(GradbenchError) as caught:
        get_estimator(name)
    assert_one_sentence(caught, f"did you mean {meant!r}")


@pytest.mark.parametrize(
    ("name", "nearest"), [("igr", "concrete"), ("IW-ST", "agr"), ("reinmax-cv", "reinmax_rao")]
)
def test_what_is_not_here_is_said_with_the_nearest(name, nearest):
    for call in (get_estimator, claims_of, lambda name: evaluations(name, (2,))):
        with pytest.raises(GradbenchError) as caught:
            call([name] if call is claims_of else name)
        assert_one_sentence(caught, "not here", f"take {nearest!r}")


def test_names_of_the_collection_are_estimators():
    for name in ("spsa", "bitflip", "decoupled_st", "ugc", "local_disarm", "forward_gradient"):
        assert get_estimator(name)[0].name == name


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("imle(lam=2)", "step"),
        ("decoupled_st(tau_f=2)", "forward"),
        ("spsa(sigma=0.1)", "scale"),
        ("concrete(tau=0.1)", "temperature"),
        ("concrete(t=0.1)", "temperature"),
        ("st_gumbel_softmax(temp=1)", "temperature"),
        ("rloo(K=3)", "samples"),
        ("gumbel_rao(n=3)", "samples"),
        ("unordered_set(k=3)", "samples"),
        ("mean_of(K=3)", "draws"),
        ("nvil(lr=0.1)", "rate"),
        ("ovis_mc(auxiliary=2)", "runs"),
        ("swish_sign(beta=5)", "slope"),
    ],
)
def test_hyperparameters_have_the_names_of_the_literature_too(spec, meant):
    with pytest.raises(GradbenchError) as caught:
        get_estimator(spec)
    assert_one_sentence(caught, f"did you mean {meant!r}")


@pytest.mark.slow
def test_an_alias_is_an_attribute_of_the_module_and_means_its_hyperparameters():
    model, params, batch = small((2, 2, 1))
    key = jax.random.key(0)
    for name, right in (("u2g", "disarm"), ("gst_p", "gapped_straight_through(gap='auto')")):
        own, other = getattr(estimators, name)(model), make_estimator(right, model)
        assert flat(jax.grad(own)(params, key, batch)) == pytest.approx(
            flat(jax.grad(other)(params, key, batch))
        )
    with pytest.raises(AttributeError, match="no attribute 'u2gg'"):
        _ = estimators.u2gg


WITHOUT_A_PAPER = {"exact", "mean_of", "path_integral"}


def test_every_estimator_of_the_package_has_a_full_name_and_a_link_to_its_paper():
    for name, entry in ESTIMATORS.items():
        if not ESTIMATORS.facts(name).module.startswith("gradbench."):
            continue
        assert entry.full_name and entry.full_name.isprintable(), name
        assert entry.full_name != name
        if name in WITHOUT_A_PAPER:
            assert not entry.paper
        else:
            assert re.fullmatch(r"https://[\w./?=-]+", entry.paper), name


def test_what_is_published_is_said_in_hyperparameters_that_can_be_given():
    """Each "key=literal" of a note makes an estimator, other than the default."""
    said = {
        name: re.findall(r"\w+=(?:'\w+'|True|False|\d+)", entry.as_published)
        for name, entry in ESTIMATORS.items()
    }
    assert said["rebar"] == ["coupling='tied'", "relaxation='rebar'"]
    for name, arguments in said.items():
        if arguments:
            entry, given = get_estimator(f"{name}({', '.join(arguments)})")
            entry.make(any_model, **given)
            assert all(entry.hyperparameters[key] != value for key, value in given.items()), name


def test_an_alias_with_hyperparameters_has_those_of_its_estimator():
    for entry in ESTIMATORS.values():
        for arguments in entry.presets.values():
            assert set(arguments) <= set(entry.hyperparameters)
            assert arguments != entry.hyperparameters
