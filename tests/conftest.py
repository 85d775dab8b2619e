"""What the tests share: the Hypothesis profile, double precision, small networks, statistics."""

import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from scipy import stats

from gradbench.core.compiling import compile_quickly

compile_quickly()  # most of the time of the tests is compilation


def pytest_configure(config):
    """All but the slow tests compile much and compute little, also in processes of their own.

    Programs that commands keep are shared by all processes of these tests, and by nothing else.
    """
    if config.option.markexpr == "not slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # read when JAX is imported
    if not hasattr(config, "workerinput"):  # of pytest-xdist, whose workers inherit the folder
        folder = tempfile.mkdtemp(prefix="gradbench-tests-")
        os.environ["GRADBENCH_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of the cases of a test that is marked `first(n)`, those after the first n are slow."""
    cases = Counter()
    for item in items:
        marker = item.get_closest_marker("first")
        if marker and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            cases[name] += 1
            if cases[name] > marker.args[0]:
                item.add_marker(pytest.mark.slow)


settings.register_profile("gradbench", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("gradbench")

# Estimators of every kind, for tests that many would make long; all are in test_certificate.py.
KINDS = ("reinforce", "arm", "concrete", "straight_through", "psa", "leg")
MORE_KINDS = ("exact", "disarm", "mean_field", "zgr", "ram", "rloo", "muprop")
every_kind = pytest.mark.parametrize(
    "kinds", [KINDS, pytest.param(MORE_KINDS, marks=pytest.mark.slow)], ids=["kinds", "more"]
)
NOISES = ("logistic", "normal", "uniform", "triangular", "laplace")
SCIPY = {  # the same distributions in an independent implementation
    "logistic": stats.logistic,
    "normal": stats.norm,
    "uniform": stats.uniform(-1, 2),
    "triangular": stats.triang(0.5, -1, 2),
    "laplace": stats.laplace,
}


def precision(double):
    """A context in float64, or one that changes nothing."""
    from gradbench.core.precision import float64

    return float64() if double else nullcontext()


@pytest.fixture
def float64():
    """The test runs in float64, and leaves no flag behind: `usefixtures("float64")`."""
    with precision(True):
        yield


@pytest.fixture(scope="module")
def quick_compilation():
    """Twice as fast for modules that compile much and compute little, in slow tests too.

    The processes that they start compile likewise, and so compute the same bits. What was compiled
    so is let go, as jax would take it for the programs of other modules, with other bits.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield
    jax.config.update("jax_disable_most_optimizations", before)
    if not before:
        jax.clear_caches()


@pytest.fixture(scope="session")
def compilations():
    """A list that gets an entry for every program that XLA compiles, or takes from disk."""
    import jax

    seen = []

    def listen(name, seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seen


@pytest.fixture(autouse=True, scope="session")
def times_in_a_moment():
    """Runs measure times with few calls: no test is about how long something takes."""
    from gradbench.measure import timing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "BUDGET", 1e-3)
        patch.setattr(timing, "SINGLE", 1e-3)
        yield


@pytest.fixture
def only(monkeypatch):
    """``only("two layers", ...)``: the certificate checks these problems, without the conduct."""
    from gradbench.testing import certificate
    from gradbench.testing.problems import problems

    def choose(*names):
        chosen = lambda seed: tuple(p for p in problems(seed) if p.name in names)  # noqa: E731
        monkeypatch.setattr(certificate, "problems", chosen)
        monkeypatch.setattr(certificate, "conduct", lambda *_: [])

    return choose


def flat(tree):
    """All leaves as one vector."""
    import jax

    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] or [np.zeros(0)])


def relative(a, b):
    """Distance of two gradients, relative to the norm of the second."""
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))


def random_params(sizes, scale=1.0, seed=0):
    """Parameters of a chain of dense layers, in numpy: weights and biases scale * U(-1, 1)."""
    generator = np.random.default_rng(seed)
    return tuple(
        {
            "weight": scale * generator.uniform(-1, 1, (outputs, inputs)),
            "bias": scale * generator.uniform(-1, 1, outputs),
        }
        for inputs, outputs in pairwise(sizes)
    )


def random_batch(inputs, examples=3, seed=1):
    """Inputs from N(0, 1) and targets in {-1, +1}."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((examples, inputs)), generator.choice([-1.0, 1.0], examples)


def small(sizes, noise="logistic", loss="logistic_loss", scale=1.0, seed=0, **options):
    """A network of these sizes with random parameters and a random batch.

    `noise` is one for all layers, or a tuple with one per layer.
    """
    from gradbench.models.dense import Dense
    from gradbench.models.network import SBN, dense_network

    network = dense_network(sizes, loss, **options)
    noises = (noise,) * len(network.layers) if isinstance(noise, str) else noise
    layers = (
        Dense(layer.inputs, layer.outputs, name)
        for layer, name in zip(network.layers, noises, strict=True)
    )
    network = SBN(tuple(layers), network.objective, network.states)
    return network, random_params(sizes, scale, seed), random_batch(sizes[0], seed=seed + 1)


def threshold(rate, comparisons=1):
    """The |z| that any of so many comparisons exceeds with probability at most `rate` (Sidak)."""
    return stats.norm.isf(-np.expm1(np.log1p(-rate) / comparisons) / 2)


def largest_z(draws, expected):
    """Largest |z| of the mean of `draws` `[n, ...]` over coordinates; constants must be right."""
    draws = np.asarray(draws, float).reshape(len(draws), -1)
    error = np.abs(draws.mean(0) - np.ravel(expected))
    deviation = draws.std(0, ddof=1) / np.sqrt(len(draws))
    scale = 1e-6 * (1 + np.abs(np.ravel(expected)))
    return np.max(error / np.where(deviation > 0, deviation, scale))


def assert_mean(draws, expected, rate=1e-6):
    """Refuses independent draws whose mean is not `expected`, with this false-alarm rate.

    A z-test, Sidak over the coordinates: for many draws of a bounded quantity. Every use in the
    suite takes at most its 1e-6, so that the whole suite stays below 1e-4; seeds are fixed.
    """
    coordinates = max(1, np.size(expected))
    assert largest_z(draws, expected) < threshold(rate, coordinates)


def flax_list(modules):
    """Modules as a part of one of Flax NNX: in a type of its own since Flax 0.12."""
    from flax import nnx

    return getattr(nnx, "List", list)(modules)


# A cell has one shard, however slow the machine is.
WHOLE_CELLS = ("gradbench.suites.cells._FLUSH_SECONDS", 1e9)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The suite of `tiny` in a folder, beside its finished results; to be read, or copied.

    Of the workers of pytest-xdist the first one makes it, and each has a copy.
    """
    import tiny

    from gradbench.suites.runner import run

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / "finished-run"
    with FileLock(shared / "finished-run.lock"):
        if not (made / "whole").exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(*WHOLE_CELLS)
                run(tiny.write(made), made / "results", progress=False)
            (made / "whole").touch()
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("whole"))
    return folder


@pytest.fixture
def finished(finished_run, tmp_path, monkeypatch):
    """A copy of the finished run, for a test that changes it."""
    monkeypatch.setattr(*WHOLE_CELLS)
    shutil.copytree(finished_run, tmp_path / "finished")
    return tmp_path / "finished"


def benchmark(name):
    """A module of benchmarks/, which is no package: its modules import each other by name."""
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
