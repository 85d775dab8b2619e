"""What has changed between two results: found where it is real, and seldom where it is not.

Simulations have fixed seeds and binomial limits: a correct rate is refused with a probability of
1e-6 at most.
"""

import math
import shutil

import numpy as np
import pytest
from scipy.stats import binom
from stored import assert_one_sentence, drawn

import gradbench
from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.metrics import compare, layers_of
from gradbench.metrics.compare import _scaled
from gradbench.metrics.significance import holm
from gradbench.results.store import Results

GRADIENT = np.array([3.0, 0.0, -4.0])  # |G| = 5
NAMES = ("psa", "arm", "zgr")


def cells(noise, scale=1.0, shift=0.0, gradient=GRADIENT, averages=()):
    """Cells of estimators [k] of the relative variance scale^2 from normal noise [k, N, 3]."""
    mean = gradient + np.array([0.0, 5.0 * shift, 0.0])
    draws = mean + 5.0 * scale / math.sqrt(3) * noise
    return [
        drawn(own, gradient, 32, averages, estimator=name)
        for name, own in zip(NAMES, draws, strict=False)
    ]


def exactly(variance, bias=0.0, name="psa"):
    """A cell with these exact moments, relative."""
    return known(GRADIENT + np.array([0.0, 5.0 * bias, 0.0]), variance, name)


def known(mean, variance, name="psa"):
    moments = [(mean, 25.0 * np.array([variance, 0, 0]))]
    draws = np.stack([GRADIENT, GRADIENT + 1.0])
    return drawn(draws, GRADIENT, 2, (1,), moments=moments, estimator=name)


def normal(seed, count=3, draws=640):
    return np.random.default_rng(seed).normal(size=(count, draws, 3))


@pytest.mark.parametrize("by", ["rmse", "bias", "snr", "cosine", "descent", "scale_free_bias"])
def test_results_are_the_same_as_themselves(by):
    own = cells(normal(0), averages=(1,))
    own += [exactly(1.0, 0.1, "rloo"), exactly(0.0, 0.1, "mean_field")]
    frame = compare(own, own, by)
    assert frame["change"].tolist() == ["same"] * 5
    assert frame["p"].tolist() == [1.0] * 5 and frame["p_adjusted"].tolist() == [1.0] * 5
    assert (frame["before"] == frame["after"]).all()


def test_a_variance_a_tenth_larger_is_worse_and_back_it_is_better():
    """Of the same random numbers, as a changed implementation has them."""
    noise = normal(1)
    before, after = cells(noise), cells(noise, 1.1)
    frame = compare(before, after)
    assert frame["change"].tolist() == ["worse"] * 3
    assert frame["ratio"].to_numpy() == pytest.approx([1.1] * 3, rel=0.01)
    assert compare(after, before)["change"].tolist() == ["better"] * 3
    assert (frame["p"] <= frame["p_adjusted"]).all() and (frame["p_adjusted"] < 0.01).all()
    assert (frame["before_low"] < frame["before"]).all()
    assert (frame["after"] < frame["after_high"]).all()


def test_where_higher_is_better_more_is_better():
    noise = normal(2)
    before, after = cells(noise, 2.0, averages=(1,)), cells(noise, 1.0, averages=(1,))
    for by in ("snr", "cosine"):
        assert compare(before, after, by)["change"].tolist() == ["better"] * 3
        assert compare(after, before, by)["change"].tolist() == ["worse"] * 3


def test_only_what_has_changed_is_said_to_have():
    noise = normal(3)
    before, biased = cells(noise), cells(noise, shift=0.4)
    frame = compare(before, [before[0], biased[1], before[2]])
    assert frame["change"].tolist() == ["same", "worse", "same"]


def test_a_margin_forgives_what_is_within_it_and_nothing_beyond():
    noise = normal(4)
    for scale, margin, change in [
        (1.04, 0.0, "worse"),
        (1.04, 0.05, "same"),
        (1.2, 0.05, "worse"),
        (0.96, 0.05, "same"),
        (0.8, 0.05, "better"),
        (0.8, 1.0, "same"),
        (0.8, 3.0, "same"),
    ]:
        frame = compare(cells(noise), cells(noise, scale), margin=margin)
        assert frame["change"].tolist() == [change] * 3, (scale, margin)


def test_what_is_scaled_has_the_errors_of_scaled_draws():
    """The squared error of draws 1.2 times as far from the gradient is 1.44 times as large."""
    noise = normal(10, 1)
    (one,), (two,) = ([*layers_of(cells(noise, scale, 0.3 * scale)[0])] for scale in (1.0, 1.2))
    found, expected = _scaled(one.accuracy, 1.44), two.accuracy
    for name in ("bias2", "variance", "covariance", "influence"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)


