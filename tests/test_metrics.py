"""Blocks cut from Gaussian draws of known mean and covariance, against the closed forms.

Statistical tests use fixed seeds; limits of 6 standard errors have a false-alarm rate below 1e-8
per comparison where the error is known, and below 1e-6 where 40 or more blocks estimate it.
"""

import math

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import norm

from gradbench.blocks import BINS, Block, LayerBlock
from gradbench.errors import GradbenchError
from gradbench.metrics import BAND, Cell, curves, layer_metrics, summary
from gradbench.table import digits, table

GRADIENT = np.array([3.0, 0.0, -4.0, 0.0])  # |G| = 5
ROOT = 5.0 * np.array(
    [[0.9, 0.0, 0.0, 0.0], [0.4, 0.5, 0.0, 0.0], [0.3, 0.0, 0.2, 0.0], [0.0, 0.1, 0.1, 0.1]]
)
VARIANCE = (ROOT**2).sum() / 25.0  # relative
DIRECTION = np.array([0.6, 0.8, 0.0, 0.0])


def gaussian(draws, bias, seed=0):
    """Draws [draws, 4] with covariance ROOT'ROOT and the relative bias ``bias`` along DIRECTION."""
    noise = np.random.default_rng(seed).normal(size=(draws, 4))
    return GRADIENT + 5.0 * bias * DIRECTION + noise @ ROOT


def group_cosines(draws, gradient, average):
    groups = len(draws) // average
    means = draws[: groups * average].reshape(groups, average, len(gradient)).mean(1)
    lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(gradient)
    return np.clip(np.divide(means @ gradient, lengths, np.zeros(groups), where=lengths > 0), -1, 1)


def layer_block(draws, gradient, averages, heads):
    cosines = [group_cosines(draws, gradient, average) for average in averages]
    mean = draws.mean(0)
    return LayerBlock(
        count=len(draws),
        mean=mean,
        m2=((draws - mean) ** 2).sum(0),
        heads=np.array([draws[:r].sum(0) for r in heads]).reshape(len(heads), len(mean)),
        groups=np.array([len(c) for c in cosines]),
        cosine=np.array([c.sum() for c in cosines]),
        cosine_sq=np.array([c @ c for c in cosines]),
        histogram=np.array([np.histogram(np.arccos(c), BINS, (0, np.pi))[0] for c in cosines]),
    )


def cell(draws, gradient=GRADIENT, size=64, averages=(1, 4), heads=(), long=(), **more):
    """The cell of one layer that the draws give."""
    starts = range(0, len(draws), size)
    layers = [layer_block(draws[s : s + size], gradient, averages, heads) for s in starts]
    blocks = [Block(k, (layer,)) for k, layer in enumerate(layers)]
    names = {"estimator": "psa", "layer_names": ["layer 1"], **more}
    common = {"blocks": blocks, "gradient": [gradient], "averages": averages, "head_sizes": heads}
    return Cell("toy", 0, "epoch 100", **names, **common, block_size=size, long_averages=long)


@pytest.mark.parametrize("draws", [64 * 64, 64 * 64 + 17])
@pytest.mark.parametrize("bias", [0.0, 0.05, 2.0])
def test_bias_variance_and_rmse_agree_with_the_closed_form(bias, draws):
    found = layer_metrics(cell(gaussian(draws, bias)), 0)
    errors = np.sqrt(np.diag(found.accuracy.covariance))
    assert found.gradient_norm == pytest.approx(5.0) and found.draws == draws
    assert abs(found.accuracy.bias2 - bias**2) < 6 * errors[0]
    assert abs(found.accuracy.variance - VARIANCE) < 6 * errors[1]
    assert errors[1] < 0.05 * VARIANCE  # the claim is not empty
    for average in (1, 7, 100):
        rmse, error = found.accuracy.rmse(average)
        assert abs(rmse - math.sqrt(bias**2 + VARIANCE / average)) < 6 * error < 2 * rmse


