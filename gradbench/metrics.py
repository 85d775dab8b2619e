"""Accuracy from stored blocks: bias, variance, RMSE and cosine, each with a standard error.

Nothing is run again: everything follows from the blocks of a cell (see ``gradbench.blocks``) and
the exact gradient G of each layer. All values are relative: in units of |G|, squares in |G|^2.

N draws of mean m and covariance S, with bias b and V = tr S (DESIGN section 5):

- bias2 = |m - G|^2 - V/N estimates |b|^2 without bias. It is the U-statistic of (g - G).(g' - G)
  over pairs of draws, so for draws of any distribution its variance is
  4 b'Sb/N + 2 tr(S^2)/(N(N-1)): the first term rules where there is a bias, the second elsewhere.
- b'Sb, and the covariance with the variance estimate, come from the spread of the block means.
- tr(S^2) comes from the Gram matrix of the block means, by the unbiased estimator of Himeno and
  Yamada (J. Multivariate Analysis 130, 2014).

A standard error is one of the squared bias: it is up to sqrt 2 too large at zero bias, and two of
them cover 85 rather than 95 % where |b| is 2 to 3 times the noise of m, for the square is skewed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradbench.blocks import BINS, Block, Counts, Floats, LayerBlock, Moments, pool
from gradbench.errors import GradbenchError

BAND = (0.15, 0.85)  # of the cosine
KEYS = ["problem", "replicate", "checkpoint", "layer", "estimator"]
_ROUNDING = 1e-13  # a standard deviation this small, relative to the mean, is no randomness
_ZERO = 1e-60  # a gradient this small is zero: relative squares of squares would overflow


class Cell(NamedTuple):
    """The stored measurement of one estimator at one checkpoint, the input of every function here.

    ``gradient`` holds the exact gradient of each layer, flattened to [P]. ``averages`` are the M up
    to ``block_size`` that the blocks hold cosine sums for; ``head_sizes`` the rows of their heads.
    ``long_averages`` are the M above ``block_size`` to report; each must be a multiple of it or
    leave a remainder in ``head_sizes``. ``info`` (loss, width, ...) becomes columns of the frames.
    ``moments`` are the exact mean and variance [P] of a draw of each layer, where they are known:
    bias and variance then come from them, without error, and only the cosine from the blocks.
    """

    problem: str
    replicate: int
    checkpoint: str | int
    estimator: str
    layer_names: Sequence[str]
    blocks: Sequence[Block]
    gradient: Sequence[Floats]
    averages: Sequence[int]
    head_sizes: Sequence[int]
    block_size: int
    long_averages: Sequence[int] = ()
    info: Mapping[str, object] = {}
    moments: Sequence[tuple[Floats, Floats]] | None = None


class Accuracy(NamedTuple):
    """Relative squared bias and relative variance of one draw, as estimated from N draws.

    ``covariance`` [2, 2] is that of the two estimates; NaN where a single block cannot tell it.
    """

    bias2: float
    variance: float
    covariance: Floats

    def rmse(self, average: float) -> tuple[float, float]:
        """Relative RMSE of the M-sample estimate, with its standard error.

        An MSE below zero counts as zero. The error is the width of the upper side,
        sqrt(MSE + se) - RMSE: se / (2 RMSE) where MSE is well above its error, finite elsewhere.
        """
        mse = max(self.bias2 + self.variance / average, 0.0)
        weights = np.array([1.0, 1.0 / average])
        se = math.sqrt(np.maximum(weights @ self.covariance @ weights, 0.0))
        return math.sqrt(mse), math.sqrt(mse + se) - math.sqrt(mse)


class Cosine(NamedTuple):
    """Mean and 15 % and 85 % quantiles of cos(M-sample estimate, G) over groups of M draws."""

    groups: int
    cosine: float
    cosine_se: float
    cosine_low: float
    cosine_low_se: float
    cosine_high: float
    cosine_high_se: float


_NO_ACCURACY = Accuracy(math.nan, math.nan, np.full((2, 2), math.nan))
_NO_COSINE = Cosine(0, *[math.nan] * 6)


class LayerMetrics(NamedTuple):
    """All that was measured about one layer in one cell; NaN where the gradient is zero."""

    gradient_norm: float
    draws: int
    zero_gradient: bool
    accuracy: Accuracy
    cosines: dict[int, Cosine]  # by M
    exact: bool = False  # whether the accuracy comes from exact moments


def layer_metrics(cell: Cell, layer: int) -> LayerMetrics:
    """The metrics of one layer, with the cosine at every M that the blocks of the cell allow.

    Raises:
        GradbenchError: blocks are missing or repeated, or a long average needs a head not stored.
    """
    blocks = sorted(cell.blocks, key=lambda block: block.index)
    if not blocks or [block.index for block in blocks] != list(range(len(blocks))):
        raise GradbenchError(
            f"blocks {[block.index for block in blocks][:8]} of {cell.problem}/{cell.replicate}/"
            f"{cell.checkpoint}/{cell.estimator} are not numbered 0, 1, 2, ...; run the suite again"
        )
    parts = [block.layers[layer] for block in blocks]
    draws = int(sum(part.count for part in parts))
    gradient = np.asarray(cell.gradient[layer], np.float64).ravel()
    norm = float(np.linalg.norm(gradient))
    averages = sorted({*cell.averages, *cell.long_averages})
    if norm < _ZERO:
        return LayerMetrics(norm, draws, True, _NO_ACCURACY, dict.fromkeys(averages, _NO_COSINE))

    means = np.stack([np.asarray(part.mean, np.float64) for part in parts])
    m2 = np.stack([np.asarray(part.m2, np.float64) for part in parts])
    counts = np.array([part.count for part in parts], np.float64)
    sampled = _accuracy(counts, means / norm, m2 / norm / norm, gradient / norm)
    cosines = {}
    for average in averages:
        if average in cell.averages:
            sums = _stored_sums(parts, list(cell.averages).index(average))
        else:
            sums = _sums(_long_cosines(cell, parts, means, gradient / norm, average))
        cosines[average] = _cosine(*sums, steady=sampled.variance == 0.0)
    if cell.moments is None:
        return LayerMetrics(norm, draws, False, sampled, cosines)
    mean, variance = cell.moments[layer]
    bias = (mean - gradient) / norm
    accuracy = Accuracy(float(bias @ bias), float(variance.sum()) / norm / norm, np.zeros((2, 2)))
    return LayerMetrics(norm, draws, False, accuracy, cosines, exact=True)


def _accuracy(counts: Floats, means: Floats, m2: Floats, gradient: Floats) -> Accuracy:
    """Bias and variance from counts [n], means [n, P] and m2 [n, P] in units of |G|."""
    draws = counts.sum()
    if draws < 2:
        return _NO_ACCURACY
    _, mean, squares = pool(map(Moments, counts, means, m2))
    centred = means - mean
    error = mean - gradient
    if squares.sum() <= draws * _ROUNDING**2 * (mean @ mean):
        return Accuracy(float(error @ error), 0.0, np.zeros((2, 2)))
    variances = squares / (draws - 1)  # the exactly unbiased bias2 needs this one, not squares / N
    variance = float(variances.sum())
    bias2 = float(error @ error - variance / draws)
    if len(counts) < 2:
        return Accuracy(bias2, variance, _NO_ACCURACY.covariance)

    # What each block adds to the two estimates at first order: their covariance is its spread.
    added = np.stack([2.0 * centred @ error, m2.sum(1) / counts + (centred**2).sum(1)])
    added -= (added @ counts / draws)[:, None]
    covariance = (added * counts) @ added.T / (draws * (len(counts) - 1))
    # error = b + noise, so the spread of 2 centred.error is that of b and 4 tr(S^2)/N of the noise:
    # put the exact second-order term in the place of the latter.
    square = _trace_of_square(means[counts == counts[0]], counts[0], variances)
    first_order = max(covariance[0, 0] - 4.0 * square / draws**2, 0.0)
    covariance[0, 0] = first_order + 2.0 * square / (draws * (draws - 1))
    limit = math.sqrt(covariance[0, 0] * covariance[1, 1])
    covariance[0, 1] = covariance[1, 0] = np.clip(covariance[0, 1], -limit, limit)
    return Accuracy(bias2, variance, covariance)


def _trace_of_square(means: Floats, count: float, variances: Floats) -> float:
    """tr(S^2) from means [n, P] over ``count`` draws each; ``variances`` [P] is the diagonal of S.

    It lies between the squared diagonal and (tr S)^2, and is kept there; with fewer than four whole
    blocks the upper bound stands in for it, which errs towards a larger standard error.
    """
    n = len(means)
    if n < 4:
        return float(variances.sum() ** 2)
    centred = (means - means.mean(0)) * math.sqrt(count)
    gram = centred @ centred.T if n <= centred.shape[1] else centred.T @ centred
    sizes = (centred**2).sum(1)
    total = (n - 2) / (n - 1) * (gram**2).sum()
    total += sizes.sum() ** 2 / (n - 1) ** 2 - n / (n - 1) * (sizes**2).sum()
    square = total * (n - 1) / (n * (n - 2) * (n - 3))
    return float(np.clip(square, variances @ variances, variances.sum() ** 2))


# Number of groups, sum of cosines, sum of squared cosines, counts of angles [BINS].
_Sums = tuple[int, float, float, Counts]


def _stored_sums(parts: Sequence[LayerBlock], k: int) -> _Sums:
    """The cosine statistics of the k-th of the averages, over all blocks."""
    return (
        int(sum(part.groups[k] for part in parts)),
        float(sum(part.cosine[k] for part in parts)),
        float(sum(part.cosine_sq[k] for part in parts)),
        np.sum([part.histogram[k] for part in parts], axis=0),
    )


def _sums(cosines: Floats) -> _Sums:
    histogram = np.histogram(np.arccos(cosines), BINS, (0.0, np.pi))[0]
    return len(cosines), float(cosines.sum()), float(cosines @ cosines), histogram


def _long_cosines(
    cell: Cell, parts: Sequence[LayerBlock], means: Floats, direction: Floats, average: int
) -> Floats:
    """Cosines [K] of groups of whole blocks and, if M leaves a remainder, the next block's head."""
    whole, rest = divmod(average, cell.block_size)
    if not whole or (rest and rest not in cell.head_sizes):
        raise GradbenchError(
            f"the blocks of {cell.block_size} draws do not keep what the cosine at M = {average} "
            f"needs; name this M before the run, or take a multiple of {cell.block_size}"
        )
    stride = whole + (rest > 0)
    groups = len(parts) // stride
    if groups * stride == len(parts) and parts[-1].count < (rest or cell.block_size):
        groups -= 1  # the last block, the only one that can be short, is too short
    used = means[: groups * stride].reshape(groups, stride, means.shape[1])
    sums = used[:, :whole].sum(1) * cell.block_size
    if rest and groups:
        row = list(cell.head_sizes).index(rest)
        sums += np.stack([parts[k * stride + whole].heads[row] for k in range(groups)])
    lengths = np.linalg.norm(sums, axis=1)
    cosines = np.divide(sums @ direction, lengths, out=np.zeros(groups), where=lengths > 0)
    return np.clip(cosines, -1.0, 1.0)