@pytest.mark.parametrize("by", ["rmse", "mse", "variance", "std", "bias", "descent", "snr"])
def test_a_margin_is_relative_to_the_metric_in_either_direction(by):
    """Exact moments: what is 4 % away is within 5 %, what is 6 % away is not."""
    power = 0.5 if by in ("mse", "variance") else 1.0
    for size in (0.04, 0.06, -0.04, -0.06):
        times = (1 + size) ** power
        before, after = known(GRADIENT, 1.0), known(times * GRADIENT, 1.0)
        if by not in ("descent", "snr"):
            before, after = exactly(1.0, 0.5), exactly(times**2, 0.5 * times)
        (row,) = compare([before], [after], by, margin=0.05).to_dict("records")
        assert row["ratio"] == pytest.approx(1 + size, rel=1e-9)
        worse = size < 0 if by in ("descent", "snr") else size > 0
        beyond = "worse" if worse else "better"
        assert row["change"] == ("same" if abs(size) < 0.05 else beyond), size


def test_a_margin_is_relative_where_a_metric_is_negative_too():
    """Means that point away from the gradient: what does so more is worse."""
    for times, change in [(1.04, "same"), (1.06, "worse"), (0.96, "same"), (0.94, "better")]:
        before, after = known(-GRADIENT, 1.0), known(-times * GRADIENT, 1.0)
        frame = compare([before], [after], "descent", margin=0.05)
        assert frame["change"].tolist() == [change], times


def test_losing_an_infinite_signal_to_noise_ratio_is_worse():
    still, noisy = exactly(0.0, 0.1), exactly(0.5, 0.1)
    assert compare([still], [noisy], "snr")["change"].item() == "worse"
    assert compare([noisy], [still], "snr")["change"].item() == "better"


@pytest.mark.slow
def test_nothing_is_called_changed_in_independent_results_of_the_same_estimators():
    """150 comparisons of three estimators with other random numbers: at most 1 % of them."""
    rng = np.random.default_rng(5)
    changed = 0
    for _ in range(150):
        before, after = (cells(rng.normal(size=(3, 320, 3)), shift=0.1) for _ in range(2))
        changed += (compare(before, after)["change"] != "same").any()
    assert changed <= binom.isf(1e-6, 150, 0.01)


@pytest.mark.slow
def test_the_p_values_of_no_change_are_spread_evenly():
    """So that the test above is no accident of a test that never finds anything."""
    rng = np.random.default_rng(6)
    p = []
    for _ in range(100):
        before, after = (cells(rng.normal(size=(2, 320, 3)), shift=0.3) for _ in range(2))
        frame = compare(before, after)
        assert frame["p_adjusted"].tolist() == holm(frame["p"].to_numpy()).tolist()
        assert (frame["change"] == "same").tolist() == (frame["p_adjusted"] >= 0.01).tolist()
        p += frame["p"].tolist()
    below = np.sum(np.array(p) < 0.5)
    assert binom.ppf(1e-6, 200, 0.4) <= below <= binom.isf(1e-6, 200, 0.6)


def test_what_only_one_of_the_results_has_is_gone_or_new():
    noise = normal(7)
    frame = compare(cells(noise)[:2], cells(noise)[1:])
    assert frame["estimator"].tolist() == ["psa", "arm", "zgr"]
    assert frame["change"].tolist() == ["gone", "same", "new"]
    assert frame["layer"].tolist() == ["layer 1"] * 3 and frame["M"].tolist() == [1] * 3
    assert frame[["after", "p", "ratio"]].loc[0].isna().all()
    assert frame["p_adjusted"].notna().tolist() == [False, True, False]


@pytest.mark.parametrize("by", ["rmse", "bias", "scale_free_bias", "std"])
def test_rounding_is_no_change(by):
    """Exact moments of another machine differ in the last digit."""
    before = [known(GRADIENT, 1.0), known(GRADIENT, 0.0, "exact")]
    after = [
        known(GRADIENT * (1 + 1e-15), 1.0 + 1e-15),
        known(GRADIENT * (1 - 1e-15), 0.0, "exact"),
    ]
    assert compare(before, after, by)["change"].tolist() == ["same"] * 2


def test_draws_that_are_not_finite_cannot_be_compared():
    noise = normal(11)
    wrong = cells(np.where(np.arange(640)[:, None] == 5, np.nan, noise))
    with pytest.raises(GradbenchError) as caught:
        compare(cells(noise), wrong)
    assert_one_sentence(caught, "psa")


