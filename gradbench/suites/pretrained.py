"""Trained parameters that come with the package, see ``gradbench.results.published``."""

from functools import cache
from typing import Any

from gradbench.core.atomic import Json
from gradbench.core.contract import Params
from gradbench.results.published import located, published_suites
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.problem import Problem, as_json

# What is measured, and its name, do not change the training.
_FREE = ("name", "title", "label", "measured", "reference")


def published_checkpoints(
    problem: Problem, seed: int, replicate: int
) -> list[tuple[Params, ...]] | None:
    """Return the published parameters at ``problem.checkpoints``, None where there are none.

    They are those of a problem with the same data, network and training, the same seed and
    replicate, whatever it is called.
    """
    wanted = as_json(problem)
    for suite in published_suites():
        results = _opened(suite)
        manifest = results.manifest
        if manifest["seed"] != seed or replicate >= manifest["suite"]["replicates"]:
            continue
        for known in manifest["suite"]["problems"]:
            if _trained_by(known) == _trained_by(wanted):
                names = map(problem.checkpoint_name, problem.checkpoints)
                places = [CheckpointId(known["name"], replicate, name) for name in names]
                found = [results.load_checkpoint(place) for place in places]
                if all(params is not None for params in found):
                    return [params for params in found if params is not None]
    return None


@cache
def _opened(suite: str) -> Results:
    return Results.open(located(f"gradbench:{suite}"))


def _trained_by(problem: Json) -> dict[str, Any]:
    """Return all of a problem that its trained parameters depend on."""
    training = problem["training"] and {**problem["training"], "checkpoints": None}
    return {key: problem[key] for key in problem if key not in _FREE} | {"training": training}