@pytest.mark.parametrize(
    ("bias", "root", "limits", "coverage"),
    # At zero bias the b'Sb term, which cannot be negative, makes the error up to sqrt 2 too large.
    [
        (0.0, ROOT, (0.9, 1.75), 0.9),
        (0.0, 5 * np.eye(4), (0.9, 1.5), 0.9),
        (0.1, 5 * np.eye(4), (0.85, 1.2), 0.79),  # |b| is 2.5 times the noise of the mean
        (0.3, ROOT, (0.85, 1.2), 0.86),
        (2.0, ROOT, (0.85, 1.2), 0.86),
    ],
)
def test_standard_errors_are_calibrated_with_and_without_bias(bias, root, limits, coverage):
    """1500 repeats of 20 blocks, the last one shorter: two errors cover some 95 %.

    A little less for V (20 blocks), and 85 % where |b| is 2 to 3 times the noise of the mean, as
    the square is skewed there. The coverage of 1500 repeats has a standard deviation below 0.009,
    and the ratio of error to spread one of 0.03 (0.05 at zero bias): the limits are more than five
    of them away from what larger simulations gave.
    """
    rng = np.random.default_rng(int(100 * bias))
    variance = (root**2).sum() / 25.0
    true = [bias**2, variance, *(math.sqrt(bias**2 + variance / m) for m in (1, 100))]
    found, errors = [], []
    for _ in range(1500):
        draws = GRADIENT + 5 * bias * DIRECTION + rng.normal(size=(620, 4)) @ root
        accuracy = layer_metrics(cell(draws, size=32, averages=()), 0).accuracy
        rmse = [accuracy.rmse(m) for m in (1, 100)]
        found.append([accuracy.bias2, accuracy.variance, rmse[0][0], rmse[1][0]])
        spread = np.sqrt(np.diag(accuracy.covariance))
        errors.append([*spread, rmse[0][1], rmse[1][1]])
    values, sizes = np.array(found), np.array(errors)
    covered = (np.abs(values - true) <= 2 * sizes).mean(0)
    assert np.all(covered[[0, 3]] > coverage), covered
    assert np.all(covered[[1, 2]] > 0.86), covered
    ratio = np.sqrt((sizes[:, :2] ** 2).mean(0)) / values[:, :2].std(0)
    assert limits[0] < ratio[0] < limits[1], ratio
    assert 0.8 < ratio[1] < 1.2, ratio
    # De-biased: the mean over the repeats is within 6 of its standard errors.
    off = np.abs(values[:, :2].mean(0) - true[:2]) / (values[:, :2].std(0) / math.sqrt(1500))
    assert np.all(off < 6), off


def test_an_unbiased_estimator_reads_as_zero_bias_however_few_draws():
    found = [
        layer_metrics(cell(gaussian(16, 0.0, seed), size=4), 0).accuracy for seed in range(300)
    ]
    values = np.array([accuracy.bias2 for accuracy in found])
    assert abs(values.mean()) < 6 * values.std() / math.sqrt(300)
    assert values.mean() + VARIANCE / 16 > 6 * values.std() / math.sqrt(300)  # it would be seen


def test_the_cosine_agrees_with_the_projected_normal_distribution():
    # In the plane, noise of standard deviation s in units of |G|, M-sample estimates: the angle has
    # the density exp(-k^2/2) (1/2pi + ...) of a projected normal with k = sqrt(M) / s.
    draws, s = 64 * 1500, 3.0
    gradient = np.array([1.0, 0.0])
    noise = s * np.random.default_rng(5).normal(size=(draws, 2))
    found = layer_metrics(cell(gradient + noise, gradient, averages=(1, 4, 16)), 0).cosines
    for average in (1, 4, 16):
        k = math.sqrt(average) / s
        angle = (np.arange(200_000) + 0.5) * np.pi / 200_000
        u = k * np.cos(angle)
        density = math.exp(-(k**2) / 2) / (2 * np.pi) + u * norm.pdf(k * np.sin(angle)) * norm.cdf(
            u
        )
        share = np.cumsum(density) / density.sum()
        mean = math.sqrt(np.pi * k**2 / 8) * (ive(0, k**2 / 4) + ive(1, k**2 / 4))
        low, high = np.cos(np.interp([1 - BAND[0], 1 - BAND[1]], share, angle))
        cosine = found[average]
        assert cosine.groups == draws // average
        assert abs(cosine.cosine - mean) < 6 * cosine.cosine_se < 0.1
        assert abs(cosine.cosine_low - low) < 6 * cosine.cosine_low_se + 1e-4 < 0.15
        assert abs(cosine.cosine_high - high) < 6 * cosine.cosine_high_se + 1e-4 < 0.1


