"""What two sets of results are compared by: cells measured here, or published without draws."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import CorruptFile, Floats, Json
from gradbench.core.errors import GradbenchError
from gradbench.metrics.accuracy import Accuracy
from gradbench.metrics.directory import Cells, Measurements, measurements, opened
from gradbench.metrics.intervals import Estimate
from gradbench.metrics.layers import LayerMetrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK
from gradbench.results.published import (
    PREFIX,
    Estimates,
    has_estimates,
    load_estimates,
    located,
    published_suites,
    save_estimates,
)
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results

Key = tuple[Any, ...]  # problem, replicate, checkpoint, layer, estimator


class Comparable(NamedTuple):
    """A layer of a cell, as far as a comparison needs it; draws are not kept.

    ``estimate`` is the metric that is compared, ``gradient`` [P] is the exact gradient, ``dof`` the
    degrees of freedom of the intervals, ``level`` their level, and ``source`` where the bias is
    known from. ``accuracy`` is None where no draws were kept.
    """

    estimate: Estimate
    gradient: Floats
    source: str
    zero_gradient: bool
    dof: float
    level: float
    accuracy: Accuracy | None


def comparables(
    results: Measurements, by: str, average: int, level: float
) -> dict[Key, Comparable]:
    """Return the layers of all cells, by their names.

    Args:
        results: a directory of results, the name ``gradbench:SUITE``, or measurements.
        by: the name of the metric that is compared.
        average: the number M of draws that are averaged.
        level: the level of the intervals; published ones have their own.

    Raises:
        GradbenchError: there are no results, files are damaged, draws are not finite, or the
            metric is not stored at this M.
    """
    if isinstance(results, str | os.PathLike):
        given, results = os.fspath(results), located(os.fspath(results))
        if has_estimates(results):
            return _published(opened(results), by, average)
        if given.startswith(PREFIX):
            suite = given.removeprefix(PREFIX)
            some = ", ".join(f"{PREFIX}{one}" for one in published_suites(estimates=True))
            raise GradbenchError(
                f"the package has the networks and exact gradients of {suite!r} but no estimates; "
                f"choose one of {some}, or a directory of results"
            )
    found = {}
    for cell in measurements(results):
        for layer in layers_of(cell, level):
            key = (*cell.place, layer.layer, cell.estimator)
            if not np.isfinite(layer.sample.means).all():
                raise GradbenchError(
                    f"draws of {cell.estimator!r} at {'/'.join(map(str, key[:4]))} are not "
                    "finite and cannot be compared; mend the estimator, or leave it out"
                )
            found[key] = _measured(layer, by, average)
    return found


def retrained(before: Measurements, after: Measurements) -> Callable[[CheckpointId], bool]:
    """Return a function that tells whether the same problem was trained to other parameters.

    The problem, its place and the seed are the same in both directories of results, and the stored
    parameters differ. Of measurements without directories this is not known, and False.
    """
    both = []
    for one in (before, after):
        if isinstance(one, Cells):
            one = one.results
        if not isinstance(one, str | os.PathLike | Results):
            return lambda place: False
        both.append(one if isinstance(one, Results) else opened(os.fspath(one)))
    manifests = [results.manifest for results in both]
    old, new = ({p["name"]: p for p in manifest["suite"]["problems"]} for manifest in manifests)
    same_seed = manifests[0]["seed"] == manifests[1]["seed"]

    def differs(place: CheckpointId) -> bool:
        if not same_seed or old.get(place.problem) != new.get(place.problem):
            return False
        one, two = (results.load_checkpoint(place) for results in both)
        return one is not None and two is not None and not _same_numbers(one, two)

    return differs


def _same_numbers(one: Any, two: Any) -> bool:
    """Return whether two trees of parameters have the same arrays."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same_numbers(one[key], two[key]) for key in one)
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(_same_numbers, one, two))
    return np.array_equal(one, two)


