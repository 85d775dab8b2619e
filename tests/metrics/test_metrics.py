"""Metrics of draws from NumPy, against the same draws taken one by one and against closed forms.

Statistical tests use fixed seeds; limits of 6 standard errors have a false-alarm rate below 1e-8
per comparison where the error is known, and below 1e-6 where 40 or more blocks estimate it. How
often intervals cover is counted in test_coverage.py.
"""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ive
from scipy.stats import norm, t
from stored import assert_one_sentence, drawn

from gradbench.core.errors import GradbenchError
from gradbench.metrics import (
    BAND,
    KEYS,
    METRICS,
    Accuracy,
    Estimate,
    check_metrics,
    curves,
    layers_of,
    summary,
)
from gradbench.metrics.accuracy import mse_difference
from gradbench.metrics.intervals import (
    UNKNOWN,
    bounded,
    combined,
    correlation,
    known,
    logarithmic,
    quantile,
    ratio,
    score,
    share,
    symmetric,
)

GRADIENT = np.array([3.0, 0.0, -4.0, 0.0])  # |G| = 5
ROOT = 5.0 * np.array(
    [[0.9, 0.0, 0.0, 0.0], [0.4, 0.5, 0.0, 0.0], [0.3, 0.0, 0.2, 0.0], [0.0, 0.1, 0.1, 0.1]]
)
VARIANCE = (ROOT**2).sum() / 25.0  # relative
DIRECTION = np.array([0.6, 0.8, 0.0, 0.0])
GROUPED = [name for name, metric in METRICS.items() if metric.groups]
UNGROUPED = [name for name, metric in METRICS.items() if not metric.groups]


def gaussian(draws, bias, seed=0):
    """Draws [draws, 4] with covariance ROOT'ROOT and the relative bias ``bias`` along DIRECTION."""
    noise = np.random.default_rng(seed).normal(size=(draws, 4))
    return GRADIENT + 5.0 * bias * DIRECTION + noise @ ROOT


def cell(draws, gradient=GRADIENT, **more):
    """The cell of one layer that the draws give."""
    return drawn(draws, gradient, **more)


def layer(cell, level=0.95):
    """The metrics of the only layer."""
    (found,) = layers_of(cell, level)
    return found


def two_layers(draws, heads=(), long=(), **more):
    """A network of two layers, one of which has much the larger gradient, and all as one layer."""
    rows = gaussian(draws, 0.3)
    rows[::7] = 0.0  # some draws of zero
    whole = rows * np.array([1.0, 1.0, 0.01, 0.01])
    gradient = GRADIENT * np.array([1.0, 1.0, 0.01, 0.01])
    options = {"heads": heads, "long": long} | more
    parts = drawn([whole[:, :2], whole[:, 2:]], [gradient[:2], gradient[2:]], **options)
    return parts, drawn(whole, gradient, **options)


# ------------------------------------------------------------------ bias, variance, squared error


@pytest.mark.parametrize("draws", [64 * 64, 64 * 64 + 17])
@pytest.mark.parametrize("bias", [0.0, 0.05, 2.0])
def test_bias_variance_and_rmse_agree_with_the_closed_form(bias, draws):
    found = layer(cell(gaussian(draws, bias)))
    errors = np.sqrt(np.diag(found.accuracy.covariance))
    assert found.sample.norm == pytest.approx(5.0) and found.sample.draws == draws
    assert abs(found.accuracy.bias2 - bias**2) < 6 * errors[0]
    assert abs(found.accuracy.variance - VARIANCE) < 6 * errors[1]
    assert errors[1] < 0.05 * VARIANCE  # the claim is not empty
    for average in (1, 7, 100):
        rmse = found.accuracy.rmse(average)
        assert (
            abs(rmse.value - math.sqrt(bias**2 + VARIANCE / average)) < 6 * rmse.se < 2 * rmse.value
        )


@pytest.mark.parametrize(
    ("bias", "root", "limits"),
    # At zero bias the b'Sb term, which cannot be negative, makes the error up to sqrt 2 too large.
    [
        (0.0, ROOT, (0.9, 1.75)),
        (0.1, 5 * np.eye(4), (0.85, 1.2)),  # |b| is 2.5 times the noise of the mean
        (2.0, ROOT, (0.85, 1.2)),
    ],
)
@pytest.mark.slow
def test_standard_errors_are_the_spread_of_repeats_with_and_without_bias(bias, root, limits):
    """1500 repeats of 20 blocks, the last one shorter.

    The ratio of error to spread has a standard deviation of 0.03 (0.05 at zero bias): the limits
    are more than five of them away from what larger simulations gave.
    """
    rng = np.random.default_rng(int(100 * bias))
    true = [bias**2, (root**2).sum() / 25.0]
    found, errors = [], []
    for _ in range(1500):
        draws = GRADIENT + 5 * bias * DIRECTION + rng.normal(size=(620, 4)) @ root
        accuracy = layer(cell(draws, size=32, averages=())).accuracy
        found.append([accuracy.bias2, accuracy.variance])
        errors.append(np.sqrt(np.diag(accuracy.covariance)))
    values, sizes = np.array(found), np.array(errors)
    assert (np.abs(values[:, 1] - true[1]) <= 2 * sizes[:, 1]).mean() > 0.86
    ratio = np.sqrt((sizes**2).mean(0)) / values.std(0)
    assert limits[0] < ratio[0] < limits[1], ratio
    assert 0.8 < ratio[1] < 1.2, ratio
    # De-biased: the mean over the repeats is within 6 of its standard errors.
    off = np.abs(values.mean(0) - true) / (values.std(0) / math.sqrt(1500))
    assert np.all(off < 6), off


