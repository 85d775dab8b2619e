"""Suites that train networks too wide to enumerate, on small data of the right form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import trained
from small_data import binary, idx, source
from stored import assert_one_sentence

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.results import runs
from gradbench.suites import datasets
from gradbench.suites.datasets import sources
from gradbench.suites.instance import build
from gradbench.suites.networks import make_network
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite
from gradbench.suites.training.evaluate import _in_parts
from gradbench.suites.training.work import is_small

pytestmark = pytest.mark.usefixtures("quick_compilation")


def classes(shape, train, test, seed):
    """Noisy copies of ten random images, by class: easy to learn, and of the form of real data."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(0, 255, (10, *shape))
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        targets = rng.integers(0, 10, count, np.uint8)
        noisy = means[targets] + rng.normal(0, 60, (count, *shape))
        arrays |= {f"{split}_inputs": noisy.clip(0, 255).astype(np.uint8)}
        arrays |= {f"{split}_targets": targets}
    return arrays


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """The data sets of the suites, small, in a cache of their own."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADBENCH_CACHE", str(folder / "cache"))
        for seed, name in enumerate(("mnist", "fashion_mnist")):
            arrays = classes((28, 28), 4000, 1000, seed)
            add(patch, folder, name, source(arrays, arrays), {k: idx(v) for k, v in arrays.items()})
        arrays = classes((32, 32, 3), 2000, 500, 2)
        files = {
            f"{split}.bin": binary(arrays[f"{split}_inputs"], arrays[f"{split}_targets"])
            for split in ("train", "test")
        }
        add(patch, folder, "cifar10", source(arrays, arrays), files)
        yield


def add(patch, folder, name, made, files):
    patch.setitem(sources.SOURCES, name, made)
    (folder / name).mkdir()
    for file, content in files.items():
        (folder / name / file).write_bytes(content)
    datasets.add(name, folder / name)


# ------------------------------------------------------------------------------------ what is said


def test_the_network_of_train_cifar_is_that_of_the_paper():
    suite = load_suite("train-cifar")
    network = make_network(suite.problems[0].network, 3 * 32 * 32)
    maps = [(30, 96), (28, 96), (13, 96), (11, 192), (9, 192), (4, 192), (2, 192), (2, 192)]
    assert [layer.outputs for layer in network.layers] == [(n, n, c) for n, c in maps]
    assert network.objective.inputs == 768 and network.objective.outputs == 10
    plan = suite.plan
    assert (plan.batch, plan.optimisers) == (64, ("nesterov(momentum=0.9)",))
    assert len(plan.rates) == 10 and plan.rates[0] > 1e-6 and plan.rates[-1] < 1
    assert plan.search_steps == 5 * (50_000 // 64) and plan.steps == 100 * (50_000 // 64)
    quick = load_suite("train-cifar", quick=True).problems[0].network
    channels = [layer.conv for layer in quick.hidden]
    assert channels == [n // 4 for _, n in maps]


@pytest.mark.parametrize("name", ["train-mnist", "train-fashion"])
def test_twelve_estimators_train_a_dense_and_a_convolutional_network(name):
    suite = load_suite(name)
    assert len(suite.estimators) == 12 and "exact" not in map(family, suite.estimators)
    dense, conv = (make_network(problem.network, 784) for problem in suite.problems)
    assert [layer.outputs for layer in dense.layers] == [200, 200]
    assert [layer.outputs for layer in conv.layers] == [(12, 12, 8), (5, 5, 16)]
    assert (suite.plan.measured, suite.plan.optimisers) == (0, ("adam",))
    searching = len(suite.plan.rates) * suite.plan.search_seeds
    assert searching == suite.replicates  # so that search and report share a compiled program


def test_a_suite_whose_data_is_not_here_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "empty"))
    for suite, name in (("train-fashion", "fashion_mnist"), ("train-cifar", "cifar10")):
        for call in (describe, lambda suite: run(suite, tmp_path / "r", progress=False)):
            with pytest.raises(GradbenchError) as caught:
                call(suite)
            get, add = (f"'gradbench data {verb} {name}" for verb in ("get", "add"))
            assert_one_sentence(caught, f"the data set '{name}' is not on this machine", get, add)
    assert not (tmp_path / "r").exists()


def test_a_problem_that_names_no_initialisation_begins_with_the_one_that_trains_best(tmp_path):
    text = trained.PROBLEM
    line = 'initialisation = "normalised"\n'
    for name, changed in (("bare", ""), ("said", line.replace("normalised", "data_dependent"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.toml").write_text(tiny.changed(text, (line, changed)))
    with gradbench.float64():
        bare, said = (build(load_problem(tmp_path / n / "tiny.toml")) for n in ("bare", "said"))
        for one, other in zip(*map(jax.tree.leaves, (bare.initial(), said.initial())), strict=True):
            np.testing.assert_array_equal(one, other)
        a = jax.vmap(bare.network.layers[0], (None, 0))(bare.initial()[0], bare.data[0])
        np.testing.assert_allclose(jnp.mean(a, 0), 0, atol=1e-9)
        np.testing.assert_allclose(jnp.std(a, 0), 1, rtol=1e-9)


def test_the_loss_in_parts_is_the_mean_of_all_examples_each_with_a_key_of_its_own():
    def loss(params, key, batch):
        return jnp.mean(params * batch + jax.random.uniform(key))

    x = jnp.arange(1000.0)
    found = _in_parts(loss)(2.0, jax.random.key(0), x)
    assert abs(found - 999 - 0.5) < 0.05  # 1000 uniforms: a deviation of 0.009


# ---------------------------------------------------------------------------------- what is trained


@pytest.mark.slow
def test_a_shorter_search_and_losses_of_fewer_examples_are_of_the_same_runs(tmp_path):
    whole = trained.write(tmp_path / "whole")
    changes = ("samples = 2", "samples = 2\nsearch_steps = 10\nevaluated = 5")
    short = run(trained.write(tmp_path / "short", changes), tmp_path / "s", progress=False)
    for one in runs.stored(short):
        searched = one.identity["phase"] == "search"
        assert one.arrays["steps"].tolist() == ([0, 10] if searched else [0, 1, 5, 30])
    rate = {
        one.identity["estimator"]: one.identity["rates"][0]
        for one in runs.stored(short)
        if one.identity["phase"] == "report"
    }
    full = run(whole, tmp_path / "w", progress=False)
    for one in runs.stored(full):
        if one.identity["phase"] == "report":
            other = next(
                x
                for x in runs.stored(short)
                if x.identity["phase"] == "report"
                and x.identity["estimator"] == one.identity["estimator"]
            )
            if one.identity["rates"] == [rate[one.identity["estimator"]]]:
                np.testing.assert_array_equal(one.arrays["kept/1/0"], other.arrays["kept/1/0"])
                assert (one.arrays["loss"] != other.arrays["loss"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-mnist", "train-fashion"])
def test_the_quick_form_trains_both_networks_and_its_report_is_read(small_data, tmp_path, name):
    found = run(name, tmp_path / "r", quick=True, progress=False)
    ranked = gradbench.metrics.trained(found.directory)
    assert len(ranked) == 8 and (ranked["diverged"] == 0).all()
    curves = gradbench.metrics.learning(found.directory)
    first = curves[curves["step"] == 0].groupby(["problem", "estimator"])["loss"].mean()
    last = ranked.set_index(["problem", "estimator"])["loss"]
    assert (last < first.reindex(last.index)).all()
    pathwise = ranked[ranked["estimator"].isin(["straight_through", "psa"])]
    assert (pathwise[["accuracy", "mean_field_accuracy"]] > 0.5).all(axis=None)
    report = gradbench.write_report(found.directory).read_text()
    assert "No errors of gradients were measured here" in report


@pytest.mark.slow
def test_the_quick_form_of_train_cifar_trains_a_quarter_of_the_channels(small_data, tmp_path):
    found = run("train-cifar", tmp_path / "r", quick=True, progress=False)
    ranked = gradbench.metrics.trained(found.directory)
    assert len(ranked) == 3 and np.isfinite(ranked["loss"]).all()


@pytest.mark.slow
def test_the_first_steps_of_train_cifar_are_made_and_stored(small_data, tmp_path):
    """With all channels, on a batch of 64: of straight-through, at one rate."""
    suite = load_suite("train-cifar")
    plan = replace(suite.plan, steps=2, search_steps=None, rates=(0.03,), points=2, evaluated=16)
    suite = replace(suite, plan=plan, estimators=("straight_through",))
    assert not is_small(build(suite.problems[0]))
    found = run(suite, tmp_path / "r", progress=False)
    (one,) = (x for x in runs.stored(found) if x.identity["phase"] == "report")
    assert one.done and one.arrays["steps"].tolist() == [0, 2]
    assert one.arrays["diverged"].tolist() == [-1] and np.isfinite(one.arrays["loss"]).all()
