"""How fast gradbench is on this machine: ``make bench``.

Prints times of imports, draws per second of every estimator, time and peak memory of a gradient of
a convolutional network and of exact gradients, and the time of the whole ``psa`` suite. Machines
are noisy: every time is the median of several that took turns, as suites measure the times of draws
(``gradbench.measure.timing``), and ratios within one run say more than the numbers.
"""

import argparse
import contextlib
import math
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

from gradbench.core.precision import float64
from gradbench.estimators import make_estimator
from gradbench.exact.enumeration import expected_loss
from gradbench.exact.moments import moments
from gradbench.measure.draws import make_plan, measure
from gradbench.measure.timing import Program, Timing, in_turns
from gradbench.metrics.times import UNSTABLE, percent
from gradbench.models.conv import Conv
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, dense_network
from gradbench.suites.data import load_data
from gradbench.suites.instance import build
from gradbench.suites.read_problem import load_problem
from gradbench.suites.suite import load_suite

HIDDEN = [(5, 5, 5), (8, 8, 8), (10, 10, 10), (11, 11, 11), (12, 12, 12)]
IMPORTS = 7  # processes for each statement
DRAWS = 4096


def main() -> None:
    """Run all benchmarks; each one with a peak memory has a process of its own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", metavar="NAME", help="only this line, of those with memory")
    only = options.parse_args().only
    if only:
        print_line(only)
        return
    print(f"machine: {machine()}")
    print("\ntime of an import in a fresh process, relative to that of jax")
    for statement, ratio in import_ratios().items():
        print(f"{statement:40}{ratio:8.2f}")
    print("\ndraws per second, network 2-5-5-5-1, 200 points, all statistics included")
    print(f"{'estimator':28}{'float64':>12}{'float32':>12}")
    # Of estimators without randomness a single draw is made: nothing to time.
    specs = [spec for spec in load_suite("psa").estimators if spec not in ("exact", "mean_field")]
    dtypes = (jnp.float64, jnp.float32)
    with float64():
        tasks = [some_draws(spec, dtype) for spec in specs for dtype in dtypes]
        found = timings(tasks)
    for spec, *both in zip(specs, found[::2], found[1::2], strict=True):
        apart = max(one.spread for one in both)
        print(
            f"{spec:28}"
            + "".join(f"{DRAWS / one.seconds:12,.0f}" for one in both)
            + f"   repeats disagree by {percent(apart)}" * (apart > UNSTABLE)
        )
    for title, lines in LINES.items():
        print(f"\n{title}; peak memory is that of the whole process")
        for name in lines:
            subprocess.run([sys.executable, __file__, "--only", name], check=True)
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


def import_ratios() -> dict[str, float]:
    """Return import times relative to ``import jax``: medians over fresh processes in turns."""
    statements = ("import jax", "import gradbench", "import gradbench; gradbench.binarize")
    empty, *seconds = np.median(
        [[seconds_of(statement) for statement in ("", *statements)] for _ in range(IMPORTS)], axis=0
    )
    rows = zip(statements, seconds, strict=True)
    return {name: float((own - empty) / (seconds[0] - empty)) for name, own in rows}


def seconds_of(statement: str) -> float:
    """Time of a process of Python that runs one statement."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def problem(hidden: tuple[int, ...], dtype: Any) -> tuple[Any, Any, Any]:
    """Network 2-hidden-1 with parameters from U(-1, 1), and 200 points in two classes."""
    network = dense_network((2, *hidden, 1))
    batch = tuple(jnp.asarray(part, dtype) for part in load_data("overlapping_classes"))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), network.init(jax.random.key(0)))
    return network, params, batch


def timings(tasks: Sequence[Callable[[], Any]]) -> list[Timing]:
    """Median seconds of each task and their spread: the tasks take turns."""
    return in_turns([Program(task) for task in tasks])


