"""Experiments repeated some hundreds of times: intervals at 95 % contain the truth as often.

An experiment draws N = blocks x 32 draws with replacement from a large pool, whose mean, covariance
and directions are the truth. Pools: normal; skewed, a mixture with products of exponentials as the
score times the loss has; and REINFORCE on a small network. The gradient is set beside the mean of
the pool at a bias of zero, of twice the noise of the mean of N draws, and of 0.9 |G|.

What is asked: coverage in [0.93, 0.995], up to what a binomial number of hits exceeds with a
probability of 1e-6, for each metric, in each experiment from below, over all of them from both
sides; and widths below three times that of an oracle, 2 x 1.96 standard deviations of the estimate.

The same is asked where the gradient itself is the mean of draws, of a relative standard error of
15 %: then shares of signs and of descents err to the safe side, and are asked from below alone.
"""

import itertools
import math
from functools import cache

import numpy as np
import pytest
from conftest import precision, small
from scipy.stats import binom
from stored import drawn

from gradbench.measure.blocks import Blocks
from gradbench.metrics import METRICS, layers_of

LEAST, MOST, RATE = 0.93, 0.995, 1e-6
SIZE = 32  # of a block
POOL = 20_000
GROUP = 8  # M of the directions beside M = 1
BIASES = ("zero", "small", "large")
NEARLY = 0.99
TARGETS = {"few": 30, "many": 4000}  # M* whose RMSE draws_needed is asked for


def normal():
    root = np.array([[0.9, 0, 0, 0], [0.4, 0.5, 0, 0], [0.3, 0, 0.2, 0], [0, 0.1, 0.1, 0.1]])
    return np.array([0.6, 0.0, -0.8, 0.1]) + np.random.default_rng(1).normal(size=(POOL, 4)) @ root


def skewed():
    """Six coordinates; 70 % of the draws are along the mean, the others far from it."""
    rng = np.random.default_rng(2)
    mean = np.array([0.3, -0.4, 0.5, 0.2, -0.6, 0.3])
    scale = rng.exponential(size=(POOL, 1))
    far = rng.exponential(size=(POOL, 1)) * (rng.random((POOL, 1)) < 0.3)
    return scale * mean + 0.7 * far * rng.choice([-1.0, 1.0], size=(POOL, 6))


def reinforced():
    """The first layer of a 2-3-1 network: three examples of 8 states each."""
    import jax
    import jax.numpy as jnp

    from gradbench.estimators import reinforce

    network, params, batch = small((2, 3, 1), scale=2.0)
    with precision(True):
        params = jax.tree.map(jnp.asarray, params)
        loss = reinforce(network)
        keys = jax.random.split(jax.random.key(3), POOL)
        draws = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))(params, keys, batch)[0]
    return np.concatenate([np.asarray(x).reshape(POOL, -1) for x in jax.tree.leaves(draws)], 1)


POOLS = {"normal": normal, "skewed": skewed, "reinforce": reinforced}


@cache
def pool_of(source):
    return POOLS[source]()


def beside(mean, bias):
    """The gradient G with |mean - G| = bias |G|, in a direction in general position."""
    u = np.cos(np.arange(len(mean)))
    u /= np.linalg.norm(u)
    # mean = G - t u, so t^2 = bias^2 (|mean|^2 + 2 t mean.u + t^2)
    two, one, zero = 1.0 - bias**2, -2.0 * bias**2 * (mean @ u), -(bias**2) * (mean @ mean)
    return mean + (-one + math.sqrt(one**2 - 4.0 * two * zero)) / (2.0 * two) * u


def directed(means, gradient):
    """Cosine, agreement of signs and descent of each of some means."""
    lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(gradient)
    cosine = np.divide(means @ gradient, lengths, np.zeros(len(means)), where=lengths > 0)
    return [x.mean() for x in (cosine, np.sign(means) == np.sign(gradient), cosine > 1e-12)]


def truth(pool, gradient):
    """Every metric of the pool, directions at GROUP from 2^17 groups."""
    scale = gradient @ gradient
    mean = pool.mean(0)
    bias2 = ((mean - gradient) ** 2).sum() / scale
    variance = pool.var(0).sum() / scale
    cosine = mean @ gradient / math.sqrt(scale * (mean @ mean))
    groups = np.random.default_rng(4).integers(POOL, size=(GROUP, 2**17))
    found = {"bias2": bias2, "bias": bias2**0.5, "variance": variance, "std": variance**0.5}
    for average in (1, 100):
        mse = bias2 + variance / average
        found |= {f"mse {average}": mse, f"rmse {average}": mse**0.5}
    found |= {"descent": mean @ gradient / scale, "snr": math.sqrt(mean @ mean / scale / variance)}
    found |= {"scale_free_bias": math.sqrt(max(1.0 - cosine**2, 0.0))}
    for average, means in ((1, pool), (GROUP, sum(pool[row] for row in groups) / GROUP)):
        names = [f"{name} {average}" for name in ("cosine", "signs", "descent_probability")]
        found |= dict(zip(names, directed(means, gradient), strict=True))
    found |= {f"draws_needed {name}": float(m) for name, m in TARGETS.items()}
    return found | {"draws_needed never": math.inf}


