"""gradbench beside storchastic: the means of estimators and their throughput: ``make peer``.

storchastic (https://github.com/HEmile/storchastic, AGPL) is used as it is installed, through its
public interface. Both sides get the same Bernoulli units, the same objectives and float32.

Means: on three units, the mean of many draws of storchastic's estimators is compared with what it
has to be: the exact gradient, for methods that are biased by definition the exact mean of our
version of the same method. Ours is exact too where moments can be enumerated or integrated.

Throughput: D = 200 units, estimates per second of CPU time on one core, each side at its best size
of batch. Ours gives every estimate a gradient of its own; theirs is the faster of that and of one
gradient, the mean of ``n_samples``. The sides take turns: ratios within a run say more than the
numbers.
"""

import os
import sys
import warnings
from collections.abc import Callable
from statistics import NormalDist, median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from turns import ROUNDS, SECONDS, rate, rates, ratio

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64
from gradbench.estimators import get_estimator, make_estimator
from gradbench.estimators.adaptive import fitted
from gradbench.exact.moments import moments
from gradbench.measure.exact_reference import exact_gradient

LOGITS = (0.3, -0.8, 1.2)  # of the three units
UNITS = 200  # for throughput, all of logit 0
FALSE_ALARM = 1e-6  # of each estimator's test, over its coordinates
DRAWS, AT_ONCE = 1_000_000, 2500
INTEGRAL = 1 << 22  # points: in seconds
BATCHES = (100, 300, 1000, 3000, 10_000)


def three_bits(b: Any) -> Any:
    """Return an objective of three units, not separable, of JAX arrays or the peer's tensors."""
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return (u + 2 * v - 1.5 * w) ** 2 + 3 * u * v * w - w


def distance(b: Any) -> Any:
    """Return the usual toy objective, the mean squared distance to 0.45."""
    return ((b - 0.45) ** 2).sum(-1) / UNITS


class Pair(NamedTuple):
    """A method of storchastic and our estimator of the same kind.

    ``make(methods, n)`` gives the peer's, for n samples; an estimate takes ``samples`` of them.
    ``timed``: for 200 units. That leaves out what is wrong on a side, and what evaluates distinct
    states, which ends in a RecursionError there and is refused above 16 units here.
    """

    peer: str
    make: Callable[[Any, int], Any]
    ours: str
    samples: int = 1
    draws: int = DRAWS
    timed: bool = False


# Not here: what is made for other variables than Bernoulli (LAX, Reparameterization, GumbelEntmax,
# GumbelSparseMax), and UnorderedSetGumbelSoftmax, biased and without counterpart. The moving
# average contains the current batch of N with weight 0.05 / N, too little to be seen at this N.
PAIRS = (
    Pair("ScoreFunction", lambda m, n: m.ScoreFunction("x", n_samples=n), "reinforce", timed=True),
    Pair(
        "ScoreFunction, moving average",
        lambda m, n: m.ScoreFunction("x", n_samples=n, baseline_factory="moving_average"),
        "moving_average",
        timed=True,
    ),
    Pair(
        "ScoreFunction, leave one out of 4",
        lambda m, n: m.ScoreFunction("x", n_samples=n, baseline_factory="batch_average"),
        "rloo(samples=4)",
        samples=4,
        timed=True,
    ),
    Pair("ARM", lambda m, n: m.ARM("x", n_samples=n), "arm", timed=True),
    Pair("DisARM", lambda m, n: m.DisARM("x", n_samples=n), "disarm"),
    Pair("REBAR", lambda m, n: m.REBAR("x", n_samples=n), "rebar(temperature=1)"),
    Pair(
        "RELAX, c_phi = objective",
        lambda m, n: m.RELAX("x", n_samples=n, c_phi=three_bits),
        "relax(temperature=1)",
    ),
    Pair(
        "RaoBlackwellSF, 1 of 2 sampled",
        lambda m, n: m.RaoBlackwellSF("x", n),
        "top_c(states=1)",
        samples=2,
    ),
    Pair(
        "UnorderedSetEstimator of 2",
        lambda m, n: m.UnorderedSetEstimator("x", n),
        "unordered_set(samples=2, baseline=True)",
        samples=2,
        draws=200_000,  # slow: an integral of 1000 points each, whose error is seen in the mean
    ),
    Pair(
        "ScoreFunctionWOR of 2, unbiased form",
        lambda m, n: m.ScoreFunctionWOR("x", n, biased=False),
        "",
        samples=2,
        draws=200_000,
    ),
    Pair("Expect", lambda m, n: m.Expect("x"), "exact", draws=1),
    Pair(
        "GumbelSoftmax",
        lambda m, n: m.GumbelSoftmax("x", n_samples=n, annealing_rate=0.0),
        "concrete(temperature=1)",
        timed=True,
    ),
    Pair(
        "GumbelSoftmax, straight-through",
        lambda m, n: m.GumbelSoftmax("x", n_samples=n, straight_through=True, annealing_rate=0.0),
        "st_gumbel_softmax(temperature=1)",
        timed=True,
    ),
)