def _cosine(groups: int, total: float, squares: float, histogram: Counts, steady: bool) -> Cosine:
    """The statistics of the cosine over groups; one number for a deterministic estimator."""
    if not groups:
        return _NO_COSINE
    mean = total / groups
    if steady:
        return Cosine(groups, mean, 0.0, mean, 0.0, mean, 0.0)
    if groups == 1:
        return Cosine(groups, mean, math.nan, mean, math.nan, mean, math.nan)
    variance = max(squares / groups - mean**2, 0.0) / (groups - 1)
    (low, low_se), (high, high_se) = (_quantile(histogram, share) for share in BAND)
    return Cosine(groups, mean, math.sqrt(variance), low, low_se, high, high_se)


def _quantile(histogram: Counts, share: float) -> tuple[float, float]:
    """A quantile of the cosine from the counts of angles [BINS], and its order-statistics error.

    The number of groups below a quantile is binomial: the error is half the way between the
    quantiles one binomial standard deviation to either side. Inside a bin the angle is linear.
    """
    groups = histogram.sum()
    reach = math.sqrt(share * (1.0 - share) / groups)
    shares = np.clip([share, share - reach, share + reach], 0.0, 1.0)
    bins = np.flatnonzero(histogram)
    ends = np.concatenate([[0], np.cumsum(histogram[bins])])
    # The cosine falls as the angle grows: its quantile `share` is that of the angle at 1 - share.
    at = (1.0 - shares) * groups
    k = np.clip(np.searchsorted(ends, at) - 1, 0, len(bins) - 1)
    angle = (bins[k] + (at - ends[k]) / histogram[bins[k]]) * np.pi / len(histogram)
    value, below, above = np.cos(angle)
    return float(value), float((above - below) / 2.0)