@pytest.mark.slow
def test_an_unbiased_estimator_reads_as_zero_bias_however_few_draws():
    found = [layer(cell(gaussian(16, 0.0, seed), size=4)).accuracy for seed in range(300)]
    values = np.array([accuracy.bias2 for accuracy in found])
    assert abs(values.mean()) < 6 * values.std() / math.sqrt(300)
    assert values.mean() + VARIANCE / 16 > 6 * values.std() / math.sqrt(300)  # it would be seen


def test_bias_and_variance_do_not_depend_on_the_block_size():
    draws = gaussian(1000, 0.3)
    exact = draws.var(0, ddof=1).sum() / 25.0
    bias2 = ((draws.mean(0) - GRADIENT) ** 2).sum() / 25.0 - exact / 1000
    for size in (8, 64, 512, 1024):
        found = layer(cell(draws, size=size)).accuracy
        assert found.variance == pytest.approx(exact, rel=1e-12)
        assert found.bias2 == pytest.approx(bias2, rel=1e-10)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_the_metrics_of_squares_belong_to_each_other(bias):
    found = layer(cell(gaussian(2000, bias)))
    for average in (1, 7, 1000):
        for square, root, factor in (
            ("mse", "rmse", 1.0),
            ("bias2", "bias", 1.0),
            ("variance", "std", 1.0 / average),
        ):
            squares = np.array(found.estimate(square, average).times(factor))
            roots = np.array(found.estimate(root, average))
            np.testing.assert_allclose(
                np.maximum(squares, 0.0)[[0, 2, 3]], roots[[0, 2, 3]] ** 2, rtol=1e-12
            )
        assert found.estimate("mse", average).value == pytest.approx(
            found.accuracy.bias2 + found.accuracy.variance / average
        )


@pytest.mark.parametrize(("bias", "eps"), [(0.0, 0.5), (0.3, 0.35), (0.3, 0.9), (2.0, 2.1)])
def test_draws_needed_is_the_inverse_of_the_rmse_with_its_limits(bias, eps):
    accuracy = layer(cell(gaussian(64 * 200, bias))).accuracy
    needed = accuracy.draws_needed(eps)
    assert 1.0 < needed.low < needed.value < needed.high < math.inf
    for which in ("value", "low", "high"):
        average = getattr(needed, which)
        assert getattr(accuracy.rmse(average), which) == pytest.approx(eps, rel=1e-7)


def test_no_number_of_draws_is_enough_where_the_bias_alone_exceeds_eps():
    accuracy = layer(cell(gaussian(64 * 200, 0.3))).accuracy
    needed = accuracy.draws_needed(0.2)
    assert (needed.value, needed.low, needed.high) == (math.inf,) * 3
    unsure = accuracy.draws_needed(0.3)  # as large as the bias: may be enough, may be not
    assert unsure.low < math.inf == unsure.high
    assert accuracy.draws_needed(10.0) == pytest.approx([1.0, math.nan, 1.0, 1.0], nan_ok=True)


def test_draws_needed_of_exact_moments_follow_the_formula():
    def exactly(bias2, variance):
        return Accuracy(bias2, variance, np.zeros((2, 2)))

    assert exactly(0.01, 2.0).draws_needed(0.2)[0] == pytest.approx(2.0 / 0.03)
    for part in exactly(0.01, 2.0).draws_needed(0.2)[2:]:
        assert part == pytest.approx(2.0 / 0.03, rel=1e-8)
    assert exactly(0.25, 2.0).draws_needed(0.5)[0] == math.inf  # reached in the limit only
    assert exactly(0.01, 0.0).draws_needed(0.1)[0] == 1.0
    assert exactly(0.0, 0.0).draws_needed(0.0)[0] == 1.0
    assert exactly(0.01, 0.0).draws_needed(0.09)[2:] == (math.inf, math.inf)


def test_the_difference_of_two_squared_errors_of_the_same_draws_is_sharper():
    """Half the noise of a is that of b: the variance of the gap is that of the gap of draws."""
    noise = gaussian(64 * 100, 0.0) - GRADIENT
    other = gaussian(64 * 100, 0.0, seed=1) - GRADIENT
    a, b = (layer(cell(GRADIENT + x)).accuracy for x in (noise, 0.9 * noise + 0.1 * other))
    c = layer(cell(GRADIENT + other)).accuracy
    paired, alone = (mse_difference(a, x, (1.0, 1.0)) for x in (b, c))
    assert paired[0] == a.bias2 - b.bias2 and paired[1] == a.variance - b.variance
    apart = a.covariance + b.covariance
    assert paired[2].sum() < 0.2 * apart.sum()
    assert alone[2].sum() == pytest.approx((a.covariance + c.covariance).sum(), rel=0.5)
    same = mse_difference(a, a, (1.0, 1.0))
    assert same[:2] == (0.0, 0.0) and np.abs(same[2]).max() < 1e-12 * a.covariance.max()
    halved = mse_difference(a, a, (1.0, 4.0))
    assert halved[1] == pytest.approx(0.75 * a.variance)
    assert halved[2][1, 1] == pytest.approx(0.75**2 * a.covariance[1, 1])