def noisy(pool, gradient, rel_se, rng):
    """Blocks of a sampled gradient, whose draws are spread as the pool is."""
    rows = gradient + (pool - pool.mean(0))[rng.integers(POOL, size=64 * 16)] * (
        rel_se * np.linalg.norm(gradient) * math.sqrt(64 * 16 / pool.var(0).sum())
    )
    parts = rows.reshape(64, 16, -1)
    means = parts.mean(1)
    return Blocks(np.full(64, 16.0), means, ((parts - means[:, None]) ** 2).sum(1))


@cache
def experiment(source, bias, blocks, repeats, names=None, rel_se=0.0, moments=False):
    """Of some metrics in so many repeats: hits, and the width relative to that of an oracle.

    With a relative standard error of the gradient, it is sampled in each repeat; bias and variance
    are then known where there are moments.
    """
    pool = pool_of(source)
    noise = math.sqrt(pool.var(0).sum() / (blocks * SIZE))
    mean = pool.mean(0)
    size = {"zero": 0.0, "small": min(2.0 * noise / np.linalg.norm(mean), 0.5), "large": 0.9}[bias]
    gradient = beside(mean, size)
    true = truth(pool, gradient)
    names = names or tuple(true)
    eps = {k: math.sqrt(true["bias2"] + true["variance"] / m) for k, m in TARGETS.items()}
    eps["never"] = 0.7 * true["bias"]
    rng = np.random.default_rng([*map(ord, source), *map(ord, bias), blocks])
    rows = []
    for _ in range(repeats):
        draws = pool[rng.integers(POOL, size=blocks * SIZE)]
        seen, more = gradient, {}
        if rel_se:
            reference = noisy(pool, gradient, rel_se, rng)
            seen, more = reference.mean(), {"reference": [reference]}
        if moments:
            more["moments"] = [(mean, pool.var(0))]
        (found,) = layers_of(drawn(draws, seen, SIZE, (), **more))
        # Directions are sums over groups: how these are cut into blocks does not matter.
        (directions,) = layers_of(drawn(draws, seen, blocks * SIZE, (1, GROUP), **more))
        row = []
        for name in names:
            metric, _, average = name.partition(" ")
            if metric == "draws_needed":
                row.append(found.accuracy.draws_needed(eps[average]))
                continue
            of = directions if METRICS[metric].groups else found
            row.append(of.estimate(metric, int(average or 1)))
        rows.append(row)
    values, _, low, high = np.moveaxis(np.array(rows, float), 2, 0)
    expected = np.array([true[name] for name in names])
    rounding = 1e-9 * np.abs(np.nan_to_num(expected, posinf=0.0)) + 1e-12
    hits = ((low <= expected + rounding) & (expected - rounding <= high)).sum(0)
    ratios = {}
    for k, name in enumerate(names):
        # Complexities may be infinite, and few of nearly certain descents are seen to fail.
        rare = name.startswith("descent_probability") and expected[k] > NEARLY
        if not rare and not name.startswith("draws_needed"):
            ratios[name] = np.median(high[:, k] - low[:, k]) / (2 * 1.96 * values[:, k].std())
    return dict(zip(names, map(int, hits), strict=True)), ratios


def assert_covered(hits, repeats, what):
    """Refuses a number of hits that a coverage in [LEAST, MOST] has with a probability of RATE."""
    assert binom.cdf(hits, repeats, LEAST) > RATE, (what, hits / repeats)
    assert binom.sf(hits - 1, repeats, MOST) > RATE, (what, hits / repeats)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.first(1)
@pytest.mark.slow
def test_intervals_of_a_skewed_estimator_cover_and_are_not_absurdly_wide(bias):
    names = ("bias", "mse 100", "snr", "cosine 8", "signs 1")
    hits, ratios = experiment("skewed", bias, 20, 300, names)
    for name in names:
        assert_covered(hits[name], 300, name)
        assert 0.7 < ratios[name] < 3.0, (name, ratios[name])


REPEATS = 400
EXPERIMENTS = list(itertools.product(POOLS, BIASES, (20, 64)))


