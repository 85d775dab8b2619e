"""What PSA costs beside straight-through on six networks too large to be enumerated.

Prints the CPU time of a gradient of a batch, in float32, and its ratio to that of straight-through.
All programs of a network take turns, so that a slow spell of the machine hits all alike; times are
medians, with the quantiles of 16 and 84 %, and their ratios are those of each turn.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.estimators import make_estimator
from gradbench.models import ELBO, SBN, Conv, Dense, Readout

SPECS = ("straight_through", "psa", "psa(tolerance=0)")
SECONDS = 0.3  # of each program and turn, at least
KEY = jax.random.key(0)


def convolutional(inputs: tuple[int, ...], layers: Sequence[tuple[int, int, int]]) -> SBN:
    """Return convolutions ``(channels, stride, kernel)`` under a classifier of ten classes."""
    chain: list[Conv] = []
    for channels, stride, kernel in layers:
        chain.append(Conv(chain[-1].outputs if chain else inputs, channels, kernel, stride))
    readout = Readout(math.prod(chain[-1].outputs), 10, "softmax_cross_entropy")
    return SBN(tuple(chain), readout)


def problems() -> Iterator[tuple[str, SBN, Any]]:
    """Yield name, network and batch."""
    small = ((16, 1, 3), (16, 2, 3), (32, 1, 3), (32, 2, 3))
    cifar = ((96, 1, 3), (96, 1, 3), (96, 2, 3), (192, 1, 3), (192, 1, 3), (192, 2, 3))
    images = partial(jax.random.normal, KEY)
    network = convolutional((28, 28, 1), small)
    yield "convolutions 16, 16/2, 32, 32/2", network, (images((32, 28, 28, 1)), jnp.arange(32) % 10)
    network = convolutional((32, 32, 3), (*cifar, (192, 1, 3), (192, 1, 1)))
    yield "network of the PSA paper, an image", network, (images((1, 32, 32, 3)), jnp.zeros(1, int))
    layers = (Dense(784, 200), Dense(200, 200))
    network = SBN(layers, Readout(200, 10, "softmax_cross_entropy"))
    yield "dense 784-200-200-10, batch 100", network, (images((100, 784)), jnp.arange(100) % 10)
    bits = jnp.sign(images((100, 784)))
    network = SBN((Dense(784, 200),), ELBO((Dense(200, 784),)))
    yield "autoencoder 784-200-784, batch 100", network, (bits, bits)
    layers, decoders = (Dense(784, 200), Dense(200, 200)), (Dense(200, 784), Dense(200, 200))
    yield "autoencoder of two layers of 200", SBN(layers, ELBO(decoders)), (bits, bits)
    counts = jax.random.poisson(KEY, 0.1, (64, 1000)).astype(jnp.float32)
    words = ELBO((Dense(64, 1000),), likelihood="multinomial_likelihood")
    network = SBN((Dense(1000, 64),), words)
    yield "autoencoder of counts 1000-64-1000", network, (jnp.log1p(counts), counts)


def program(spec: str, network: SBN, batch: Any, largest: float) -> Callable[[], Any]:
    """Return the compiled gradient, at weights from U(-1, 1) times ``largest``."""
    params = jax.tree.map(lambda leaf: largest * leaf, network.init(KEY))
    gradient = jax.jit(jax.grad(make_estimator(spec, network)))
    return lambda: jax.block_until_ready(gradient(params, KEY, batch))


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Return the CPU time of a call, of as many as take long enough."""
    calls, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < SECONDS:
        run()
        calls += 1
    return (time.process_time() - cpu) / calls


def main() -> None:
    """Print a table for each network."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--largest", type=float, default=0.1, help="largest weight")
    options.add_argument("--turns", type=int, default=7, help="how often each program is timed")
    given = options.parse_args()
    for name, network, batch in problems():
        programs = [program(spec, network, batch, given.largest) for spec in SPECS]
        for run in programs:
            run()  # compiles it
        turns = [[cpu_seconds(run) for run in programs] for _ in range(given.turns)]
        times = np.array(turns)
        ratios = times / times[:, :1]
        print(f"\n{name}, weights of at most {given.largest:g}")
        for k, spec in enumerate(SPECS):
            low, middle, high = np.quantile(ratios[:, k], [0.16, 0.5, 0.84])
            milliseconds = 1e3 * np.median(times[:, k])
            print(
                f"{spec:20}{milliseconds:9.1f} ms{middle:8.2f} ({low:.2f} to {high:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