# ---------------------------------------------------------------------------------- the mean


@pytest.mark.parametrize("bias", [0.0, 0.3, 2.0])
@pytest.mark.first(1)
def test_descent_snr_and_scale_free_bias_agree_with_the_closed_form(bias):
    mean = GRADIENT / 5.0 + bias * DIRECTION
    along = 1.0 + 0.36 * bias  # DIRECTION.G / |G| = 0.36
    sine = math.sqrt(max(1.0 - along**2 / (mean @ mean), 0.0))
    found = layer(cell(gaussian(64 * 400, bias)))
    for name, average, true in (
        ("descent", 1, along),
        ("descent", 9, along),
        ("snr", 1, math.sqrt(mean @ mean / VARIANCE)),
        ("snr", 9, 3.0 * math.sqrt(mean @ mean / VARIANCE)),
        ("scale_free_bias", 1, sine),
    ):
        estimate = found.estimate(name, average)
        assert abs(estimate.value - true) < 6 * estimate.se, name
        assert estimate.low - 1e-9 <= true <= estimate.high, name  # with these seeds
        assert estimate.high - estimate.low < 0.12 * average, name  # the claim is not empty


@pytest.mark.slow
def test_the_scale_free_bias_forgives_a_scale_and_nothing_else():
    noise = gaussian(64 * 100, 0.0) - GRADIENT
    for factor in (0.1, 5.0):
        found = layer(cell(factor * (GRADIENT + noise)))
        assert found.estimate("bias").low > 0.5 * abs(factor - 1.0)
        same = layer(cell(GRADIENT + noise)).estimate("scale_free_bias")
        assert found.estimate("scale_free_bias") == pytest.approx(same)
    assert layer(cell(-(GRADIENT + noise))).estimate("scale_free_bias") == pytest.approx(same)


def test_noise_along_the_gradient_says_nothing_about_the_part_across_it():
    rng = np.random.default_rng(1)
    across = np.array([0.8, 0.0, 0.6, 0.0])
    noise = 3.0 * rng.normal(size=(640, 1)) * GRADIENT + 0.01 * rng.normal(size=(640, 4))
    found = layer(cell(GRADIENT + 5.0 * 0.2 * across + noise)).estimate("scale_free_bias")
    along = (GRADIENT + noise).mean(0) @ GRADIENT / 25.0
    assert found.value == pytest.approx(0.2 / math.hypot(along, 0.2), rel=0.02)


def test_noise_in_the_length_of_a_gradient_leaves_its_direction_certain():
    """What lies along G and across it is then correlated, and its ratio known."""
    rng = np.random.default_rng(2)
    mean = GRADIENT + 5.0 * DIRECTION
    noise = 0.5 * rng.normal(size=(64 * 40, 4))
    length = 1.0 + 0.5 * rng.normal(size=(64 * 40, 1))
    true = math.sqrt(1.0 - (mean @ GRADIENT) ** 2 / 25.0 / (mean @ mean))
    widths = []
    for draws in (length * mean, mean + noise * np.linalg.norm(mean)):
        found = layer(cell(draws)).estimate("scale_free_bias")
        assert found.low - 1e-3 < true < found.high + 1e-3
        widths.append(found.high - found.low)
    assert widths[0] < 0.1 * widths[1]


def test_bias_and_variance_are_taken_as_correlated_as_far_as_there_is_a_bias():
    """Draws whose length varies: both would be large together where the mean is, by chance."""
    for bias, least in ((0.0, -1.0), (3.0, 0.5)):
        length = np.random.default_rng(0).exponential(size=(64 * 40, 1))
        spread = np.random.default_rng(1).choice([-1.0, 1.0], size=(64 * 40, 1))
        draws = GRADIENT + 5.0 * bias * length * DIRECTION
        draws += 5.0 * (spread * length) * (DIRECTION if bias == 0.0 else ROOT[1] / 5.0)
        accuracy = layer(cell(draws)).accuracy
        together = correlation(accuracy.covariance)
        assert together > least
        if bias == 0.0:
            raw = correlation(accuracy.influence.T @ accuracy.influence)
            share = max(
                1.0 - accuracy.variance / 2560 / (accuracy.bias2 + accuracy.variance / 2560), 0
            )
            assert together == pytest.approx(raw * share, abs=1e-12) and abs(share) < 0.9
            assert accuracy.shrinkage == pytest.approx(share, abs=1e-12)
        else:
            assert accuracy.shrinkage == pytest.approx(1.0, abs=0.01)
    assert Accuracy(0.1, 2.0, np.zeros((2, 2))).shrinkage == 1.0
    assert Accuracy(0.0, 2.0, np.zeros((2, 2))).shrinkage == 0.0


