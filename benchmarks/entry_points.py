"""What the entry points for other people's code cost on this machine: ``make bench``.

Prints ratios within one run: of ``binarize`` to ``jax.random.bernoulli``, of ``draws`` to
``vmap(grad)``, and of a diagnosis to a step of training.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from speed import machine, timings

import gradbench
from gradbench.estimators import make_estimator
from gradbench.models import SBN, Dense, Readout

UNITS = 1000  # and as many rows
DRAWS = 1024
STATES = ("straight_through", "zgr", "st_gumbel_softmax", "gumbel_rao")


def main() -> None:
    """Run all benchmarks of the entry points."""
    print(f"machine: {machine()}")
    print(f"\nbinarize of {UNITS} x {UNITS} units in float32, to jax.random.bernoulli of as many")
    tasks = [_bernoulli(), *map(_states, STATES), *map(_gradient, STATES)]
    bernoulli, *times = (found.seconds for found in timings(tasks))
    print(f"{'':20}{'states':>8}{'states and gradient':>22}")
    for n, name in enumerate(STATES):
        states, gradient = times[n] / bernoulli, times[n + len(STATES)] / bernoulli
        print(f"{name:20}{states:8.2f}{gradient:22.2f}")
    print(f"\nmean and variance of {DRAWS} draws by jit(vmap(grad)), to those by gradbench.draws")
    for spec in ("zgr", "disarm", "arm"):
        own, ours = (found.seconds for found in timings(_draws(spec)))
        print(f"{spec:20}{own / ours:8.2f} times as long, of {1e3 * ours:.3g} ms")
    print("\ndiagnose, 64 draws against 256 of disarm, batch 100, in steps of training with adam")
    for widths in ((64, 32, 32), (64, 256, 256)):
        step, diagnosis = (found.seconds for found in timings(_training(widths)))
        name = "-".join(map(str, (*widths, 10)))
        print(f"{name:20}{diagnosis / step:8.0f} steps of {1e3 * step:.2g} ms")


def _logits() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (UNITS, UNITS))


def _task(function: Callable[..., Any]) -> Callable[[], Any]:
    compiled, a, key = jax.jit(function), _logits(), jax.random.key(1)
    return lambda: jax.block_until_ready(compiled(a, key))


def _bernoulli() -> Callable[[], Any]:
    return _task(lambda a, key: jax.random.bernoulli(key, jax.nn.sigmoid(a)).astype(a.dtype))


def _states(estimator: str) -> Callable[[], Any]:
    return _task(lambda a, key: gradbench.binarize(a, key=key, estimator=estimator))


def _gradient(estimator: str) -> Callable[[], Any]:
    def loss(a: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(gradbench.binarize(a, key=key, estimator=estimator) * a[::-1])

    return _task(jax.value_and_grad(loss))


def _draws(spec: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Tasks: draws of a classifier of digits, of batches of 100, by the user and by gradbench."""
    network = SBN((Dense(64, 32), Dense(32, 32)), Readout(32, 10, "softmax_cross_entropy"))
    params, key = network.init(jax.random.key(0)), jax.random.key(2)
    batch = jax.random.normal(jax.random.key(1), (100, 64)), jnp.arange(100) % 10
    loss = make_estimator(spec, network)

    @jax.jit
    def own(params: Any) -> Any:
        found = jax.vmap(jax.grad(loss), (None, 0, None))(
            params, jax.random.split(key, DRAWS), batch
        )
        return [jax.tree.map(lambda g, f=f: f(g, axis=0), found) for f in (jnp.mean, jnp.var)]

    return (
        lambda: jax.block_until_ready(own(params)),
        lambda: gradbench.draws(loss, params, key, batch, DRAWS),
    )


def _training(widths: tuple[int, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Tasks: a step of a classifier of such widths, and a diagnosis of it."""
    layers = tuple(Dense(*pair) for pair in pairwise(widths))
    network = SBN(layers, Readout(widths[-1], 10, "softmax_cross_entropy"))
    params, optimiser = network.init(jax.random.key(0)), optax.adam(1e-2)
    batch = jax.random.normal(jax.random.key(1), (100, widths[0])), jnp.arange(100) % 10
    loss, state, key = gradbench.estimators.zgr(network), optimiser.init(params), jax.random.key(2)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimiser.update(jax.grad(loss)(params, key, batch), state)
        return optax.apply_updates(params, updates), state

    return (
        lambda: jax.block_until_ready(step(params, state)),
        lambda: gradbench.diagnose(loss, params, batch, key),
    )


if __name__ == "__main__":
    main()
