"""Whether results are runs of training, and which of these are not finished."""

from collections.abc import Iterable, Mapping
from typing import Any

from gradbench.results import runs
from gradbench.results.methods import Method, methods_of
from gradbench.results.store import Results

METHOD = ["problem", "optimiser", "estimator"]


def is_training(manifest: Mapping[str, Any]) -> bool:
    """Return whether results are runs of training."""
    return manifest["suite"].get("plan") is not None


def unfinished_runs(results: Results) -> str:
    """Return a sentence on the methods whose runs are not finished, "" where all are."""
    every = list(methods_of(results.manifest["suite"]))
    missing = len(untrained(results, every))
    if not missing:
        return ""
    return f"{missing} of {len(every)} methods are not trained yet; run again to go on"


def untrained(results: Results, methods: Iterable[Method] | None = None) -> list[Method]:
    """Return those of some methods, by default all, whose reported runs are not finished.

    Raises:
        CorruptFile: a file is damaged.
    """
    last = "continue" if results.manifest["suite"]["plan"].get("continuation") else "report"
    done: set[tuple[str, ...]] = {
        tuple(one.identity[key] for key in METHOD)
        for one in runs.stored(results)
        if one.done and one.identity["phase"] == last
    }
    every = methods_of(results.manifest["suite"]) if methods is None else methods
    return [method for method in every if method not in done]