# ------------------------------------------------------------------------------------ groups


@pytest.mark.slow
def test_the_cosine_agrees_with_the_projected_normal_distribution():
    # In the plane, noise of standard deviation s in units of |G|, M-sample estimates: the angle has
    # the density exp(-k^2/2) (1/2pi + ...) of a projected normal with k = sqrt(M) / s.
    draws, s = 64 * 1500, 3.0
    gradient = np.array([1.0, 0.0])
    noise = s * np.random.default_rng(5).normal(size=(draws, 2))
    found = layer(cell(gradient + noise, gradient, averages=(1, 4, 16)))
    for average in (1, 4, 16):
        k = math.sqrt(average) / s
        angle = (np.arange(200_000) + 0.5) * np.pi / 200_000
        u = k * np.cos(angle)
        density = math.exp(-(k**2) / 2) / (2 * np.pi) + u * norm.pdf(k * np.sin(angle)) * norm.cdf(
            u
        )
        part = np.cumsum(density) / density.sum()
        mean = math.sqrt(np.pi * k**2 / 8) * (ive(0, k**2 / 4) + ive(1, k**2 / 4))
        low, high = np.cos(np.interp([1 - BAND[0], 1 - BAND[1]], part, angle))
        directions = found.directions(average)
        assert directions.groups == draws // average
        assert abs(directions.cosine.value - mean) < 6 * directions.cosine.se < 0.1
        assert abs(directions.lower[0] - low) < 6 * directions.lower[1] + 1e-4 < 0.15
        assert abs(directions.upper[0] - high) < 6 * directions.upper[1] + 1e-4 < 0.1
        # The signs of the only coordinate that has one, and of the product with G, are the same.
        for chance in (directions.signs, directions.descent_probability):
            assert abs(chance.value - norm.cdf(k)) < 6 * chance.se < 0.1


def test_standard_errors_of_directions_are_the_spread_of_repeats():
    rng = np.random.default_rng(11)
    rows = []
    for _ in range(300):
        draws = GRADIENT + rng.normal(size=(256, 4)) @ ROOT
        found = layer(cell(draws, size=256, averages=(1,))).directions(1)
        means = (found.cosine, found.signs, found.descent_probability)
        rows.append([*(one[:2] for one in means), found.lower, found.upper])
    found = np.array(rows)
    ratio = np.median(found[:, :, 1], axis=0) / found[:, :, 0].std(0)
    assert np.all((ratio > 0.75) & (ratio < 1.25)), ratio


def test_the_probability_of_descent_counts_positive_cosines():
    """Also of single draws that are zero, orthogonal or opposite to the gradient."""
    across = np.array([[0.0, 1.0, 0.0, 2.0]])
    one_by_one = [GRADIENT[None], -GRADIENT[None], 0 * across, across, across + 1e-9 * GRADIENT]
    draws = np.concatenate([*one_by_one, gaussian(300, 0.0)])
    positive = int((draws @ GRADIENT > 0).sum())
    found = layer(cell(draws)).estimate("descent_probability")
    assert 5 < positive < len(draws) - 5
    assert found[:2] == pytest.approx((positive / 305, share(positive, 305, 0.95).se))
    only = layer(cell(np.concatenate(one_by_one))).estimate("descent_probability")
    assert only.value == 2 / 5


@pytest.mark.slow
def test_zero_coordinates_have_no_sign_and_zero_draws_none_that_agrees():
    draws = gaussian(500, 0.3)
    draws[::5] = 0.0
    agree = (np.sign(draws[:, [0, 2]]) == [1, -1]).mean(1)
    assert not agree[::5].any()
    tiny = GRADIENT + np.array([0.0, 1e-14, 0.0, -1e-14])  # of rounding
    for gradient in (GRADIENT, tiny):
        for size in (64, 1):
            found = layer(cell(draws, gradient, size=size, averages=(1,), long=(2,)))
            assert found.estimate("signs").value == pytest.approx(agree.mean(), rel=1e-12)
    pairs = draws.reshape(250, 2, 4).mean(1)
    expected = (np.sign(pairs[:, [0, 2]]) == [1, -1]).mean()
    assert found.estimate("signs", 2).value == pytest.approx(expected, rel=1e-12)


def test_averages_above_the_block_size_come_from_whole_blocks_and_heads():
    draws = gaussian(64 * 9 + 40, 0.3)  # nine whole blocks and 40 draws
    whole = cell(draws, heads=(40, 50), long=(64, 104, 114, 128, 192))
    found = layer(whole)

    def means_of(spans):
        return np.array([draws[first : first + average].mean(0) for first, average in spans])

    # M = 64 and 128 without remainder; 104 = 64 + 40 uses blocks two by two and the last, short one
    # as a head; 114 = 64 + 50 cannot, so it has one group less.
    for average, stride, groups in [
        (64, 64, 9),
        (128, 128, 4),
        (192, 192, 3),
        (104, 128, 5),
        (114, 128, 4),
    ]:
        means = means_of([(k * stride, average) for k in range(groups)])
        expected = (means @ GRADIENT) / np.linalg.norm(means, axis=1) / 5.0
        directions = found.directions(average)
        assert directions.groups == groups
        assert directions.cosine.value == pytest.approx(expected.mean(), rel=1e-9)
        assert math.isnan(directions.cosine.low)  # too few groups
        assert expected.min() - 0.02 < directions.lower[0] <= directions.upper[0] <= 1.0
        agree = (np.sign(means[:, [0, 2]]) == [1, -1]).mean(1)
        assert directions.signs.value == pytest.approx(agree.mean(), abs=1e-9)
        assert directions.descent_probability.value == pytest.approx((expected > 0).mean())
    assert whole.average_sizes() == [1, 4, 64, 104, 114, 128, 192]


