"""What is told of runs of training, on numbers that are planted."""

import math

import numpy as np
import pytest
import trained as planted
from scipy.stats import spearmanr
from stored import assert_one_sentence, write_run

from gradbench import metrics
from gradbench.core.atomic import CorruptFile, pack
from gradbench.core.errors import GradbenchError
from gradbench.metrics.correlation import AVERAGES, distinct, spearman
from gradbench.metrics.training import averaging, rmse_along
from gradbench.metrics.training_tables import training_table
from gradbench.results import runs
from gradbench.results.store import Results

SIZES = {"reinforce": 3.0, "arm": 1.0, "straight_through": 0.2, "psa": 0.1, "zgr": 0.4}
BIASES = {"reinforce": 0.0, "arm": 0.0, "straight_through": 0.4, "psa": 0.05, "zgr": 0.6}


def size(name):
    return SIZES.get(name, 0.0)


def bias(name):
    return BIASES.get(name, 0.0)


def own(name):
    return "zgr" if name == "reinmax" else name


def test_an_optimiser_averages_over_one_plus_m_by_one_minus_m_steps():
    specs = ["sgd", "nesterov(momentum=0)", "nesterov(momentum=0.9)", "nesterov(momentum=0.99)"]
    assert list(map(averaging, specs)) == [1, 1, 19, 199]
    assert averaging("adam") == 19 and averaging("adam(momentum=0.5)") == 3


@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_that_of_spearman(ties):
    rng = np.random.default_rng(0)
    x, y = rng.integers(4, size=(2, 5, 9)) if ties else rng.standard_normal((2, 5, 9))
    for one, other, found in zip(x, y, spearman(x, y), strict=True):
        assert found == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


def test_a_curve_has_its_seconds_and_ends_in_nan_where_a_run_diverged(tmp_path):
    planted.write_runs(tmp_path / "r", diverged=[("arm", 1)])
    frame = metrics.learning(tmp_path / "r")
    assert len(frame) == 2 * 2 * 7 * 3 * 3
    rows = frame[(frame["estimator"] == "arm") & (frame["seed"] == 1)]
    assert rows["loss"].isna().tolist() == [False, False, True] * 4
    assert set(rows["diverged"]) == {50.0}
    np.testing.assert_allclose(rows["seconds"], rows["step"] * 3.0 / 100 / 3)
    assert frame[frame["estimator"] == "psa"]["diverged"].isna().all()
    assert set(frame["width"]) == {4.0, 5.0}


def test_the_error_of_m_draws_is_that_of_a_batch_as_trained_with(tmp_path):
    planted.write_runs(tmp_path / "r", bias=bias, deviation=size)
    errors = metrics.gradient_errors(tmp_path / "r")
    for average in (1, 16):
        found = rmse_along(errors, average)
        for name in SIZES:
            truth = math.sqrt(BIASES[name] ** 2 + SIZES[name] ** 2 / average)
            rows = found[found.index.get_level_values("estimator") == name]
            np.testing.assert_allclose(rows, truth, rtol=0.02)


@pytest.mark.slow
def test_the_correlation_finds_the_m_that_decides(tmp_path):
    """Losses that follow the RMSE of 16 draws, which orders estimators as no other M does."""
    size16 = {name: math.sqrt(BIASES[name] ** 2 + SIZES[name] ** 2 / 16) for name in SIZES}
    planted.write_runs(
        tmp_path / "r",
        bias=bias,
        deviation=size,
        loss=lambda name, seed: size16.get(own(name), 0.0) + 0.01 * seed,
    )
    frame = metrics.correlation(tmp_path / "r")
    assert set(frame["estimators"]) == {5} and set(frame["seeds"]) == {3}  # reinmax is zgr
    assert set(frame["M"]) == {*AVERAGES, 19}
    assert set(frame[frame["chosen"]]["M"]) == {19}
    at = frame[frame["problem"] == "a[width=4]"].groupby("M")["correlation"].first()
    assert at[16] == pytest.approx(1) and at[1] < 0.9 and at[4096] < 0.9
    assert (frame["correlation_low"] <= frame["correlation"] + 1e-12).all()
    assert (frame["correlation_high"] >= frame["correlation"] - 1e-12).all()


