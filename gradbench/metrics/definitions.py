"""The metrics of gradbench, each a function of what was measured of one layer.

In their formulas g is a draw of the estimator, g_M the mean of M independent draws, G the exact
gradient of the layer. The order here is that of tables and frames.
"""

import math

from gradbench.metrics.intervals import Estimate
from gradbench.metrics.layers import LayerMetrics
from gradbench.metrics.registry import metric


@metric(
    title="RMSE",
    symbol=r"\mathrm{RMSE} / |G|",
    formula=r"\frac{\sqrt{E\,\lvert g_M - G\rvert^2}}{\lvert G\rvert}",
)
def rmse(found: LayerMetrics, average: int) -> Estimate:
    """sqrt(E |g_M - G|^2) / |G|."""
    return found.accuracy.rmse(average, found.level)


@metric(
    title="MSE",
    symbol=r"\mathrm{MSE} / |G|^2",
    formula=r"\frac{E\,\lvert g_M - G\rvert^2}{\lvert G\rvert^2}",
)
def mse(found: LayerMetrics, average: int) -> Estimate:
    """E |g_M - G|^2 / |G|^2."""
    return found.accuracy.mse(average, found.level)


@metric(title="|bias|", symbol="|b| / |G|", formula=r"\frac{\lvert E\,g - G\rvert}{\lvert G\rvert}")
def bias(found: LayerMetrics, average: int) -> Estimate:
    """|E g - G| / |G|."""
    return found.accuracy.squared_bias(found.level).root()


@metric(
    title="bias^2",
    symbol="|b|^2 / |G|^2",
    formula=r"\frac{\lvert E\,g - G\rvert^2}{\lvert G\rvert^2}",
)
def bias2(found: LayerMetrics, average: int) -> Estimate:
    """|E g - G|^2 / |G|^2, de-biased."""
    return found.accuracy.squared_bias(found.level)


@metric(
    title="std",
    symbol=r"\sigma / |G|",
    formula=r"\frac{\sqrt{\mathrm{tr\,Cov}\,g/ M}}{\lvert G\rvert}",
)
def std(found: LayerMetrics, average: int) -> Estimate:
    """sqrt(tr Cov g / M) / |G|."""
    return found.accuracy.variance_of_draw(found.level).times(1.0 / average).root()


@metric(
    title="variance", symbol="V / |G|^2", formula=r"\frac{\mathrm{tr\,Cov}\,g}{\lvert G\rvert^2}"
)
def variance(found: LayerMetrics, average: int) -> Estimate:
    """tr Cov g / |G|^2 of one draw."""
    return found.accuracy.variance_of_draw(found.level)


@metric(
    title="cosine",
    symbol=r"\cos",
    formula=r"E\,\frac{g_M \cdot G}{\lvert g_M\rvert \,\lvert G\rvert}",
    better="high",
    groups=True,
)
def cosine(found: LayerMetrics, average: int) -> Estimate:
    """E cos(g_M, G)."""
    return found.directions(average).cosine


@metric(title="signs", symbol=r"\mathrm{signs}", better="high", groups=True)
def signs(found: LayerMetrics, average: int) -> Estimate:
    """share of coordinates with the sign of G."""
    return found.directions(average).signs


@metric(
    title="descent",
    symbol=r"g \cdot G / |G|^2",
    formula=r"\frac{E\,g \cdot G}{\lvert G\rvert^2}",
    better="high",
)
def descent(found: LayerMetrics, average: int) -> Estimate:
    """E g.G / |G|^2."""
    return found.direction.descent


@metric(
    title="P(descent)",
    symbol=r"P(g \cdot G > 0)",
    formula=r"P(g_M \cdot G > 0)",
    better="high",
    groups=True,
)
def descent_probability(found: LayerMetrics, average: int) -> Estimate:
    """probability that g_M.G > 0."""
    return found.directions(average).descent_probability


@metric(
    title="SNR",
    symbol=r"\mathrm{SNR}",
    formula=r"\frac{\lvert E\,g\rvert}{\sqrt{\mathrm{tr\,Cov}\,g/ M}}",
    better="high",
)
def snr(found: LayerMetrics, average: int) -> Estimate:
    """|E g| / sqrt(tr Cov g / M)."""
    return found.direction.snr.times(math.sqrt(average))


@metric(
    title="scale-free bias",
    symbol=r"\sin",
    formula=r"\min_c \frac{\lvert c\,E\,g - G\rvert}{\lvert G\rvert}",
)
def scale_free_bias(found: LayerMetrics, average: int) -> Estimate:
    """min over c of |c E g - G| / |G|."""
    return found.direction.scale_free_bias
