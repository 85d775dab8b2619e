"""Runs of training that are judged by more than their loss, and that have a second phase."""

import math
import shutil
from dataclasses import dataclass, replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import trained
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import idx, source, topics
from stored import assert_one_sentence

import gradbench
from gradbench import metrics
from gradbench.core.errors import GradbenchError
from gradbench.models import (
    ELBO,
    SBN,
    BinaryWeights,
    Dense,
    MultiSample,
    Readout,
    RealNetwork,
)
from gradbench.models.losses import bernoulli_likelihood
from gradbench.results import runs
from gradbench.results.manifest import suite_hash
from gradbench.results.quantities import read_quantity
from gradbench.suites import datasets
from gradbench.suites.data import load_data
from gradbench.suites.datasets.sources import SOURCES
from gradbench.suites.instance import ProblemInstance, build
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite
from gradbench.suites.training import engine, group
from gradbench.suites.training.judge import make_judge, precision
from gradbench.suites.training.stored import restored

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
CODES = """\
title = "Documents as codes"

[data]
name = "r8"
split = "train"
words = 30
targets = "counts"

[measured]
split = "test"

[network]
hidden = [5]
outputs = 30
objective = "multinomial_likelihood"
initialisation = "fan_in"
"""
CHANGES = [
    ('["exact", "straight_through"]', '["straight_through", "psa"]'),
    ("measured = 2", "measured = 0"),
    ("batch = 4", "batch = 8"),
    (
        "samples = 2",
        'samples = 2\nresult = "precision(at=10)"\ncontinuation = { estimator = "psa", steps = 7 }',
    ),
]


def made_up(patch, folder, train=60, test=20, words=30):
    """Put made-up documents in the place of a data set, in a cache of their own."""
    known, files = topics(train, test, words)
    patch.setitem(SOURCES, "r8", known)
    patch.setenv("GRADBENCH_CACHE", str(folder / "cache"))
    if not (folder / "documents").exists():
        (folder / "documents").mkdir()
        for name, content in files.items():
            (folder / "documents" / name).write_bytes(content)
        datasets.add("r8", folder / "documents")


def write(folder, *changes):
    """The path of a tiny suite with codes and a second phase, with parts changed."""
    suite = tiny.changed(tiny.changed(trained.SUITE, *CHANGES), *changes)
    return tiny.write(folder, suite, tiny=CODES)


# ------------------------------------------------------------------------------------ precision


def naive(codes, classes, query, own, at):
    """The share within the first ``at`` of a random order of ties, in the mean over all orders."""
    distance = (codes != query).sum(1)
    found, left = 0.0, at
    for radius in sorted(set(distance)):
        tied = distance == radius
        taken = min(left, tied.sum())
        found += taken * (classes[tied] == own).mean()
        left -= taken
    return found / at


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12))
def test_the_precision_is_the_mean_over_the_orders_of_ties(seed, units, at):
    rng = np.random.default_rng(seed)
    codes, queries = (rng.choice([-1.0, 1.0], (n, 5)) for n in (12, 3))
    codes[:, units:] = queries[:, units:] = 1  # so that there are many ties
    classes, own = rng.integers(0, 3, 12), rng.integers(0, 3, 3)
    found = precision(*map(jnp.asarray, (codes, classes, queries, own)), 7 if at > 7 else 3)
    wanted = [
        naive(codes, classes, q, c, 7 if at > 7 else 3) for q, c in zip(queries, own, strict=True)
    ]
    assert float(found) == pytest.approx(np.mean(wanted), abs=1e-12)


def test_codes_of_the_class_are_perfect_and_equal_codes_are_at_chance():
    classes = jnp.arange(40) % 4
    codes = jnp.stack([2.0 * (classes // 2) - 1, 2.0 * (classes % 2) - 1], axis=1)
    assert float(precision(codes, classes, codes[:4], classes[:4], 10)) == 1
    assert float(precision(codes * 0 + 1, classes, codes[:4], classes[:4], 10)) == 0.25
    assert float(precision(codes, classes, -codes[:4], classes[:4], 10)) == 0


@pytest.mark.slow
def test_precision_is_that_of_the_most_probable_codes_of_test_documents(tmp_path, monkeypatch):
    made_up(monkeypatch, tmp_path)
    built = build(load_suite(write(tmp_path)).problems[0])
    params = built.initial()
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * leaf]), params)
    found = make_judge(built, read_quantity("precision(at=10)"))(several, jax.random.key(0))
    codes, of = (
        np.asarray(built.network.codes(params, part[0])) for part in (built.data, built.batch)
    )
    kinds = [load_data("r8", {"split": name, "words": 30}).targets for name in ("train", "test")]
    wanted = [naive(codes, kinds[0], q, c, 10) for q, c in zip(of, kinds[1], strict=True)]
    assert found[0] == pytest.approx(np.mean(wanted)) and found[1] != found[0]