def test_the_same_average_is_the_same_from_stored_sums_and_from_blocks():
    draws = gaussian(64 * 40, 0.3)
    stored = layer(cell(draws, averages=(64,))).directions(64)
    merged = layer(cell(draws, size=16, averages=(1,), long=(64,))).directions(64)
    for one, two in zip(stored, merged, strict=True):
        assert two == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("average", [96, 3])
def test_an_average_whose_draws_were_not_kept_is_refused(average):
    with pytest.raises(GradbenchError, match=f"cosine at M = {average} needs.*a multiple of 64"):
        layer(cell(gaussian(1000, 0.3), long=(average,))).directions(average)


@pytest.mark.parametrize("metric", GROUPED)
def test_a_metric_of_groups_at_an_m_that_is_not_stored_is_refused(metric):
    found = layer(cell(gaussian(1000, 0.3), long=(128,)))
    with pytest.raises(GradbenchError) as error:
        found.estimate(metric, 5)
    assert_one_sentence(error, "'toy'", "M = 5", "take one of 1, 4, 128, or name it in `averages`")


@pytest.mark.parametrize("metric", UNGROUPED)
def test_all_other_metrics_are_known_at_any_m(metric):
    assert not math.isnan(layer(cell(gaussian(1000, 0.3))).estimate(metric, 5).value)


# ------------------------------------------------------------------------------- the network


def test_the_network_is_its_layers_in_a_row():
    parts, whole = two_layers(64 * 9 + 40, heads=(40,), long=(64, 104, 192))
    *layers, network = layers_of(parts)
    assert [one.layer for one in (*layers, network)] == ["layer 1", "layer 2", "network"]
    expected = layer(whole)
    for average in (1, 4, 64, 104, 192):
        mine, other = network.row(average), expected.row(average)
        assert mine.pop("bias_source") == other.pop("bias_source") == "test"
        assert mine == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True)
    assert network.accuracy.bias2 != pytest.approx(layers[1].accuracy.bias2, rel=1e-3)
    assert network.accuracy.covariance == pytest.approx(expected.accuracy.covariance, rel=1e-9)


def test_a_single_layer_has_no_network_beside_it():
    assert summary([cell(gaussian(100, 0.3))])["layer"].tolist() == ["layer 1"]


def test_the_exact_moments_of_the_network_are_those_of_its_layers():
    parts, whole = two_layers(640)
    mean, variance = parts.gradient, [np.array([1.0, 2.0]), np.array([0.1, 0.2])]
    shifted = [layer + 0.1 for layer in mean]
    exact = parts._replace(moments=list(zip(shifted, variance, strict=True)))
    *_, network = layers_of(exact)
    scale = np.linalg.norm(whole.gradient[0])
    assert network.accuracy.bias2 == pytest.approx(4 * 0.01 / scale**2)
    assert network.accuracy.variance == pytest.approx(3.3 / scale**2)


def test_blocks_of_schema_1_give_what_they_hold():
    """No signs, and no groups of the network but those of several whole blocks."""
    parts, _ = two_layers(64 * 20, long=(64, 128))
    unknown = {"signs": np.full(2, np.nan), "signs_sq": np.full(2, np.nan)}
    old = [
        block._replace(layers=tuple(x._replace(**unknown) for x in block.layers), network=None)
        for block in parts.blocks
    ]
    before, now = (curves([parts._replace(blocks=blocks)]) for blocks in (old, parts.blocks))
    changed = [name for name in now if name.startswith("signs")]
    pd_same = before.drop(columns=changed)[before["layer"] != "network"]
    assert pd_same.equals(now.drop(columns=changed)[now["layer"] != "network"])
    short = before["M"] <= 4
    assert before.loc[short, changed].isna().all(axis=None)
    assert before.loc[~short].equals(now.loc[~short])
    network = before[short & (before["layer"] == "network")]
    assert (network["groups"] == 0).all()
    assert network[[*GROUPED, "cosine_q15"]].isna().all(axis=None)
    assert network[UNGROUPED].equals(now.loc[network.index, UNGROUPED])
    mixed = summary([parts._replace(blocks=[*old[:10], *parts.blocks[10:]])])  # a run continued
    assert mixed["signs"].isna().all() and mixed["cosine"].notna().tolist() == [True, True, False]