def test_standard_errors_of_the_cosine_and_its_quantiles_are_calibrated():
    rng = np.random.default_rng(11)
    rows = []
    for _ in range(300):
        draws = GRADIENT + rng.normal(size=(256, 4)) @ ROOT
        rows.append(layer_metrics(cell(draws, averages=(1,)), 0).cosines[1][1:])
    found = np.array(rows).reshape(300, 3, 2)
    ratio = np.median(found[:, :, 1], axis=0) / found[:, :, 0].std(0)
    assert np.all((ratio > 0.75) & (ratio < 1.25)), ratio


def test_the_metrics_do_not_depend_on_the_order_of_the_blocks():
    whole = cell(gaussian(1000, 0.3), heads=(32,), long=(96,))
    shuffled = whole._replace(
        blocks=[whole.blocks[k] for k in np.random.default_rng(0).permutation(16)]
    )
    assert str(layer_metrics(shuffled, 0)) == str(layer_metrics(whole, 0))


def test_bias_and_variance_do_not_depend_on_the_block_size():
    draws = gaussian(1000, 0.3)
    exact = draws.var(0, ddof=1).sum() / 25.0
    bias2 = ((draws.mean(0) - GRADIENT) ** 2).sum() / 25.0 - exact / 1000
    for size in (8, 64, 512, 1024):
        found = layer_metrics(cell(draws, size=size), 0).accuracy
        assert found.variance == pytest.approx(exact, rel=1e-12)
        assert found.bias2 == pytest.approx(bias2, rel=1e-10)


def test_averages_above_the_block_size_come_from_whole_blocks_and_heads():
    draws = gaussian(64 * 9 + 40, 0.3)  # nine whole blocks and 40 draws
    found = layer_metrics(cell(draws, heads=(40, 50), long=(64, 104, 114, 128, 192)), 0).cosines

    def means_of(spans):
        means = np.array([draws[first : first + average].mean(0) for first, average in spans])
        return (means @ GRADIENT) / np.linalg.norm(means, axis=1) / 5.0

    # M = 64 and 128 without remainder; 104 = 64 + 40 uses blocks two by two and the last, short one
    # as a head; 114 = 64 + 50 cannot, so it has one group less.
    for average, stride, groups in [
        (64, 64, 9),
        (128, 128, 4),
        (192, 192, 3),
        (104, 128, 5),
        (114, 128, 4),
    ]:
        expected = means_of([(k * stride, average) for k in range(groups)])
        assert found[average].groups == groups
        assert found[average].cosine == pytest.approx(expected.mean(), rel=1e-12)
        error = expected.std(ddof=1) / math.sqrt(groups)
        assert found[average].cosine_se == pytest.approx(error, rel=1e-9)
        assert (
            expected.min() - 0.02 < found[average].cosine_low <= found[average].cosine_high <= 1.0
        )
    assert set(found) == {1, 4, 64, 104, 114, 128, 192}


