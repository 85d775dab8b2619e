"""What a run is asked for, and whether it is all there; nothing is computed to tell."""

from collections.abc import Sequence
from pathlib import Path

from gradbench.core.atomic import SCHEMA, Json
from gradbench.core.errors import GradbenchError
from gradbench.metrics.directory import unfinished
from gradbench.results.manifest import suite_hash
from gradbench.results.provenance import provenance
from gradbench.results.store import Results
from gradbench.suites.suite import Suite, load_suite

UNTIL_METRICS = ("rmse", "cosine")  # made precise unless others are named


def asked_suite(
    suite: str | Suite,
    draws: int | None = None,
    quick: bool = False,
    until: float | None = None,
    until_metrics: Sequence[str] = UNTIL_METRICS,
) -> Suite:
    """Return the suite that ``run`` is asked for, with its number of draws.

    Raises:
        GradbenchError: an unknown suite, draws or metrics that it cannot have, or ``quick`` with a
            ``Suite``.
    """
    if isinstance(suite, Suite) and quick:
        raise GradbenchError(
            "quick=True needs the name or the path of a suite; give load_suite(name, True) itself"
        )
    suite = suite if isinstance(suite, Suite) else load_suite(suite, quick)
    if until is not None:
        from gradbench import metrics

        return suite.with_until(until, metrics.check_metrics(until_metrics), draws)
    return suite if draws is None else suite.with_draws(draws)


def directory_of(suite: Suite, out: str | Path | None) -> Path:
    """Return the directory of the results of a suite, ``results/SUITE`` by default."""
    return Path(out or Path("results") / suite.name)


def finished_results(suite: Suite, out: str | Path | None, seed: int) -> Results | None:
    """Return the results of a suite if a run has nothing left to measure or to note, else None.

    They are of the same seed and draws, by the same versions on the same machine, all cells are
    finished and undamaged, and the times of draws are known.
    """
    directory = directory_of(suite, out)
    if not (directory / "manifest.json").is_file():
        return None
    try:
        results = Results.open(directory)
        same = _is_asked(results.manifest, suite, seed) and not unfinished(results)[0]
        return results if same and _is_timed(results) else None
    except GradbenchError:  # which the run tells, or mends
        return None


def _is_asked(manifest: Json, suite: Suite, seed: int) -> bool:
    """Return whether a run of a suite would add nothing to a manifest."""
    wanted = (SCHEMA, suite_hash(suite.as_dict()), seed, suite.draws)
    found = tuple(manifest[key] for key in ("schema", "suite_hash", "seed", "draws"))
    last = [manifest, *manifest.get("continued", [])][-1]["provenance"]
    # The canary is asked where something is measured.
    return found == wanted and last | {"canary": None} == provenance() | {"canary": None}


def _is_timed(results: Results) -> bool:
    """Return whether the time of a draw is known in all cells."""
    costs = (results.load_cost(cell.place, cell.estimator) for cell in results.cells())
    return all("seconds" in (cost or {}) for cost in costs)
