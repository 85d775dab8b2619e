"""The times of draws: measured in a pass of its own, after all draws on a network.

Then everything is compiled, and the repeats of all its cells take turns, so that no estimator and
no checkpoint has a slow spell of the machine for itself. After the pass the programs can be let go:
all those of a large suite would not fit into memory. Times are stored when all of a pass are known.
Nothing else depends on them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.core.atomic import Json
from gradbench.core.progress import Progress
from gradbench.measure.cell import Cell
from gradbench.measure.timing import Timed, time_draws
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.cells import Task, prepare_cell
from gradbench.suites.gradients import Instance, load_params
from gradbench.suites.suite import Suite

Ready = dict[tuple[CheckpointId, str], Cell]  # cells that were measured in this process


def lack_times(results: Results, tasks: Sequence[Task]) -> bool:
    """Return whether the time of a draw is not known in some cell.

    Raises:
        GradbenchError: a file is damaged.
    """
    return any("seconds" not in _cost(results, task) for task in tasks)


def measure_times(
    results: Results,
    suite: Suite,
    problems: Sequence[tuple[Instance, Sequence[Task]]],
    ready: Ready,
    bar: Progress,
    **how: Any,
) -> None:
    """Measure and store how long a draw takes, in cells where this is not known.

    If a run was interrupted, some cells may have their times already. They are kept, unless they
    are from another machine or an older gradbench: times that cannot be compared would be no
    ranking, so those cells are measured again with the others. A run whose cells all have a time
    measures none, see ``lack_times``. ``how`` are further arguments of ``time_draws``.

    Raises:
        GradbenchError: a file is damaged, or the platform computes wrong values.
    """
    machine = machine_of(results)
    costs = {
        (task.cell.place, task.cell.estimator): _cost(results, task)
        for _, tasks in problems
        for task in tasks
    }
    bar.set_description("times of draws")
    names, timed = [], []
    for built, tasks in problems:
        for task in tasks:
            name = task.cell.place, task.cell.estimator
            if results.load_checkpoint(task.cell.place) is None:
                continue  # the training has diverged before it
            if not is_comparable(costs[name], machine):
                cell = ready.get(name) or _again(results, suite, built, task)
                costs[name] = built.cost(cell, task.cell.estimator)
                names.append(name)
                timed.append(Timed(cell, task.plan, costs[name]["evaluations"]))
    for name, found in zip(names, time_draws(timed, **how), strict=True):
        results.save_cost(*name, costs[name] | found.known() | {"machine": machine})


def _cost(results: Results, task: Task) -> Json:
    return results.load_cost(task.cell.place, task.cell.estimator) or {}


def is_comparable(cost: Mapping[str, object], machine: str) -> bool:
    """Return whether a stored time was measured by the protocol of today on this machine."""
    return "spread" in cost and cost.get("machine") == machine


def machine_of(results: Results) -> str:
    """Return what this run says of its machine, in a line that times are compared by."""
    manifest: Json = results.manifest
    made = [manifest, *manifest.get("continued", [])][-1]["provenance"]
    facts = [made.get(key) for key in ("device", "platform", "backend", "jaxlib")]
    return ", ".join([*map(str, facts), f"{made.get('cores')} cores"])


def _again(results: Results, suite: Suite, built: Instance, task: Task) -> Cell:
    """Return a cell that an earlier run has measured."""
    params = load_params(results, built, task.cell.place)
    return prepare_cell(task.cell, built, params).cast(suite.dtype)
