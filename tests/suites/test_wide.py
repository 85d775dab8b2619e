"""Suites of networks too wide to enumerate: measured against a sampled gradient, which is told."""

import shutil

import numpy as np
import pytest
import tiny
from conftest import threshold
from stored import assert_one_sentence

from gradbench import metrics
from gradbench.cli.show import show
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.measure.reference import reference
from gradbench.measure.sampled_reference import SampledReference
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.problem import Sampled
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite

pytestmark = pytest.mark.usefixtures("quick_compilation")

REFERENCE = '[reference]\nrel_se = 0.2\nestimator = "disarm"\n'
WIDE = tiny.changed(tiny.PROBLEM, ("hidden = [2]", "hidden = [40]"))
SUITE = tiny.changed(
    tiny.SUITE,
    ('"arm", "straight_through", "psa"', '"straight_through"'),
    ("averages = [3, 10]\n", "\n" + REFERENCE),
)
PLACES = [CheckpointId("tiny", 0, f"epoch {epoch}") for epoch in (0, 10)]


@pytest.fixture(scope="module")
def measured(quick_compilation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    return run(tiny.write(folder, SUITE, tiny=WIDE), folder / "results", progress=False)


def test_a_network_too_wide_is_refused_with_the_table_that_measures_it(tmp_path):
    path = tiny.write(tmp_path, tiny.SUITE, tiny=WIDE)
    with pytest.raises(GradbenchError) as caught:
        run(path, tmp_path / "results", progress=False)
    assert_one_sentence(
        caught, "problem 'tiny': enumerating", "add a table [reference] with rel_se"
    )
    assert not (tmp_path / "results").exists()
    assert "40 hidden units" in describe(tiny.write(tmp_path / "with", SUITE, tiny=WIDE))


@pytest.mark.slow
def test_its_gradients_are_sampled_along_training_and_kept_with_their_noise(measured):
    found = Results.open(measured.directory)
    for place in PLACES:
        stored = found.load_reference(place)
        assert stored.info["route"] == "sampled" and stored.info["samples"]["estimator"] == "disarm"
        assert all(0 < error <= 0.2 for error in stored.info["samples"]["rel_se"].values())
        assert [len(blocks.mean()) for blocks in stored.blocks] == list(map(len, stored.gradient))
    cells = list(metrics.measurements(found))
    assert len(cells) == 4 and all(cell.reference is not None for cell in cells)
    frame = metrics.summary(cells).set_index(["layer", "estimator"])
    assert not frame["exact"].any() and (frame["bias_se"] > 0).sum() >= 4
    told = show(measured.directory).splitlines()[-1]
    assert told.startswith("sampled gradients: known to ") and "of disarm; every interval" in told


def test_a_table_of_the_problem_counts_more_than_that_of_the_suite(tmp_path):
    other = "\n[reference]\nrel_se = 0.5\nseconds = 9\n"
    path = tiny.write(tmp_path, SUITE, tiny=WIDE + other)
    (problem,) = load_suite(path).problems
    assert problem.reference == Sampled(0.5, 9.0)
    plain = load_suite(tiny.write(tmp_path, SUITE, tiny=WIDE)).problems[0]
    assert plain.reference == Sampled(0.2, 600.0, "disarm")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rel_se = 0.2", "rel_se = 1.5", "reference.rel_se is 1.5; give a finite number above 0"),
        ("rel_se = 0.2", "relse = 0.2", "unknown key reference.relse; did you mean 'rel_se'?"),
        ('"disarm"', '"disram"', "reference.estimator is"),
        ("rel_se = 0.2", "seconds = 0", "reference.seconds is 0"),
    ],
)
def test_what_is_wrong_in_the_table_is_one_sentence(tmp_path, old, new, words):
    with pytest.raises(GradbenchError) as caught:
        load_suite(tiny.write(tmp_path, tiny.changed(SUITE, (old, new)), tiny=WIDE))
    assert_one_sentence(caught, words)


