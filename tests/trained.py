"""Results of training that a test has in a moment: of a tiny suite, or numbers that are planted."""

from pathlib import Path
from unittest import mock

import numpy as np
import tiny
from stored import suite

from gradbench.results import runs
from gradbench.results.methods import estimators_with
from gradbench.results.runs import CURVES
from gradbench.results.store import Results

PROBLEM = tiny.PROBLEM[: tiny.PROBLEM.index("\n[training]")] + "\n[measured]\npoints = 6\n"
SUITE = """\
title = "A tiny suite of training"
problems = ["tiny.toml"]
estimators = ["exact", "straight_through"]
draws = 8
replicates = 2
figure = "learning"

[training]
optimisers = ["nesterov(momentum=0.9)"]
steps = 30
batch = 4
rates = [0.01, 0.1]
search_seeds = 1
extensions = 1
points = 4
measured = 2
examples = 4
samples = 2
"""


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    """The path of a tiny suite of training in a folder of its own, with parts changed."""
    return tiny.write(folder, tiny.changed(SUITE, *changes), tiny=PROBLEM)


def files(directory: Path) -> dict[str, bytes]:
    """The bytes of all that is stored of runs, but for times."""
    found = (p for kind in ("runs", "errors") for p in sorted((directory / kind).rglob("*.npz")))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


# ------------------------------------------------------------------------- numbers that are planted

PLAN = {
    "optimisers": ["adam", "nesterov(momentum=0.9)"],
    "steps": 100,
    "batch": 32,
    "rates": [0.01, 0.1],
    "search_seeds": 1,
    "extensions": 0,
    "points": 3,
    "measured": 2,
    "examples": 64,
    "samples": 1,
}
ESTIMATORS = ["exact", "reinforce", "arm", "straight_through", "psa", "zgr", "reinmax"]
STEPS = [0, 10, 100]


def write_runs(
    directory,
    bias=lambda name: 0.1,
    deviation=lambda name: 1.0,
    loss=lambda name, seed: 1.0,
    seeds=3,
    optimisers=PLAN["optimisers"],
    problems=("a[width=4]", "a[width=6]"),
    diverged=(),
    estimators=ESTIMATORS,
    done=lambda problem: True,
    exact_bias=None,
    result=None,
    continued=None,
    measured=2,
    only=None,
):
    """Runs with these relative biases and deviations (of a draw) all along, and final losses.

    ``diverged`` are pairs of an estimator and a seed; "reinmax" has the draws of "zgr". ``result``
    gives precisions at 100, which methods are then judged by, and ``continued`` the losses after a
    second phase of ten steps with RAM. ``only`` names the estimators of optimisers.
    """
    by = [suite(name)["problems"][0] | {"label": k + 4.0} for k, name in enumerate(problems)]
    plan = PLAN | {"optimisers": list(optimisers), "measured": measured}
    if result:
        plan |= {"result": "precision(at=100)"}
    if continued:
        plan |= {"continuation": {"estimator": "ram", "steps": 10}}
    if only:
        plan |= {"only": only}
    content = suite("training", problems=by, estimators=list(estimators), draws=16)
    content |= {"replicates": seeds, "figure": "learning", "by": "width", "plan": plan}
    with (
        mock.patch("gradbench.results.manifest.provenance", lambda: {"device": "cpu"}),
        Results.open_or_create(directory, content, 0, 16, {"psa": "psa"}) as results,
    ):
        for problem in problems:
            for optimiser in optimisers:
                for name in estimators_with(only, optimiser, estimators):
                    of = {"problem": problem, "estimator": name, "optimiser": optimiser}
                    of |= {"phase": "report", "rates": [0.1], "seeds": list(range(seeds))}
                    if result:
                        of["result"] = plan["result"]
                    _write(results, of, name, loss, diverged, done(problem), result)
                    if continued:
                        after = of | {"phase": "continue", "after": runs.identifier(of)}
                        steps = [0, 1, 10]
                        _write(results, after, name, continued, (), done(problem), result, steps)
                    for path in ("own", "exact") if measured else ():
                        given = exact_bias if path == "exact" and exact_bias else bias
                        _write_errors(
                            results, of | {"phase": path, "examples": 64}, given, deviation
                        )
    return directory


def _write(results, of, name, loss, diverged, done, result, steps=STEPS):
    seeds = of["seeds"]
    last = np.array([loss(name, seed) for seed in seeds])
    curve = np.stack([np.full(len(seeds), 2.0), 1 + last / 2, last])
    ended = np.array([50 if (name, seed) in diverged else -1 for seed in seeds])
    curve[2, ended >= 0] = np.nan
    arrays = {key: curve for key in CURVES} | {"steps": steps, "diverged": ended}
    if result:
        own = np.array([result(name, seed) for seed in seeds])
        arrays["precision"] = np.stack([0 * own, own / 2, own])
    runs.save(results, "runs", of, arrays, steps[-1], done)
    times = {"seconds": [3.0], "steps": [100], "runs": [len(seeds)]}
    runs.save(results, "times", of, times, steps[-1], True)


def _write_errors(results, of, bias, deviation):
    name = "zgr" if of["estimator"] == "reinmax" else of["estimator"]
    spread = np.random.default_rng(list(name.encode())).uniform(
        0.98, 1.02, (2, len(of["seeds"]), 1)
    )
    # A draw of 64 examples has half the variance of one of 32.
    arrays = {"bias2": bias(name) ** 2 * spread, "variance": deviation(name) ** 2 / 2 * spread}
    arrays |= {"norm2": np.ones_like(spread), "steps": [0, 100]}
    runs.save(results, "errors", of, arrays, STEPS[-1], True)