def main() -> None:
    """Both comparisons, in one run."""
    try:
        torch, _ = load_peer()
    except GradbenchError as error:
        sys.exit(f"error: {error}")
    if hasattr(os, "sched_setaffinity"):  # before JAX starts its threads: one core for both sides
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"JAX {jax.__version__}, torch {torch.__version__}; float32, one core")
    print_means()
    print_throughput()


def load_peer() -> tuple[Any, Any]:
    """Return the modules ``torch`` and ``storch``.

    Raises:
        GradbenchError: they are not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import storch
            import torch
    except ImportError as error:
        raise GradbenchError(
            f"storchastic cannot be imported ({error}); run `make peer`, which installs the extra "
            "'peer' in an environment of its own"
        ) from None
    return torch, storch


# Means on three units


def print_means() -> None:
    """For each pair what its mean is on both sides."""
    print(
        f"\nmeans on three units: |z| of the mean of draws, {DRAWS:,} of most; false-alarm rate "
        f"{FALSE_ALARM:g} each\n(wrong above {limit(len(LOGITS)):.2f}); 'visible': the relative "
        "bias that is found every second time\n"
    )
    print(f"{'storchastic':38}{'mean':30}{'visible':>8}   {'gradbench':42}mean")
    exact = truth()
    for pair in PAIRS:
        ours = our_mean(pair.ours) if pair.ours else None
        biased = ours is not None and get_estimator(pair.ours)[0].claim() == "biased"
        target = ours.mean if biased else exact
        theirs, visible = peer_verdict(pair, target, biased)
        print(
            f"{pair.peer:38}{theirs:30}{visible:>8}   {pair.ours or '-':42}"
            f"{our_verdict(ours, exact, biased) if ours else ''}",
            flush=True,
        )


def peer_verdict(pair: Pair, target: np.ndarray, biased: bool) -> tuple[str, str]:
    """In words what the mean of the peer's draws is, and the relative bias that would be seen."""
    n = min(AT_ONCE, pair.draws)
    draw = peer_draws(pair, LOGITS, three_bits, n)
    try:
        draws = np.concatenate([n * np.asarray(draw()) for _ in range(pair.draws // n)])
    except Exception as error:  # whatever the peer raises is a result
        load_peer()[1].reset()
        return f"fails: {type(error).__name__}", ""
    z, error = largest_z(draws, target)
    size = np.linalg.norm(target)
    word = "biased as defined" if biased else "right"
    if z > limit(target.size):
        word = f"wrong by {np.linalg.norm(draws.mean(0) - target) / size:.0%}"
    return f"{word} (z = {z:.1f})", f"{limit(target.size) * error / size:.1%}"


class OurMean(NamedTuple):
    """The mean of one of our estimators, and |z| of its distance to the truth where not exact."""

    mean: np.ndarray
    z: float | None


def our_mean(spec: str) -> OurMean:
    """By exact moments where they can be had, else the mean of draws."""
    with float64():
        params, batch = (jnp.asarray(LOGITS),), jnp.zeros((1, 1))
        loss = make_estimator(spec, model_of(three_bits))
        loss = fitted(loss, params, jax.random.key(1), batch)
        try:
            return OurMean(
                np.asarray(moments(loss, params, batch, INTEGRAL, declared=False).mean[0]), None
            )
        except GradbenchError:
            draw = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))
            draws = np.asarray(draw(params, jax.random.split(jax.random.key(0), DRAWS), batch)[0])
    return OurMean(draws.mean(0), largest_z(draws, truth())[0])


def our_verdict(ours: OurMean, truth: np.ndarray, biased: bool) -> str:
    """In words what it is: exactly, with the relative error, or by a test."""
    error = float(np.linalg.norm(ours.mean - truth) / np.linalg.norm(truth))
    if biased:
        return f"biased as defined, by {error:.0%}"
    if ours.z is None:
        return f"{'right' if error < 1e-9 else 'wrong'} (exact moments: {error:.0e})"
    return f"{'wrong' if ours.z > limit(truth.size) else 'right'} (z = {ours.z:.1f})"


def truth() -> np.ndarray:
    """Return the exact gradient on three units, in float64."""
    params, batch = (np.asarray(LOGITS),), np.zeros((1, 1))
    return np.asarray(exact_gradient(model_of(three_bits), params, batch).gradient[0])


def largest_z(draws: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the largest |z| over the coordinates of the mean of [n, D], and its standard error.

    Standard errors are at least 1e-6: what has no variance may differ by rounding.
    """
    draws = np.asarray(draws, float)
    error = draws.std(0) / np.sqrt(len(draws))
    z = np.abs(draws.mean(0) - expected) / np.maximum(error, 1e-6)
    return float(z.max()), float(np.linalg.norm(error))


def limit(coordinates: int) -> float:
    """Return the |z| that any of so many exceeds with probability FALSE_ALARM (Bonferroni)."""
    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * coordinates))


# Draws of both sides


def model_of(objective: Callable[[Any], Any]) -> Callable[..., Any]:
    """Independent units of which ``params[0]`` are the logits, coded 0 and 1 for the objective."""

    def model(params: Any, example: Any, binary: Any) -> Any:
        return objective((1 + binary(params[0])) / 2)

    return model


def our_draws(spec: str, units: int, objective: Callable[[Any], Any], n: int) -> Callable[[], Any]:
    """Return a task: n estimates in float32, ``[n, units]``."""
    params, batch = (jnp.zeros(units, jnp.float32),), jnp.zeros((1, 1), jnp.float32)
    loss = make_estimator(spec, model_of(objective))
    loss = fitted(loss, params, jax.random.key(1), batch)

    @jax.jit
    def draw(params: Any, key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, n)
        return jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, batch)[0]

    return lambda: jax.block_until_ready(draw(params, jax.random.key(0), batch))


def peer_draws(
    pair: Pair, logits: Any, objective: Callable[[Any], Any], n: int, together: bool = False
) -> Callable[[], Any]:
    """Return a task: n estimates of the peer, ``[n, units]`` for the mean of the batch.

    ``together``: as one gradient, the mean over n times as many samples.
    """
    torch, storch = load_peer()
    method = pair.make(storch.method, pair.samples * (n if together else 1))
    leaf = torch.tensor(logits, dtype=torch.float32)
    leaf = (leaf if together else leaf.repeat(n, 1)).requires_grad_()

    def task() -> Any:
        leaf.grad = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backward(create_graph=True)
            a = leaf if together else storch.denote_independent(leaf, 0, "estimates")
            b = method(torch.distributions.Bernoulli(logits=a))
            storch.add_cost(objective(b.float()), "f")  # DisARM's states are booleans
            storch.backward()
        return leaf.grad.detach()

    return task


# Throughput


def print_throughput() -> None:
    """Estimates per second of CPU time, and their ratio with its range over the rounds."""
    print(
        f"\nestimates per CPU-second, D = {UNITS}: medians of {ROUNDS} rounds, (size of batch); "
        "ratio: median and range\n"
    )
    print(f"{'storchastic':34}{'theirs':>26}   {'gradbench':32}{'ours':>19}   ours / theirs")
    for pair in PAIRS:
        if not pair.timed:
            continue
        theirs = [
            (f"{n}{' together' if together else ''}", n, task)
            for together in (False, True)
            for n in BATCHES
            for task in [peer_draws(pair, [0.0] * UNITS, distance, n, together)]
            if not (together and n == BATCHES[0])
        ]
        ours = [(str(n), n, our_draws(pair.ours, UNITS, distance, n)) for n in BATCHES]
        best = [max(side, key=lambda one: rate(*one[1:], SECONDS / 4)) for side in (theirs, ours)]
        other, mine = rates([one[1:] for one in best])
        a, b = median(other), median(mine)
        print(
            f"{pair.peer:34}{quantity(a, best[0][0]):>26}   "
            f"{pair.ours:32}{quantity(b, best[1][0]):>19}"
            f"{ratio(mine, other)}",
            flush=True,
        )


def quantity(value: float, batch: str) -> str:
    """Estimates per second, with the batch that they were made in."""
    return f"{value:,.0f} ({batch})"


if __name__ == "__main__":
    main()