# ----------------------------------------------------------------------------------------- bound


def autoencoder(kl="closed"):
    return SBN((Dense(4, 3),), ELBO((Dense(3, 4),), kl))


@dataclass
class Problem:
    """What a judge of bounds reads of a problem."""

    network: object
    batch: object


@pytest.mark.slow
def test_the_bound_is_the_mean_of_test_examples_and_is_above_minus_log_p():
    bits = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (6, 4)))
    network, key = autoencoder(), jax.random.key(1)
    params = network.init(key)
    judge = make_judge(Problem(network, (bits, bits)), read_quantity("bound(samples=400)"))
    found = judge(jax.tree.map(lambda leaf: jnp.stack([leaf, 0 * leaf]), params), key)
    assert found[0] == pytest.approx(float(network.bound(params, (bits, bits), key, 400).mean()))
    assert found[1] == pytest.approx(4 * math.log(2))  # all bits are even
    # By the sum over all codes; 400 samples are near it, and the bound is above.
    states = jnp.asarray(list(product([-1.0, 1.0], repeat=3)))
    logits = [network.objective.read(params[-1], (x,)) for x in states]
    joint = jnp.array([[-bernoulli_likelihood(out, t) for out in logits] for t in bits])
    truth = -np.mean(jax.nn.logsumexp(joint, axis=1) - 3 * math.log(2))
    assert truth - 0.02 < found[0] < truth + 0.1


AUTOENCODER = """\
title = "Digits of 3 bits"

[data]
name = "binary_digits"
examples = 40

[measured]
split = "test"

[network]
hidden = [3]
objective = "elbo"
kl = "closed"
initialisation = "fan_in"
"""
OF_BOUNDS = [
    ('["exact", "straight_through"]', '["psa", "vimco", "local_disarm"]'),
    ("steps = 30", "steps = 5"),
    ("rates = [0.01, 0.1]", "rates = [0.01]"),
    ("extensions = 1", "extensions = 0"),
    ("measured = 2", "measured = 0"),
    ("samples = 2", 'samples = 2\nresult = "bound(samples=6)"\nbound_samples = 3'),
]


@pytest.mark.slow
def test_estimators_of_bounds_train_that_of_several_samples_beside_those_of_the_loss(tmp_path):
    """And all are judged by one bound, whatever they train."""
    suite = tiny.write(tmp_path, tiny.changed(trained.SUITE, *OF_BOUNDS), tiny=AUTOENCODER)
    found = run(suite, tmp_path / "r", progress=False)
    stored = {one.identity["estimator"]: one for one in runs.stored(found)}
    assert set(stored) == {"psa", "vimco", "local_disarm"}
    for one in stored.values():
        assert one.identity["bound_samples"] == 3 and one.identity["result"] == "bound(samples=6)"
        np.testing.assert_array_equal(one.arrays["bound"][0], stored["psa"].arrays["bound"][0])
        assert not np.array_equal(one.arrays["bound"][-1], one.arrays["bound"][0])
    plan = load_suite(suite).plan
    built = build(load_suite(suite).problems[0])
    made = group.Group(built, "vimco", plan.optimisers[0], "report", (0.01,), (0,), plan, "float64")
    sampled = replace(built.network.objective, kl="sampled")
    several = MultiSample(built.network.with_objective(sampled), 3)
    few = jax.tree.map(lambda leaf: leaf[:4], built.data)
    key, params = jax.random.key(0), built.initial()
    wanted = gradbench.estimators.vimco(several)(params, key, few)
    assert float(made.loss(params, key, few)) == pytest.approx(float(wanted))
    assert "bounds of 3 samples are trained by vimco, local_disarm" in describe(suite)


@pytest.mark.slow
def test_a_bound_without_its_samples_or_with_errors_of_gradients_is_refused(tmp_path):
    for (old, new), said in (
        (("\nbound_samples = 3", ""), "give bound_samples = 5"),
        (("measured = 0", "measured = 2"), "give measured = 0"),
    ):
        text = tiny.changed(tiny.changed(trained.SUITE, *OF_BOUNDS), (old, new))
        with pytest.raises(GradbenchError) as caught:
            describe(tiny.write(tmp_path, text, tiny=AUTOENCODER))
        assert_one_sentence(caught, said)


