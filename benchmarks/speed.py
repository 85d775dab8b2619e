"""How fast gradbench is on this machine: ``make bench``.

Prints draws per second of every estimator, time and peak memory of exact gradients, and the time
of the whole ``psa`` suite. Machines are noisy: every time is the best of several, and ratios within
one run say more than the numbers.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.estimators import make_estimator
from gradbench.exact import expected_loss
from gradbench.measure import make_plan, measure
from gradbench.network import dense_network
from gradbench.precision import float64
from gradbench.problems.data import load_data
from gradbench.suite import load_suite

HIDDEN = [(5, 5, 5), (8, 8, 8), (10, 10, 10), (11, 11, 11), (12, 12, 12)]
REPEATS = 10
DRAWS = 4096


def main() -> None:
    """Runs all benchmarks, each exact gradient in a process of its own for its peak memory."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--exact", type=int, nargs="+", help="only this network, one line")
    hidden = options.parse_args().exact
    if hidden:
        exact_gradient(tuple(hidden))
        return
    print(f"machine: {machine()}")
    print("\ndraws per second, network 2-5-5-5-1, 200 points, all statistics included")
    print(f"{'estimator':28}{'float64':>12}{'float32':>12}")
    specs = load_suite("psa").estimators
    dtypes = (jnp.float64, jnp.float32)
    with float64():
        tasks = [some_draws(spec, dtype) for spec in specs for dtype in dtypes]
        seconds = iter(best(tasks))
    for spec in specs:
        print(f"{spec:28}" + "".join(f"{DRAWS / next(seconds):12,.0f}" for _ in dtypes))
    print("\nexact gradient in float64, 200 points; peak memory is that of the whole process")
    for sizes in HIDDEN:
        arguments = [sys.executable, __file__, "--exact", *map(str, sizes)]
        subprocess.run(arguments, check=True)
    print("\nsuite psa, training, 20000 draws, figures and start of the process included")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = ["gradbench", "run", "psa", "--out", folder]
        command[0] = str(Path(sys.executable).with_name("gradbench"))
        subprocess.run(command, check=True, capture_output=True)
        print(f"{time.perf_counter() - begin:.1f} s")


def machine() -> str:
    """Processor, number of cores, device and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = f"{len(model)} x {model[0]}" if model else platform.processor()
    device = jax.devices()[0].device_kind
    return f"{cores}, JAX {jax.__version__} on {device}, Python {platform.python_version()}"


def problem(hidden: tuple[int, ...], dtype: Any) -> tuple[Any, Any, Any]:
    """Network 2-hidden-1 with parameters from U(-1, 1), and 200 points in two classes."""
    network = dense_network((2, *hidden, 1))
    batch = tuple(jnp.asarray(part, dtype) for part in load_data("overlapping_classes"))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), network.init(jax.random.key(0)))
    return network, params, batch


def best(tasks: Sequence[Callable[[], Any]]) -> list[float]:
    """Seconds for each task, the best of several rounds, after a first one that compiles.

    The tasks take turns, so that a slow moment of the machine does not fall on one of them alone.
    """
    times = np.empty((REPEATS + 1, len(tasks)))
    for row in times:
        for n, task in enumerate(tasks):
            begin = time.perf_counter()
            task()
            row[n] = time.perf_counter() - begin
    return times[1:].min(axis=0).tolist()


def some_draws(spec: str, dtype: Any) -> Callable[[], None]:
    """A task that makes ``DRAWS`` draws in the measurement loop, in blocks of 1024."""
    network, params, batch = problem((5, 5, 5), dtype)
    loss = make_estimator(spec, network)
    gradient = jax.grad(lambda p: expected_loss(network, p, batch))(params)
    plan = make_plan(32 * 1024)
    blocks = range(DRAWS // plan.block)

    def task() -> None:
        for _ in measure(loss, params, batch, gradient, jax.random.key(0), plan, blocks):
            pass

    return task


def exact_gradient(hidden: tuple[int, ...]) -> None:
    """Prints time and peak memory for one network."""
    with float64():
        network, params, batch = problem(hidden, jnp.float64)
        gradient = jax.jit(jax.grad(lambda p: expected_loss(network, p, batch)))
        (seconds,) = best([lambda: jax.block_until_ready(gradient(params))])
    print(f"{'-'.join(map(str, hidden)):10}{seconds * 1e3:10.1f} ms{peak_memory():>12}", flush=True)


def peak_memory() -> str:
    """The largest memory that this process has held, where the system tells."""
    status = Path("/proc/self/status")  # not getrusage: that begins with the size of the parent
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return f"{peaks[0] / 2**20:.2f} GiB" if peaks else "unknown"


if __name__ == "__main__":
    main()
