"""Write the results that come with the package: ``python -m gradbench.suites.publish``.

The networks of every suite are trained anew with seed 0, and kept with their exact gradients, as
``gradbench.results.published`` lists them. Suites of ``MEASURED`` are run as a whole, so that the
metrics of their estimators are kept too. Without names, all suites are made again. With
``--keep-networks`` those networks that have come with the package so far, and that the suite still
describes, are not trained anew, and their exact gradients are kept: enough where only estimators of
a suite have changed. ``--from DIR`` takes the finished results of a run with seed 0, which is how
suites of training are published, which take hours: their reported curves and errors are kept.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from gradbench.core.errors import GradbenchError
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64
from gradbench.core.progress import Progress
from gradbench.metrics.comparable import publish
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.registry import METRICS
from gradbench.metrics.untrained import is_training, unfinished_runs
from gradbench.results.published import FOLDER
from gradbench.results.runs import keep
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.cells import measure_problem
from gradbench.suites.instance import build
from gradbench.suites.problem import as_json
from gradbench.suites.runner import run
from gradbench.suites.suite import Suite, list_suites, load_suite

MEASURED = ("psa", "quick")
_KEPT = ("manifest.json", "checkpoints", "references")


def publish_suite(suite: str, folder: Path = FOLDER, retrain: bool = True) -> Path:
    """Train the networks of a suite with seed 0 and write its results to ``folder``/SUITE.

    Without ``retrain`` networks that come with the package already are kept.

    Raises:
        GradbenchError: as ``run``; or the suite trains, and is published by its finished runs.
    """
    if load_suite(suite).plan is not None:
        raise GradbenchError(f"{suite!r} trains; run it with seed 0, and give --from DIR")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / suite
        if suite in MEASURED:
            run(suite, made, seed=0, retrain=retrain)
        else:
            _train(suite, made, retrain)
        kept = Path(temporary) / "kept"
        kept.mkdir()
        for name in _KEPT:
            copy = shutil.copytree if (made / name).is_dir() else shutil.copyfile
            copy(made / name, kept / name)
        if suite in MEASURED:
            publish(kept, made, list(METRICS), LEVEL)
        return _in_place(kept, folder / suite)


def publish_training(directory: Path, folder: Path = FOLDER) -> Path:
    """Write the finished runs of a suite of training with seed 0 to ``folder``/SUITE.

    Raises:
        GradbenchError: they are not runs of training, not finished, or of another seed.
    """
    results = Results.open(directory)
    if not is_training(results.manifest) or results.manifest["seed"]:
        raise GradbenchError(f"{str(directory)!r} is not of a suite of training with seed 0")
    if missing := unfinished_runs(results):
        raise GradbenchError(f"{str(directory)!r} is not finished: {missing}")
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(temporary) / "kept"
        kept.mkdir()
        shutil.copyfile(directory / "manifest.json", kept / "manifest.json")
        keep(results, kept)
        return _in_place(kept, folder / results.manifest["suite"]["name"])


def _in_place(kept: Path, target: Path) -> Path:
    """Put what was made as a whole in the place of what was published before."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(kept, target)
    return target


def _train(name: str, directory: Path, retrain: bool) -> None:
    """Store the trained networks of a suite and their exact gradients, and measure no estimator."""
    check_platform()
    suite = load_suite(name)
    with (
        Results.open_or_create(directory, suite.as_dict(), 0, suite.draws) as results,
        float64(),
        Progress(show=False) as bar,
    ):
        if not retrain:
            _keep(results, suite)
        for problem in suite.problems:
            for replicate in range(suite.replicates):
                measure_problem(results, suite, build(problem, 0, replicate), [], bar, retrain)


def _keep(results: Results, suite: Suite) -> None:
    """Copy the published networks and exact gradients of problems that have not changed at all."""
    if not (FOLDER / suite.name).is_dir():
        return
    before = Results.open(FOLDER / suite.name)
    known = before.manifest["suite"]["problems"]
    for problem in (p for p in suite.problems if as_json(p) in known):
        for replicate in range(min(suite.replicates, before.manifest["suite"]["replicates"])):
            for checkpoint in map(problem.checkpoint_name, problem.checkpoints):
                place = CheckpointId(problem.name, replicate, checkpoint)
                params, found = before.load_checkpoint(place), before.load_reference(place)
                if params is not None and found is not None:
                    results.save_checkpoint(place, params)
                    results.save_reference(place, found.value, found.gradient, found.info)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m gradbench.suites.publish")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="all by default")
    parser.add_argument("--keep-networks", action="store_true", help="train only what is new")
    parser.add_argument("--from", dest="made", type=Path, metavar="DIR", help="of training")
    options = parser.parse_args()
    if options.made:
        print(publish_training(options.made))
    else:
        every = [name for name in list_suites() if load_suite(name).plan is None]
        for name in options.suites or every:
            print(publish_suite(name, retrain=not options.keep_networks))