# ---------------------------------------------------------------------- exactness and its lack


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_deterministic_estimator_has_a_flat_rmse_without_errors(offset):
    value = GRADIENT * 0.1 + 5 * offset * DIRECTION + GRADIENT * 0.9  # not G to the last bit
    found = layer(cell(np.tile(value, (200, 1))))
    expected = np.linalg.norm(value - GRADIENT) / 5.0
    assert found.accuracy.variance == 0.0
    for average in (1, 1000):
        rmse = found.accuracy.rmse(average)
        assert rmse == (pytest.approx(expected, abs=1e-15), 0.0, rmse.value, rmse.value)
    for average in (1, 4):
        directions = found.directions(average)
        assert directions.lower == directions.upper == (directions.cosine.value, 0.0)
        for estimate in (directions.cosine, directions.signs, directions.descent_probability):
            assert estimate == known(estimate.value)
    assert found.estimate("snr").value == math.inf
    assert found.estimate("descent") == pytest.approx(known(1.0 + 0.36 * offset))


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_exact_moments_have_intervals_of_no_width(bias):
    mean = GRADIENT + 5.0 * bias * DIRECTION
    moments = [(mean, (ROOT**2).sum(0))]
    found = layer(cell(gaussian(1000, bias), moments=moments))
    assert found.exact and math.isnan(found.unbiased_p)
    for name in UNGROUPED:
        for average in (1, 5):
            estimate = found.estimate(name, average)
            assert estimate.se == 0.0, name
            assert estimate.low == estimate.value == estimate.high, name
    assert found.estimate("mse", 5).value == pytest.approx(bias**2 + VARIANCE / 5)
    assert found.estimate("snr").value == pytest.approx(
        np.linalg.norm(mean) / 5.0 / math.sqrt(VARIANCE)
    )
    sampled = layer(cell(gaussian(1000, bias)))
    for name in GROUPED:
        assert found.estimate(name) == sampled.estimate(name), name


def test_a_zero_gradient_is_flagged_and_unknown_never_infinite():
    zero = cell(gaussian(200, 0.0), np.zeros(4), long=(128,))
    exact = zero._replace(moments=[(GRADIENT, np.ones(4))])
    for one in (zero, exact):
        for frame in (summary([one]), curves([one]), summary([one], 7)):
            assert frame["zero_gradient"].all() and not frame["exact"].any()
            names = [f"{name}{end}" for name in METRICS for end in ("", "_se", "_low", "_high")]
            assert frame[names].isna().all(axis=None)
            assert not np.isinf(frame.select_dtypes("number")).any(axis=None)
        assert layer(one).accuracy.draws_needed(0.1) == pytest.approx(UNKNOWN, nan_ok=True)


def test_a_layer_of_zero_gradient_leaves_the_network_known():
    rows = gaussian(200, 0.3)
    parts = drawn([rows, rows], [GRADIENT, np.zeros(4)])
    frame = summary([parts]).set_index("layer")
    assert frame["zero_gradient"].tolist() == [False, True, False]
    assert frame.loc["network", [*METRICS]].notna().all()
    assert frame.loc["network", "signs"] == frame.loc["layer 1", "signs"]


@pytest.mark.parametrize("draws", [1, 2, 5, 64, 65, 129])
def test_few_draws_give_numbers_or_unknowns_but_no_failure(draws):
    frame = summary([cell(gaussian(draws, 0.3))])
    assert np.isnan(frame["rmse"].item()) == (draws == 1)
    assert np.isnan(frame["rmse_se"].item()) == (draws <= 64)
    for name in METRICS:
        value, low, high = (frame[f"{name}{end}"].item() for end in ("", "_low", "_high"))
        assert np.isnan(low) == np.isnan(high)
        assert np.isnan(low) or low <= high, name
        assert np.isnan(value) or not np.isinf(value), name


def test_missing_blocks_are_refused():
    whole = cell(gaussian(1000, 0.3))
    for blocks in ([], whole.blocks[1:], [*whole.blocks, whole.blocks[0]]):
        with pytest.raises(
            GradbenchError, match=r"blocks \[.*of toy/0/epoch 100/psa.*run the suite again"
        ):
            layer(whole._replace(blocks=blocks))


def test_the_metrics_do_not_depend_on_the_order_of_the_blocks():
    whole = cell(gaussian(1000, 0.3), heads=(32,), long=(96,))
    shuffled = whole._replace(
        blocks=[whole.blocks[k] for k in np.random.default_rng(0).permutation(16)]
    )
    assert curves([shuffled]).equals(curves([whole]))


def test_an_unknown_metric_is_refused_with_what_may_be_meant():
    found = layer(cell(gaussian(100, 0.3)))
    for ask in (found.estimate, lambda name: check_metrics(["rmse", name])):
        with pytest.raises(GradbenchError) as error:
            ask("cosin")
        assert_one_sentence(error, "unknown metric 'cosin'; did you mean 'cosine'?")
    assert check_metrics(METRICS) == list(METRICS)


# ------------------------------------------------------------------------------------ frames