# ---------------------------------------------------------------------------------- second phase


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny suite with codes and a second phase, run to its end, and its folder."""
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        made_up(patch, folder)
        yield run(write(folder), folder / "r", progress=False), folder


@pytest.mark.slow
def test_the_second_phase_begins_where_the_first_one_ended(finished, monkeypatch):
    """Its steps are those of the engine with the other estimator, from the stored state."""
    results, folder = finished
    made_up(monkeypatch, folder)
    suite = load_suite(folder / "suite.toml")
    built = build(suite.problems[0])
    rate = metrics.trained(results.directory).set_index("estimator")["rate"]["straight_through"]
    of = ("straight_through", "nesterov(momentum=0.9)", "report", (float(rate),), (0, 1))
    judge = make_judge(built, read_quantity(suite.plan.result))
    first = group.Group(built, *of, suite.plan, suite.dtype, judge)
    then = first.continued()
    before, after = (runs.load(results, "runs", one.identity) for one in (first, then))
    assert after.identity["with_estimator"] == "psa" and list(after.arrays["steps"]) == [0, 1, 3, 7]
    start = restored(before.arrays, "state", first.begin(jnp.zeros(2)))
    make, momentum = first.make
    how = (then.loss, make, suite.plan.batch, True, momentum, jnp.full(2, rate), then.keys)
    end = engine.advance(*how, start, built.data, 0, 7)
    values = judge(end.params, jax.random.key(0))
    np.testing.assert_allclose(after.arrays["precision"][-1], values, rtol=1e-12)
    for name in ("loss", "precision"):  # at its step 0 it is what the first phase ended with
        np.testing.assert_array_equal(after.arrays[name][0], before.arrays[name][-1])
    assert not np.array_equal(after.arrays["loss"][-1], before.arrays["loss"][-1])


@pytest.mark.slow
def test_curves_go_on_through_the_second_phase_and_results_are_of_the_first(finished):
    frame = metrics.learning(finished[0].directory)
    own = frame[(frame["estimator"] == "psa") & (frame["seed"] == 1)]
    assert own["step"].tolist() == [0, 1, 5, 30, 31, 33, 37]
    assert own["continued"].tolist() == [False] * 4 + [True] * 3
    assert own["seconds"].is_monotonic_increasing and set(own["judged_by"]) == {"precision(at=10)"}
    ranked = metrics.trained(finished[0].directory).set_index("estimator")
    at = frame[frame["step"] == 30].groupby("estimator")
    end = frame[frame["step"] == 37].groupby("estimator")
    for name in ("loss", "result"):
        assert ranked[name].to_dict() == pytest.approx(at[name].mean().to_dict())
        assert ranked[f"continued_{name}"].to_dict() == pytest.approx(end[name].mean().to_dict())


@pytest.mark.slow
def test_the_search_of_rates_looks_at_the_loss_alone(finished):
    found = {one.identity["phase"]: one for one in runs.stored(finished[0])}
    assert set(found) == {"search", "report", "continue"}
    assert "precision" not in found["search"].arrays and "result" not in found["search"].identity
    assert "precision" in found["report"].arrays


@pytest.mark.slow
def test_a_second_phase_that_is_interrupted_ends_in_the_same_bits(finished, tmp_path, monkeypatch):
    results, folder = finished
    made_up(monkeypatch, folder)
    monkeypatch.setattr(group, "SAVE_SECONDS", -1.0)
    plain, count = group._save, [0]

    def save_and_stop(results, own, progress):
        plain(results, own, progress)
        count[0] += own.phase == "continue"
        if own.phase == "continue" and count[0] % 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(group, "_save", save_and_stop)
    for _ in range(20):
        try:
            run(folder / "suite.toml", tmp_path / "r", progress=False)
        except KeyboardInterrupt:
            continue
        break
    assert count[0] >= 4
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


@pytest.mark.slow
def test_a_method_is_not_finished_before_its_second_phase_is(finished, tmp_path):
    results, _ = finished
    copy = tmp_path / "r"
    shutil.copytree(results.directory, copy)
    (path,) = (copy / "runs").rglob("psa/*/continue-*.npz")
    path.unlink()
    assert "1 of 2 methods are not trained yet" in gradbench.show(copy)


@pytest.mark.slow
def test_a_dry_run_says_what_runs_are_judged_by_and_the_second_phase(finished, monkeypatch):
    made_up(monkeypatch, finished[1])
    said = describe(finished[1] / "suite.toml")
    assert "each of these goes on for 7 steps with psa" in said
    assert "judged by the precision at 10: larger is better" in said


def test_runs_of_before_keep_their_addresses():
    """Those of suites that say nothing of results and second phases."""
    suite = load_suite("train-digits")
    built = ProblemInstance(suite.problems[0], 0, 0, None, None, None)
    of = (built, "exact", "adam", "search", suite.plan.rates, (10, 11), suite.plan, suite.dtype)
    assert runs.identifier(group.Group(*of).identity) == "31be6b6f872dd24d"
    assert suite_hash(suite.as_dict()) == "6a013c102eaa352c"


# ------------------------------------------------------------------------------------- bad input

WRONG = {
    "unknown": ([("precision(at=10)", "recall")], "unknown result 'recall'"),
    "option": ([("precision(at=10)", "precision(k=10)")], "precision has no option 'k'"),
    "number": ([("precision(at=10)", "precision(at=0)")], "precision got at = 0"),
    "too many": ([("precision(at=10)", "precision(at=90)")], "at most precision(at=60)"),
    "estimator": ([('estimator = "psa"', 'estimator = "pas"')], "did you mean 'psa'"),
    "steps": ([("steps = 7", "steps = 0")], "training.continuation.steps is 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_result_or_a_second_phase_that_cannot_be_is_refused_in_one_sentence(
    name, tmp_path, monkeypatch
):
    changes, said = WRONG[name]
    made_up(monkeypatch, tmp_path)
    with pytest.raises(GradbenchError) as caught:
        run(write(tmp_path, *changes), tmp_path / "r", progress=False)
    assert_one_sentence(caught, said)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_data_without_classes_and_weights_without_states_are_refused(tmp_path):
    changes = [("measured = 2", 'measured = 2\nresult = "precision(at=2)"')]
    with pytest.raises(GradbenchError) as caught:
        run(trained.write(tmp_path, *changes), tmp_path / "r", progress=False)
    assert_one_sentence(caught, "the data set 'overlapping_classes' has no classes")
    network = BinaryWeights(RealNetwork((Dense(2, 2),), Readout(2, 1), jnp.tanh))
    with pytest.raises(GradbenchError) as caught:
        make_judge(Problem(network, None), read_quantity("bound"))
    assert_one_sentence(caught, "the result is a bound but the network is a BinaryWeights")


@pytest.mark.slow
def test_the_quick_form_of_train_vae_says_which_bound_is_best(tmp_path, monkeypatch):
    """On images of two kinds, whose -log p by chance is 784 log 2."""
    rng = np.random.default_rng(0)
    kinds = (255 * rng.integers(0, 2, (2, 28, 28))).astype(np.uint8)
    arrays = {}
    for name, size in (("train", 2000), ("test", 100)):
        classes = np.arange(size, dtype=np.uint8) % 2
        noise = rng.random((size, 28, 28)) < 0.05
        arrays |= {f"{name}_inputs": kinds[classes] ^ np.where(noise, 255, 0).astype(np.uint8)}
        arrays |= {f"{name}_targets": classes}
    monkeypatch.setitem(SOURCES, "mnist", source(arrays, arrays))
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    for name, array in arrays.items():
        (tmp_path / "mnist" / name).write_bytes(idx(array))
    datasets.add("mnist", tmp_path / "mnist")
    found = run("train-vae", tmp_path / "r", quick=True, progress=False)
    ranked = metrics.trained(found.directory)
    assert len(ranked) == 8 and (ranked["diverged"] == 0).all()
    assert ranked["result"].max() < 0.8 * 784 * math.log(2)
    best = ranked.groupby("problem")["result"].idxmin()
    assert (ranked.loc[best, "rank"] == 1).all()
    page = gradbench.write_report(found.directory).read_text()
    assert "the least bound of -log p, test data has" in page


@pytest.mark.slow
def test_the_quick_form_of_train_hashing_says_which_codes_are_best(tmp_path, monkeypatch):
    made_up(monkeypatch, tmp_path, 480, 1000, 300)
    found = run("train-hashing", tmp_path / "r", quick=True, progress=False)
    ranked = metrics.trained(found.directory)
    assert len(ranked) == 10 and (ranked["diverged"] == 0).all()
    assert ranked.groupby("problem")["rank"].min().eq(1).all()
    assert ranked["result"].min() > 0.5 and (ranked["result"] <= 1).all()  # by chance 0.25
    assert (ranked["continued_loss"] < ranked["loss"] + 5).all()
    page = gradbench.write_report(found.directory).read_text()
    assert "the greatest precision at 100 has" in page
    assert "All methods went on for 50 steps with" in page