def summary(results: Iterable[Cell]) -> pd.DataFrame:
    """One row per cell and layer: the accuracy of a single draw, relative to |G|.

    Columns: problem, replicate, checkpoint, layer, estimator; gradient_norm (absolute), draws,
    zero_gradient; exact (whether bias2, variance and rmse are, with errors of 0); bias2, variance,
    rmse, cosine, cosine_low and cosine_high (15 % and 85 %), each with ``_se``; groups; and what
    the cells carry as ``info``.
    """
    rows = []
    for key, metrics in _every_layer(results):
        bias_se, variance_se = np.sqrt(np.diag(metrics.accuracy.covariance))
        rmse, rmse_se = metrics.accuracy.rmse(1)
        rows.append(
            key
            | {
                "gradient_norm": metrics.gradient_norm,
                "draws": metrics.draws,
                "zero_gradient": metrics.zero_gradient,
                "exact": metrics.exact,
                "bias2": metrics.accuracy.bias2,
                "bias2_se": float(bias_se),
                "variance": metrics.accuracy.variance,
                "variance_se": float(variance_se),
                "rmse": rmse,
                "rmse_se": rmse_se,
            }
            | metrics.cosines.get(1, _NO_COSINE)._asdict()
        )
    return pd.DataFrame(rows)