def test_the_frames_have_a_row_per_layer_and_average_and_carry_the_info_and_the_cost():
    one = cell(gaussian(256, 0.3), long=(64, 128), info={"loss": 0.5})
    rows = gaussian(256, 0.3)
    two = drawn([rows, rows], [GRADIENT, GRADIENT * 2], long=(64, 128), estimator="arm")
    two = two._replace(info={"loss": 0.25}, cost={"evaluations": 4, "seconds": 1e-5})
    frame = summary([one, two])
    assert frame["layer"].tolist() == ["layer 1", "layer 1", "layer 2", "network"]
    assert frame["estimator"].tolist() == ["psa", "arm", "arm", "arm"]
    assert frame["loss"].tolist() == [0.5] + [0.25] * 3
    assert frame["evaluations"].tolist()[1:] == [4] * 3 and math.isnan(frame["seconds"][0])
    assert frame["seconds"].tolist()[1:] == [1e-5] * 3
    assert list(frame)[:5] == KEYS
    every = curves([one, two])
    assert every["M"].tolist() == [1, 4, 64, 128] * 4
    assert "changes" in every
    every = every.drop(columns="changes")
    assert list(every) == list(frame)
    for average in (1, 64):
        at = every[every["M"] == average].reset_index(drop=True)
        assert at.equals(summary([one, two], average))


def test_a_summary_at_an_m_whose_groups_are_not_stored_lacks_these_alone():
    frame = summary([cell(gaussian(256, 0.3))], 7)
    assert frame["groups"].item() == 0 and frame[GROUPED].isna().all(axis=None)
    assert frame[UNGROUPED].notna().all(axis=None)


@pytest.mark.parametrize("bias", [0.0, 0.1, 2.0])
def test_intervals_contain_the_value_are_ordered_and_grow_with_the_level(bias):
    """A squared bias that is estimated below zero lies below its interval, which is not."""
    whole = cell(gaussian(64 * 20, bias), averages=(1, 8), long=(64,))
    frames = [curves([whole], level) for level in (0.5, 0.95, 0.999)]
    for name in METRICS:
        value, *lows = frames[0][name], *(frame[f"{name}_low"] for frame in frames)
        highs = [frame[f"{name}_high"] for frame in frames]
        assert all(frame[name].equals(value) for frame in frames)
        for low, high in zip(lows, highs, strict=True):
            least = value.clip(lower=0.0) if name == "bias2" else value
            if not (name in ("mse", "rmse") and bias == 0.0):
                assert (low <= least).all() and (least <= high).all(), name
            assert (low <= high).all(), name
        for (narrow, wide), sign in (((0, 1), 1), ((1, 2), 1)):
            assert (sign * lows[wide] <= sign * lows[narrow] + 1e-15).all(), name
            assert (sign * highs[wide] >= sign * highs[narrow] - 1e-15).all(), name


# --------------------------------------------------------------------------- the intervals


VALUES = st.floats(-1e3, 1e3)
POSITIVE = st.floats(1e-6, 1e3)
LEVELS = st.tuples(st.floats(0.01, 0.999), st.floats(0.01, 0.999)).map(sorted)


def test_quantiles_are_those_of_student_with_at_least_one_degree_of_freedom():
    assert quantile(0.95, 20) == pytest.approx(t.ppf(0.975, 20))
    assert quantile(0.95, 0) == quantile(0.95, 1) == pytest.approx(12.706, abs=1e-3)
    assert quantile(0.95, math.inf) == pytest.approx(1.95996, abs=1e-5)


@given(VALUES, POSITIVE, LEVELS, st.integers(1, 1000))
@pytest.mark.slow
def test_symmetric_and_logarithmic_intervals_contain_the_value_and_grow(value, se, levels, n):
    narrow, wide = (symmetric(value, se, level, n) for level in levels)
    assert wide.low <= narrow.low <= value <= narrow.high <= wide.high
    assert narrow.high - value == pytest.approx(value - narrow.low, abs=1e-9 * abs(value))
    if value > 0.0 and se < 10 * value and n > 2:
        narrow, wide = (logarithmic(value, se, level, n) for level in levels)
        assert 0.0 < wide.low <= narrow.low <= value <= narrow.high <= wide.high
        assert narrow.low * narrow.high == pytest.approx(value**2)


@given(VALUES, POSITIVE, st.floats(0.0, 1e3), st.floats(0.1, 5.0))
@pytest.mark.slow
def test_limits_of_a_score_are_where_the_estimate_is_as_far_as_its_own_error(
    value, at_zero, slope, reach
):
    low, high = score(value, at_zero, slope, reach)
    assert low <= value and max(value, 0.0) <= high
    for x, distance in ((low, value - low), (high, high - max(value, 0.0))):
        error = math.sqrt(at_zero + slope * max(x, 0.0))
        assert distance == pytest.approx(reach * error, rel=1e-6, abs=1e-9 * (1 + abs(x)))
    wider = score(value, at_zero, slope, 1.1 * reach)
    assert wider[0] <= low and high <= wider[1]
    assert score(value, at_zero, 0.0, reach)[0] == pytest.approx(value - reach * at_zero**0.5)