def some_draws(spec: str, dtype: Any) -> Callable[[], None]:
    """Return a task that makes ``DRAWS`` draws in the measurement loop, in blocks of 1024."""
    network, params, batch = problem((5, 5, 5), dtype)
    loss = make_estimator(spec, network)
    gradient = jax.grad(lambda p: expected_loss(network, p, batch))(params)
    plan = make_plan(32 * 1024)
    blocks = range(DRAWS // plan.block)

    def task() -> None:
        for _ in measure(loss, params, batch, gradient, jax.random.key(0), plan, blocks):
            pass

    return task


def exact_gradient(hidden: tuple[int, ...]) -> Callable[[], Any]:
    """Return a task: the exact gradient of a dense network on 200 points."""
    network, params, batch = problem(hidden, jnp.float64)
    return gradient_of(lambda p: expected_loss(network, p, batch), params)


def exact_gradient_of(name: str) -> Callable[[], Any]:
    """Return a task: the exact gradient of a suite's problem at its initial parameters."""
    built = build(load_problem(name))
    return gradient_of(lambda p: expected_loss(built.network, p, built.batch), built.initial())


def exact_moments(spec: str) -> Callable[[], Any]:
    """Return a task: exact moments of an estimator on the network of the PSA paper."""
    network, params, batch = problem((5, 5, 5), jnp.float64)
    loss = make_estimator(spec, network)
    return lambda: jax.block_until_ready(moments(loss, params, batch))


def conv_gradient(spec: str) -> Callable[[], Any]:
    """Return a task: one draw for 28x28 images, layers of 16, 16, 32, 32 channels, in float32."""
    shape, layers = (28, 28, 1), []
    for channels, stride in ((16, 1), (16, 2), (32, 1), (32, 2)):
        layers.append(Conv(shape, channels, 3, stride))
        shape = layers[-1].outputs
    readout = Readout(math.prod(shape), 10, "softmax_cross_entropy")
    network = SBN(tuple(layers), readout)
    params = jax.tree.map(lambda leaf: leaf / 10, network.init(jax.random.key(0)))
    batch = (jax.random.normal(jax.random.key(1), (32, 28, 28, 1)), jnp.arange(32) % 10)
    loss = make_estimator(spec, network)
    return gradient_of(lambda p: loss(p, jax.random.key(2), batch), params)


def gradient_of(loss: Callable[[Any], Any], params: Any) -> Callable[[], Any]:
    """Return a task: the compiled gradient of a loss."""
    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(params))


CONVOLUTIONAL = ("straight_through", "psa")
MOMENTS = tuple(
    f"moments:{name}" for name in ("straight_through", "zgr", "reinforce", "leg", "psa")
)
PROBLEMS = ("digits", "conv", "weights", "vae-8", "vae-12", "vae-8-8", "vae-12-12")
LINES = {
    "gradient in float32, 28x28 images, batch 32, convolutions 16, 16/2, 32, 32/2": CONVOLUTIONAL,
    "exact gradient in float64, 2-...-1, 200 points": ["-".join(map(str, h)) for h in HIDDEN],
    "exact gradient in float64 of the problems of the suites": PROBLEMS,
    "exact mean and variance of a draw in float64, 2-5-5-5-1, 200 points": MOMENTS,
}


def print_line(name: str) -> None:
    """Print time and peak memory of one of ``LINES``."""
    with contextlib.nullcontext() if name in CONVOLUTIONAL else float64():
        if name in CONVOLUTIONAL:
            task = conv_gradient(name)
        elif name in PROBLEMS:
            task = exact_gradient_of(name)
        elif name in MOMENTS:
            task = exact_moments(name.partition(":")[2])
        else:
            task = exact_gradient(tuple(map(int, name.split("-"))))
        (found,) = timings([task])
    apart = f"   repeats disagree by {percent(found.spread)}" * (found.spread > UNSTABLE)
    print(f"{name:26}{found.seconds * 1e3:10.1f} ms{peak_memory():>12}{apart}", flush=True)


def peak_memory() -> str:
    """Return the largest memory that this process has held, if the system tells."""
    status = Path("/proc/self/status")  # not getrusage: that begins with the size of the parent
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return f"{peaks[0] / 2**20:.2f} GiB" if peaks else "unknown"


if __name__ == "__main__":
    main()