def curves(results: Iterable[Cell]) -> pd.DataFrame:
    """One row per cell, layer and M: relative RMSE and cosine of the M-sample estimate.

    Columns: problem, replicate, checkpoint, layer, estimator; M, zero_gradient, exact (whether rmse
    is); rmse, cosine, cosine_low and cosine_high (15 % and 85 %), each with ``_se``; groups; and
    what the cells carry as ``info``. RMSE follows from the moments at any M; the cosine is NaN
    without a group of M.
    """
    rows = []
    for key, metrics in _every_layer(results):
        for average, cosine in metrics.cosines.items():
            rmse, rmse_se = metrics.accuracy.rmse(average)
            row = {
                "M": average,
                "zero_gradient": metrics.zero_gradient,
                "exact": metrics.exact,
                "rmse": rmse,
                "rmse_se": rmse_se,
            }
            rows.append(key | row | cosine._asdict())
    return pd.DataFrame(rows)


def _every_layer(results: Iterable[Cell]) -> Iterable[tuple[dict[str, Any], LayerMetrics]]:
    for cell in results:
        for layer, name in enumerate(cell.layer_names):
            key = [cell.problem, cell.replicate, cell.checkpoint, name, cell.estimator]
            yield dict(zip(KEYS, key, strict=True)) | dict(cell.info), layer_metrics(cell, layer)