@given(st.integers(1, 10**6), st.floats(0.0, 1.0), LEVELS)
def test_shares_have_the_interval_of_agresti_and_coull(total, part, levels):
    count = round(part * total)
    narrow, wide = (share(count, total, level) for level in levels)
    assert 0.0 <= wide.low <= narrow.low <= count / total <= narrow.high <= wide.high <= 1.0
    q = norm.ppf(0.5 + levels[0] / 2.0)
    trials = total + q**2  # with q^2 / 2 more of either kind
    p = (count + q**2 / 2.0) / trials
    half = q * math.sqrt(p * (1.0 - p) / trials)
    expected = [min(p - half, count / total), max(p + half, count / total)]
    assert narrow[2:] == pytest.approx(np.clip(expected, 0.0, 1.0), abs=1e-9)
    mirrored = share(total - count, total, levels[0])
    assert 1.0 - mirrored.high == pytest.approx(narrow.low, abs=1e-9)


@given(st.floats(-1.0, 1.0), st.floats(0.0, 1.0), st.integers(2, 10**6), st.floats(0.5, 13.0))
def test_means_between_bounds_stay_there_and_spread_widens_them(mean, part, total, reach):
    largest = (mean + 1.0) * (1.0 - mean)
    found = bounded(mean, part * largest, total, reach, -1.0)
    assert -1.0 <= found.low <= mean <= found.high <= 1.0
    assert found.se == pytest.approx(math.sqrt(part * largest / total))
    more = bounded(mean, largest, total, reach, -1.0)
    assert more.low <= found.low + 1e-12 and found.high <= more.high + 1e-12
    assume(part > 0.01 and largest > 0.01)
    # As many trials of all or nothing as have this error.
    trials = share(total / part * (mean + 1.0) / 2.0, total / part, 2.0 * norm.cdf(reach) - 1.0)
    if reach < 5.0:
        assert found[2:] == pytest.approx([2.0 * x - 1.0 for x in trials[2:]], abs=1e-6)


def test_what_was_never_seen_to_vary_is_not_certain():
    """The rule of three: what none of n has may have a probability of 3 / n."""
    for total in (2, 20, 1000):
        for value in (1.0, 0.75):
            found = bounded(value, 0.0, total, 1.96)
            assert value - found.low > 1.5 / (total + 4.0) and found.se == 0.0
    assert share(0, 0, 0.95) == pytest.approx(UNKNOWN, nan_ok=True)


@given(POSITIVE, POSITIVE, LEVELS, st.floats(-1.0, 1.0), st.floats(0.01, 0.5))
def test_ratios_contain_the_value_are_ordered_and_grow(a, b, levels, rho, error):
    found = [
        ratio(logarithmic(a, error * a, level, 30), logarithmic(b, error * b, level, 30), rho)
        for level in levels
    ]
    narrow, wide = found
    assert narrow.value == pytest.approx(a / b)
    slack = 1e-9 * narrow.value
    assert 0.0 <= wide.low <= narrow.low + slack and narrow.low <= narrow.value + slack
    assert narrow.value <= narrow.high + slack and narrow.high <= wide.high + slack
    one, other = (logarithmic(x, error * x, 0.95, 30) for x in (a, b))
    same, opposite = (ratio(one, other, x) for x in (1.0, -1.0))
    assert same.se < 1e-6 * same.value and same.high < same.low * (1.0 + 1e-6)
    assert opposite.se == pytest.approx(2.0 * error * opposite.value)
    inverse = ratio(other, one, rho)
    assert 1.0 / inverse.high == pytest.approx(ratio(one, other, rho).low)


def test_ratios_at_their_edges():
    one = Estimate(1.0, 0.1, 0.8, 1.2)
    nothing = Estimate(-0.1, 0.2, 0.0, 0.3)
    assert ratio(one, known(0.0)) == pytest.approx(UNKNOWN, nan_ok=True)
    assert ratio(nothing, one) == pytest.approx((0.0, math.nan, 0.0, 0.375), nan_ok=True)
    assert ratio(one._replace(low=0.0), one).low == 0.0
    assert ratio(one, one._replace(low=0.0)).high == math.inf
    assert ratio(nothing, one._replace(low=0.0)).high == math.inf
    assert ratio(known(3.0), known(2.0)) == known(1.5)


def test_roots_of_what_may_be_negative_are_those_of_zero():
    assert Estimate(-0.5, 0.04, 0.0, 0.09).root() == pytest.approx((0.0, 0.2, 0.0, 0.3))
    assert Estimate(4.0, 0.04, 1.0, 9.0).root() == pytest.approx((2.0, 0.01, 1.0, 3.0), abs=1e-4)


def test_errors_add_as_those_of_a_sum():
    assert combined(3.0, 4.0, 0.0) == 5.0
    assert combined(3.0, 4.0, 1.0) == 7.0 and combined(3.0, 4.0, -1.0) == 1.0
    assert combined(math.inf, 0.0, -1.0) == combined(0.0, math.inf, 0.5) == math.inf
    assert correlation(np.array([[4.0, 3.0], [3.0, 9.0]])) == 0.5
    assert correlation(np.array([[4.0, 7.0], [7.0, 9.0]])) == 1.0
    assert correlation(np.zeros((2, 2))) == 0.0