@pytest.mark.slow
def test_a_correlation_that_is_not_there_has_zero_in_its_interval(tmp_path):
    """In 19 of 20 networks; here are 40, of losses that know nothing of the errors."""
    rng = np.random.default_rng(1)
    names = [f"straight_through(slope={k + 1})" for k in range(12)]
    sizes = dict(zip(names, rng.uniform(0.1, 3, 12), strict=True))
    inside = 0
    for trial in range(20):
        losses = dict(zip(names, rng.permutation(12.0 + np.arange(12)), strict=True))
        planted.write_runs(
            tmp_path / str(trial),
            deviation=sizes.get,
            loss=lambda name, seed, losses=losses: losses[name],
            estimators=names,
            problems=("a",),
            optimisers=["adam", "sgd"],
            seeds=2,
        )
        chosen = metrics.correlation(tmp_path / str(trial)).query("chosen")
        inside += int(((chosen["correlation_low"] < 0) & (chosen["correlation_high"] > 0)).sum())
    assert inside >= 30  # of 40: below the 1e-4 quantile of Bin(40, 0.95), pairs being dependent


@pytest.mark.slow
def test_errors_along_the_exact_run_are_apart(tmp_path):
    order = {"reinforce": 0.1, "arm": 0.2, "straight_through": 0.3, "psa": 0.4, "zgr": 0.5}
    planted.write_runs(
        tmp_path / "r",
        deviation=lambda name: 1e-3,
        bias=lambda name: 1 - order.get(name, 0.9),
        exact_bias=lambda name: order.get(name, 0.9),
        loss=lambda name, seed: order.get(own(name), 0.0),
    )
    values = [metrics.correlation(tmp_path / "r", path=path) for path in ("own", "exact")]
    assert values[0]["correlation"].max() == pytest.approx(-1)
    assert values[1]["correlation"].min() == pytest.approx(1)
    assert set(values[1]["correlation_low"]) == {1.0}


def test_equal_draws_count_once_and_nearly_equal_ones_twice(tmp_path):
    planted.write_runs(tmp_path / "r", bias=bias, deviation=size)
    errors = metrics.gradient_errors(tmp_path / "r")
    one = errors[(errors["problem"] == "a[width=4]") & (errors["optimiser"] == "adam")]
    assert len({"reinmax", "zgr"} & set(distinct(one))) == 1 and len(distinct(one)) == 6
    apart = one.assign(variance=one["variance"] * np.where(one["estimator"] == "zgr", 1.001, 1))
    assert {"reinmax", "zgr"} <= set(distinct(apart))


def test_methods_are_ranked_by_losses_paired_by_seed_and_diverged_ones_come_last(tmp_path):
    losses = {"exact": 0.1, "psa": 0.1, "straight_through": 0.3, "arm": 0.2}
    planted.write_runs(
        tmp_path / "r",
        loss=lambda name, seed: losses.get(name, 0.5) + seed + 0.001 * (len(name) * seed % 3),
        diverged=[("arm", 2)],
    )
    frame = metrics.trained(tmp_path / "r")
    rows = frame[(frame["problem"] == "a[width=4]") & (frame["optimiser"] == "adam")]
    ranks = rows.set_index("estimator")["rank"]
    # Seeds differ by 1, methods by 0.1: unpaired nothing could be told apart.
    assert ranks["exact"] == ranks["psa"] == 1 and ranks["straight_through"] == 3
    assert ranks["arm"] == 7 and rows["estimator"].iloc[-1] == "arm"
    assert rows.set_index("estimator")["diverged"]["arm"] == 1
    assert (rows["loss_low"].dropna() < rows["loss"].dropna()).all()


def precision_of(name, seed):
    return {"psa": 0.9, "arm": 0.5}.get(name, 0.7) + 0.01 * seed


@pytest.mark.parametrize(("seeds", "rank"), [(7, 1), (8, 3)])
def test_a_seed_that_went_wrong_does_not_hide_what_all_say(tmp_path, seeds, rank):
    """The differences are all positive, and one of them is hundred times the others."""
    losses = {"psa": lambda s: 0.1, "zgr": lambda s: 0.1 + 0.01 * (-1) ** s}
    losses["arm"] = lambda s: 30.0 if s == 2 else 0.3
    planted.write_runs(
        tmp_path / "r", loss=lambda name, s: losses.get(name, lambda s: 50.0 + s)(s), seeds=seeds
    )
    frame = metrics.trained(tmp_path / "r")
    rows = frame[(frame["problem"] == "a[width=4]") & (frame["optimiser"] == "adam")]
    ranks = rows.set_index("estimator")["rank"]
    assert ranks["psa"] == ranks["zgr"] == 1 and ranks["arm"] == rank