@pytest.mark.slow
@pytest.mark.parametrize(("source", "bias", "blocks"), EXPERIMENTS)
def test_intervals_cover_in_every_experiment_and_are_not_absurdly_wide(source, bias, blocks):
    hits, ratios = experiment(source, bias, blocks, REPEATS)
    for name, count in hits.items():
        assert binom.cdf(count, REPEATS, LEAST) > RATE, (name, count / REPEATS)
        assert ratios.get(name, 0.0) < 3.0, (name, ratios[name])


@pytest.mark.slow
def test_intervals_of_every_metric_cover_as_stated_over_all_experiments():
    """Conservative is what lies at a bound in most of them: nearly certain descents, and eps that
    no number of draws reaches.
    """
    found = [experiment(*which, REPEATS)[0] for which in EXPERIMENTS]
    total = REPEATS * len(EXPERIMENTS)
    assert set(METRICS) <= {name.partition(" ")[0] for name in found[0]}
    for name in found[0]:
        hits = sum(hits[name] for hits in found)
        print(f"{name:24} {hits / total:.4f}")
        if name == "draws_needed never":
            assert binom.cdf(hits, total, LEAST) > RATE
        else:
            assert_covered(hits, total, name)


SAMPLED = [*itertools.product(POOLS, BIASES, (False, True))]
SAFE = ("signs", "descent_probability", "draws_needed")  # conservative, or without a width


@pytest.mark.parametrize(("bias", "moments"), [("zero", True), ("large", False)])
@pytest.mark.first(1)
@pytest.mark.slow
def test_intervals_against_a_noisy_reference_cover(bias, moments):
    names = ("bias2", "mse 1", "variance", "descent", "scale_free_bias", "cosine 8")
    hits, ratios = experiment("skewed", bias, 20, 200, names, rel_se=0.15, moments=moments)
    for name in names:
        assert_covered(hits[name], 200, name)
        assert 0.6 < ratios[name] < 3.0, (name, ratios[name])


@pytest.mark.slow
@pytest.mark.parametrize(("source", "bias", "moments"), SAMPLED)
def test_intervals_against_a_noisy_reference_cover_in_every_experiment(source, bias, moments):
    hits, ratios = experiment(source, bias, 20, REPEATS, None, 0.15, moments)
    for name, count in hits.items():
        assert binom.cdf(count, REPEATS, LEAST) > RATE, (name, count / REPEATS)
        known = moments and name == "snr"
        if not known and not name.startswith(SAFE):
            assert 0.5 < ratios[name] < 3.0, (name, ratios[name])


@pytest.mark.slow
def test_intervals_against_a_noisy_reference_cover_as_stated_over_all_experiments():
    found = [
        experiment(source, bias, 20, REPEATS, None, 0.15, moments)[0]
        for source, bias, moments in SAMPLED
    ]
    total = REPEATS * len(found)
    for name in found[0]:
        hits = sum(hits[name] for hits in found)
        print(f"{name:24} {hits / total:.4f}")
        if name.startswith((*SAFE, "snr")):  # SNR knows no reference, and is known with moments
            assert binom.cdf(hits, total, LEAST) > RATE, (name, hits / total)
        else:
            assert_covered(hits, total, name)


def p_values(source, draws, repeats, shift=0.0):
    """Of unbiasedness, where one coordinate is off by so many standard errors."""
    pool = pool_of(source)
    gradient = pool.mean(0)
    k = int(pool.var(0).argmax())
    moved = np.eye(len(gradient))[k] * shift * pool.std(0)[k] / math.sqrt(draws)
    rng = np.random.default_rng([*map(ord, source), draws])
    found = []
    for _ in range(repeats):
        rows = pool[rng.integers(POOL, size=draws)] + moved
        (layer,) = layers_of(drawn(rows, gradient, draws // 4, ()))
        found.append(layer.unbiased_p)
    return np.array(found)


SOURCES = ["skewed", *(pytest.param(name, marks=pytest.mark.slow) for name in POOLS)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.slow
def test_one_p_value_in_a_hundred_is_below_a_hundredth_without_bias_and_most_are_with_one(source):
    """Between 1/2 and 3/2 of the level: Sidak is conservative for correlated coordinates."""
    p = p_values(source, 640, 2000)
    for level in (0.01, 0.05):
        hits = int((p < level).sum())
        assert binom.sf(hits - 1, len(p), 1.5 * level) > RATE, hits
        assert binom.cdf(hits, len(p), 0.5 * level) > RATE, hits
    caught = (p_values(source, 640, 200, 6.0) < 0.01).mean()
    assert caught > 0.9