def publish(directory: Path, source: Path, metrics: list[str], level: float) -> None:
    """Write the metrics of finished results into a directory that has their manifest.

    Args:
        directory: where to write, with a manifest, checkpoints and references.
        source: the results.
        metrics: the names of the metrics.
        level: the level of the intervals.
    """
    rows: list[Json] = []
    values = []
    for cell in measurements(source):
        for layer in layers_of(cell, level):
            for average in sorted({1, *cell.average_sizes()}):
                key = dict(zip(KEYS, (*cell.place, layer.layer, cell.estimator), strict=True))
                facts = {"source": layer.source, "zero_gradient": layer.zero_gradient}
                rows.append({**key, "M": average, **facts, "dof": float(_dof(layer))})
                values.append([layer.estimate(metric, average) for metric in metrics])
    found = Estimates(rows, metrics, np.asarray(values, np.float64), level)
    save_estimates(Results.open(directory), found)


def _measured(layer: LayerMetrics, by: str, average: int) -> Comparable:
    sample = layer.sample
    gradient = sample.direction * sample.norm
    zero = layer.zero_gradient
    accuracy = layer.accuracy
    estimate = layer.estimate(by, average)
    return Comparable(estimate, gradient, layer.source, zero, _dof(layer), layer.level, accuracy)


def _dof(layer: LayerMetrics) -> int:
    return max(len(layer.sample.counts) - 1, 1)


def _published(results: Results, by: str, average: int) -> dict[Key, Comparable]:
    stored = load_estimates(results)
    known: dict[Key, dict[int, tuple[Json, Floats]]] = {}
    for row, values in zip(stored.rows, stored.values, strict=True):
        known.setdefault(tuple(row[key] for key in KEYS), {})[row["M"]] = row, values
    gradients = _gradients(results, known)
    found = {}
    for key, by_average in known.items():
        row = by_average[min(by_average)][0]
        lookup = _Lookup(results.manifest["suite"]["name"], stored.metrics, by_average)
        facts = row["source"], row["zero_gradient"], row["dof"], stored.level
        found[key] = Comparable(lookup.estimate(by, average), gradients[key[:4]], *facts, None)
    return found


class _Lookup(NamedTuple):
    """The stored estimates of a layer of a cell, for each M."""

    suite: str
    metrics: list[str]
    by_average: dict[int, tuple[Json, Floats]]

    def estimate(self, metric: str, average: int) -> Estimate:
        """Return the stored estimate of a metric of the mean of M draws.

        Raises:
            GradbenchError: the metric, or the M, is not stored.
        """
        if metric not in self.metrics or average not in self.by_average:
            averages = ", ".join(map(str, sorted(self.by_average)))
            raise GradbenchError(
                f"the published results of {self.suite!r} have no {metric!r} of the mean of "
                f"{average} draws; choose one of {', '.join(self.metrics)} and M of {averages}"
            )
        return Estimate(*map(float, self.by_average[average][1][self.metrics.index(metric)]))


def _gradients(results: Results, keys: Iterable[Key]) -> dict[Key, Floats]:
    """Return the exact gradients [P] of layers, by problem, replicate, checkpoint and layer."""
    layers: dict[CheckpointId, list[str]] = {}
    for problem, replicate, checkpoint, layer, _ in keys:
        names = layers.setdefault(CheckpointId(problem, replicate, checkpoint), [])
        if layer not in (*names, NETWORK):
            names.append(layer)  # in the order of the gradients
    found: dict[Key, Floats] = {}
    for place, names in layers.items():
        reference = results.load_reference(place)
        if reference is None or len(reference.gradient) != len(names):
            raise CorruptFile(
                f"the exact gradient at {'/'.join(map(str, place))} is missing from the published "
                f"results of {results.manifest['suite']['name']!r}; install gradbench again"
            )
        found |= {(*place, n): x for n, x in zip(names, reference.gradient, strict=True)}
        found[*place, NETWORK] = np.concatenate(reference.gradient)
    return found
