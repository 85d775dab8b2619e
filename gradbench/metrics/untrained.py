"""Whether results are runs of training, and which of these are not finished."""

from collections.abc import Mapping
from typing import Any

from gradbench.results import runs
from gradbench.results.methods import methods_of
from gradbench.results.store import Results

METHOD = ["problem", "optimiser", "estimator"]


def is_training(manifest: Mapping[str, Any]) -> bool:
    """Return whether results are runs of training."""
    return manifest["suite"].get("plan") is not None


def unfinished_runs(results: Results) -> str:
    """Return a sentence on the methods whose runs are not finished, "" where all are."""
    total = len(list(methods_of(results.manifest["suite"])))
    missing = total - trained_methods(results)
    return f"{missing} of {total} methods are not trained yet; run again to go on" * (missing > 0)


def trained_methods(results: Results) -> int:
    """Return the number of methods whose reported runs are finished.

    Raises:
        CorruptFile: a file is damaged.
    """
    last = "continue" if results.manifest["suite"]["plan"].get("continuation") else "report"
    done = {
        tuple(one.identity[key] for key in METHOD)
        for one in runs.stored(results)
        if one.done and one.identity["phase"] == last
    }
    return len(done)