def test_the_exact_gradient_is_no_estimator_of_what_cannot_be_enumerated(tmp_path):
    suite = tiny.changed(SUITE, ('"straight_through"', '"exact"'))
    with pytest.raises(GradbenchError) as caught:
        run(tiny.write(tmp_path, suite, tiny=WIDE), tmp_path / "results", progress=False)
    assert_one_sentence(caught, "'exact' enumerates all states", "leave it out")


@pytest.mark.slow
def test_an_interrupted_gradient_goes_on_and_ends_in_the_same_bits(measured, tmp_path, monkeypatch):
    honest, saved = SampledReference.save, []

    def save(self, path, state):
        honest(self, path, state)
        saved.append(state.draws)
        if state.draws:
            raise KeyboardInterrupt

    path = measured.directory.parent / "suite.toml"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SampledReference, "save", save)
        run(path, tmp_path, progress=False)
    assert saved == [0, 1024] and len(list((tmp_path / "unfinished").rglob("*.npz"))) == 1
    run(path, tmp_path, progress=False)
    for place in PLACES:
        one, two = (Results.open(d).load_reference(place) for d in (tmp_path, measured.directory))
        for a, b in zip(one.blocks, two.blocks, strict=True):
            assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
    assert tiny.numbers(tmp_path) == tiny.numbers(measured.directory)
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.slow
def test_a_time_limit_ends_a_gradient_with_a_warning():
    params = (np.array([[0.5, -1.0], [1.0, 0.3]]), np.array([0.7, -0.4]))
    batch = (np.array([[1.0, 0.5], [-0.3, 0.8]]), np.array([0.0, 1.0]))

    def own(params, example, binary):
        x = binary(params[0] @ example[0], noise="logistic")
        return (params[1] @ x - example[1]) ** 2

    how = {"method": "sampled", "estimators": "disarm", "rel_se": 1e-6}
    with pytest.warns(GradbenchWarning, match="raise seconds and most_draws"):
        found = reference(own, params, batch, seconds=1e-3, **how)
    assert found.samples.draws == 1024
    with pytest.raises(GradbenchError, match="seconds is 0"):
        reference(own, params, batch, seconds=0, **how)


# --- what others may have made of the files ---


def changed(directory, **arrays):
    """Writes a reference anew with other arrays in the place of its own."""
    found = Results.open(directory)
    stored = found.load_reference(PLACES[0])
    blocks = [
        one._replace(**{name: f(getattr(one, name)) for name, f in arrays.items()})
        for one in stored.blocks
    ]
    suite = found.manifest
    with Results.open_or_create(directory, suite["suite"], suite["seed"], suite["draws"]) as open_:
        open_.save_reference(PLACES[0], stored.value, stored.gradient, stored.info, blocks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": lambda x: x * 0.5},
        {"counts": lambda x: 2 * x},
        {"means": lambda x: x + 1e-3},
        {"means": lambda x: x * np.nan},
        {"means": lambda x: x[:-1]},
        {"m2": lambda x: -x},
        {"m2": lambda x: x[:, :-1]},
    ],
)
def test_impossible_draws_of_a_gradient_are_refused(measured, tmp_path, wrong):
    directory = tmp_path / "results"
    shutil.copytree(measured.directory, directory)
    changed(directory, **wrong)
    with pytest.raises(GradbenchError) as caught:
        metrics.summary(directory)
    assert_one_sentence(caught, "is not as gradbench writes it; delete it and run again")


@pytest.mark.slow
def test_the_noise_of_the_gradient_is_what_draws_of_it_show(measured):
    """The covariance of the reference is that of independent halves of its draws; rate 1e-6."""
    stored = Results.open(measured.directory).load_reference(PLACES[0])
    z = []
    for blocks in stored.blocks:
        half = len(blocks.counts) // 2
        one, two = (
            type(blocks)(*(part[cut] for part in blocks))
            for cut in (slice(half), slice(half, None))
        )
        spread = np.sqrt(one.variances() + two.variances())
        z += list(np.abs(one.mean() - two.mean()) / np.where(spread > 0, spread, np.inf))
    assert max(z) < threshold(1e-6, len(z))