def test_a_gradient_of_zero_is_said():
    own = cells(normal(8), gradient=np.zeros(3))
    frame = compare(own, own)
    assert frame["change"].tolist() == ["zero gradient"] * 3
    assert frame["p"].isna().all() and frame["ratio"].isna().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: compare(a, a, "rsme"), "unknown metric 'rsme'; did you mean 'rmse'?"),
        (lambda a: compare(a, a, "cosine", 7), "do not keep directions at M = 7; take one of 1"),
        (
            lambda a: compare(a, [cell._replace(problem="other") for cell in a], "bias"),
            "the first has 'toy/0/epoch 100/layer 1/psa', the second 'other/0/epoch",
        ),
        (lambda a: compare(a, []), "the second none"),
        (
            lambda a: compare(a, [cell._replace(gradient=[1.001 * GRADIENT]) for cell in a]),
            "the exact gradients at toy/0/epoch 100/layer 1 differ: the results are of different",
        ),
        (
            lambda a: compare(a, [drawn(np.ones((9, 2)), GRADIENT[:2], 3)]),
            "compare runs of one suite with one seed",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(call, words):
    with pytest.raises(GradbenchError) as caught:
        call(cells(normal(9), averages=(1,)))
    assert_one_sentence(caught, words)


# --- two directories, and the exit code ---


@pytest.fixture
def call(capsys):
    """Runs a command: exit code, output and error."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def opened(directory):
    return Results.open_or_create(directory, Results.open(directory).manifest["suite"], 0, 71)


def scaled(directory, name, factor):
    """Multiplies the exact variance of an estimator by a factor everywhere."""
    with opened(directory) as results:
        for cell in results.cells():
            if cell.estimator == name:
                mean, variance = zip(*results.load_moments(cell.place, name), strict=True)
                results.save_moments(cell.place, name, mean, [factor * v for v in variance])


def replaced(directory, name, by):
    """Puts what was drawn of one estimator in the place of another; no moments are known."""
    with opened(directory) as results:
        for cell in results.cells():
            if cell.estimator == name:
                meta, blocks = results.cell(*cell.place, by).load()
                cell.discard()
                cell.append(blocks, meta)


def forget_moments(directory):
    for path in (directory / "moments").rglob("*.npz"):
        path.unlink()


@pytest.mark.slow
def test_a_directory_compared_with_itself_is_the_same_and_passes(finished_run, call):
    results = finished_run / "results"
    for failing in ("different", "5%"):
        code, out, error = call("compare", results, results, "--fail-on", failing)
        assert (code, error) == (0, "")
    # Two checkpoints, four estimators, two layers and the network.
    assert out.splitlines()[-1] == "24 same; p adjusted by Holm's method"
    frame = gradbench.compare(results, results)
    assert frame["change"].tolist() == ["same"] * 24


@pytest.mark.parametrize(
    ("factor", "failing", "code"),
    [
        (1.21, None, 0),
        (1.21, "worse", 1),
        (1.21, "5%", 1),
        (1.21, "15%", 0),
        (0.81, "worse", 0),
        (0.81, "different", 1),
    ],
)
@pytest.mark.slow
def test_a_regression_fails_when_asked_for(finished_run, finished, call, factor, failing, code):
    scaled(finished / "results", "arm", factor)
    asked = [] if failing is None else ["--fail-on", failing]
    found, out, error = call("compare", finished_run / "results", finished / "results", *asked)
    assert (found, error) == (code, "")
    rows = [line for line in out.splitlines() if " arm " in line]
    word = "same" if failing == "15%" else "worse" if factor > 1 else "better"
    assert len(rows) == 6 and all(row.endswith(word) for row in rows)
    ratios = {row.split()[-3] for row in rows}
    assert ratios == {f"{math.sqrt(factor):.3f}"}  # it is unbiased


@pytest.mark.slow
def test_another_estimator_under_the_same_name_is_found_from_its_draws(
    finished_run, finished, call
):
    before, after = finished / "results", finished / "other"
    forget_moments(before)
    shutil.copytree(before, after)
    replaced(after, "straight_through", "reinforce")
    code, out, _ = call("compare", before, after, "--fail-on", "worse")
    assert code == 1
    assert "worse" in out and {"same"} == {
        line.split()[-1] for line in out.splitlines() if " psa " in line or " arm " in line
    }
    assert call("compare", after, before, "--fail-on", "worse")[0] == 0
    assert call("compare", after, before, "--fail-on", "different")[0] == 1


@pytest.mark.slow
def test_results_of_another_seed_or_problem_are_one_sentence(finished_run, finished, call):
    results = finished_run / "results"
    with opened(finished / "results") as other:
        for place in {cell.place for cell in other.cells()}:
            found = other.load_reference(place)
            gradient = [-layer for layer in found.gradient]
            other.save_reference(place, found.value, gradient, found.info)
    code, out, error = call("compare", results, finished / "results")
    assert (code, out) == (2, "") and error.count("\n") == 1
    assert "the exact gradients at tiny/0/epoch 0/layer 1 differ" in error


@pytest.mark.slow
def test_what_is_not_finished_is_said_of_the_directory_that_lacks_it(finished_run, finished, call):
    for shard in (finished / "results").glob("shards/*/*/epoch*10/psa/*.parquet"):
        shard.unlink()
    directories = finished_run / "results", finished / "results"
    code, out, error = call("compare", *directories)
    assert code == 0 and out.splitlines()[-1].startswith("21 same, 3 gone;")
    assert call("compare", *directories, "--fail-on", "5%")[0] == 1
    assert call("compare", *directories[::-1], "--fail-on", "5%")[0] == 0
    assert call("compare", *directories[::-1], "--fail-on", "different")[0] == 1
    assert error == (
        f"{finished / 'results'}: 1 of 8 cells is not finished; the same `gradbench run` "
        "continues it\n"
    )