def test_the_same_average_is_the_same_from_stored_sums_and_from_blocks():
    draws = gaussian(64 * 40, 0.3)
    stored = layer_metrics(cell(draws, averages=(64,)), 0).cosines[64]
    merged = layer_metrics(cell(draws, size=16, averages=(1,), long=(64,)), 0).cosines[64]
    assert merged == pytest.approx(stored, rel=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_deterministic_estimator_has_a_flat_rmse_without_errors(offset):
    value = GRADIENT * 0.1 + 5 * offset * DIRECTION + GRADIENT * 0.9  # not G to the last bit
    found = layer_metrics(cell(np.tile(value, (200, 1))), 0)
    expected = np.linalg.norm(value - GRADIENT) / 5.0
    assert found.accuracy.variance == 0.0
    for average in (1, 1000):
        assert found.accuracy.rmse(average) == (pytest.approx(expected, abs=1e-15), 0.0)
    for cosine in found.cosines.values():
        assert cosine.cosine_se == cosine.cosine_low_se == cosine.cosine_high_se == 0.0
        assert cosine.cosine_low == cosine.cosine == cosine.cosine_high


@pytest.mark.filterwarnings("error")
def test_a_zero_gradient_is_flagged_and_said():
    frame = summary([cell(gaussian(200, 0.0), np.zeros(4))])
    assert frame["zero_gradient"].tolist() == [True]
    assert (
        frame[["bias2", "variance", "rmse", "rmse_se", "cosine", "cosine_low"]]
        .isna()
        .all(axis=None)
    )
    assert "zero gradient" in table(frame)
    assert curves([cell(gaussian(200, 0.0), np.zeros(4))])["zero_gradient"].all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draws", [1, 2, 5, 64, 65, 129])
def test_few_draws_give_numbers_or_unknowns_but_no_failure(draws):
    frame = summary([cell(gaussian(draws, 0.3))])
    assert np.isnan(frame["rmse"].item()) == (draws == 1)
    assert np.isnan(frame["rmse_se"].item()) == (draws <= 64)
    assert "psa" in table(frame)


def test_missing_blocks_are_refused():
    whole = cell(gaussian(1000, 0.3))
    for blocks in ([], whole.blocks[1:], [*whole.blocks, whole.blocks[0]]):
        with pytest.raises(
            GradbenchError, match=r"blocks \[.*of toy/0/epoch 100/psa.*run the suite again"
        ):
            layer_metrics(whole._replace(blocks=blocks), 0)


@pytest.mark.parametrize("average", [96, 3])
def test_an_average_whose_draws_were_not_kept_is_refused(average):
    with pytest.raises(GradbenchError, match=f"cosine at M = {average} needs.*a multiple of 64"):
        layer_metrics(cell(gaussian(1000, 0.3), long=(average,)), 0)


def test_the_frames_have_a_row_per_layer_and_average_and_carry_the_info():
    one = cell(gaussian(256, 0.3), long=(64, 128), info={"loss": 0.5})
    two = one._replace(
        layer_names=["layer 1", "output"],
        gradient=one.gradient * 2,
        blocks=[Block(block.index, block.layers * 2) for block in one.blocks],
    )
    frame = summary([one, two])
    assert frame["layer"].tolist() == ["layer 1", "layer 1", "output"]
    assert frame["loss"].tolist() == [0.5] * 3
    rows = curves([one, two])
    assert rows["M"].tolist() == [1, 4, 64, 128] * 3
    first = rows[rows["M"] == 1].reset_index(drop=True)
    shared = [name for name in first if name in frame]
    assert first[shared].equals(frame[shared])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.21311, 0.0042, "0.213(4)"),
        (13.84, 0.41, "13.8(4)"),
        (13.84, 0.14, "13.84(14)"),
        (7.0, 0.0996, "7.00(10)"),
        (7.0, 0.96, "7.0(10)"),
        (1253.0, 34.0, "1250(30)"),
        (-0.031, 0.02, "-0.03(2)"),
        (3.14e-6, 2e-8, "3.14(2)e-06"),
        (0.5, 0.0, "0.5"),
        (0.123456, math.nan, "0.123"),
        (1.1e-16, 0.0, "0"),
        (math.nan, 0.1, "-"),
    ],
)
def test_a_value_is_shown_with_the_digits_it_deserves(value, error, text):
    assert digits(value, error) == text


def test_the_table_shows_a_bias_or_its_upper_limit_at_a_hundred_columns():
    cells = [
        cell(gaussian(5000, bias), estimator=name, info={"loss": 0.6931})
        for bias, name in [(0.0, "concrete(temperature=0.1)"), (2.0, "psa")]
    ]
    lines = table(summary(cells)).splitlines()
    assert lines[0] == "toy, replicate 0, epoch 100, loss 0.6931"
    unbiased, biased = lines[2:4]
    assert unbiased.split()[0:2] == ["layer", "1"] and "concrete(temperature=0.1)" in unbiased
    assert "< 0.0" in unbiased and "<" not in biased
    assert float(biased.split()[2].partition("(")[0]) == pytest.approx(2.0, abs=0.1)
    assert max(map(len, lines)) <= 100


def test_an_empty_result_is_said():
    assert table(summary([])) == "no finished cells"