def test_methods_are_ranked_by_what_they_are_judged_by_larger_first(tmp_path):
    """Here against their losses, of which PSA has the largest."""
    losses = {"psa": 3.0, "arm": 1.0}
    planted.write_runs(
        tmp_path / "r",
        loss=lambda name, seed: losses.get(name, 2.0),
        result=precision_of,
        continued=lambda name, seed: losses.get(name, 2.0) / 2,
        optimisers=["adam"],
        problems=("a",),
    )
    frame = metrics.trained(tmp_path / "r").set_index("estimator")
    assert frame["rank"].to_dict() == {
        name: {"psa": 1, "arm": 7}.get(name, 2) for name in planted.ESTIMATORS
    }
    assert frame.index[0] == "psa" and frame.index[-1] == "arm"
    assert frame["result"]["psa"] == pytest.approx(0.91) and frame["loss"]["psa"] == 3.0
    assert frame["continued_loss"].to_dict() == (frame["loss"] / 2).to_dict()
    text = training_table(frame.reset_index())
    assert "precision at 100" in text and "91.0(6) %" in text and "loss, continued" in text
    assert "a significantly larger\n" in text or "a significantly larger precision" in text
    curves = metrics.learning(tmp_path / "r")
    one = curves[(curves["estimator"] == "psa") & (curves["seed"] == 0)]
    assert one["step"].tolist() == [0, 10, 100, 101, 110]
    assert one["continued"].tolist() == [False] * 3 + [True] * 2
    np.testing.assert_allclose(one["seconds"], one["step"] * 3.0 / 100 / 3)


def test_a_file_without_the_curve_that_it_is_judged_by_is_damaged(tmp_path):
    place = planted.write_runs(
        tmp_path / "r", result=precision_of, problems=("a",), estimators=["psa"], measured=0
    )
    results = Results.open(place)
    (one,) = [one for one in runs.stored(results) if one.identity["optimiser"] == "adam"]
    arrays = {name: array for name, array in one.arrays.items() if name != "precision"}
    info = {"identity": one.identity, "step": one.step, "done": one.done}
    whose = {"kind": "runs", "id": runs.identifier(one.identity)}
    runs.path_of(results, "runs", one.identity).write_bytes(pack(arrays, 0, info, whose))
    with pytest.raises(CorruptFile) as caught:
        metrics.learning(place)
    assert_one_sentence(caught, "npz")


def test_a_run_that_diverged_in_its_first_phase_is_known_by_that_step_after_it(tmp_path):
    planted.write_runs(
        tmp_path / "r", continued=lambda name, seed: 1.0, diverged=[("arm", 1)], problems=("a",)
    )
    curves = metrics.learning(tmp_path / "r")
    rows = curves[(curves["estimator"] == "arm") & (curves["seed"] == 1)]
    assert set(rows["diverged"]) == {50.0} and rows["continued"].any()
    assert curves[curves["estimator"] == "psa"]["diverged"].isna().all()


def test_what_is_not_there_is_said_in_one_sentence(tmp_path):
    measured = write_run(tmp_path / "measured")
    planted.write_runs(tmp_path / "begun", done=lambda problem: False)
    for call, said in (
        (lambda: metrics.learning(measured), "not runs of training"),
        (lambda: metrics.trained(tmp_path / "begun"), "no run is finished"),
        (lambda: metrics.summary(tmp_path / "begun"), "runs of training, not measurements"),
    ):
        with pytest.raises(GradbenchError) as caught:
            call()
        assert_one_sentence(caught, said)
    assert len(metrics.learning(tmp_path / "begun"))


def test_too_few_estimators_have_no_correlation(tmp_path):
    few = ["exact", "arm", "psa", "zgr", "reinmax"]  # the last two are one
    planted.write_runs(tmp_path / "r", estimators=few)
    assert metrics.correlation(tmp_path / "r").empty
