"""The measurement of a model of one's own, as far as its time allows."""

import time
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax

from gradbench.advise.preselect import in_one_line, is_zero, reason_of
from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.progress import Progress
from gradbench.core.specs import label
from gradbench.measure.cell import Cell, coordinates_of
from gradbench.measure.draws import BLOCKS, Plan, make_plan
from gradbench.metrics.left_out import LATE
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.cells import Task, list_tasks, measure_cell
from gradbench.suites.given import GivenInstance
from gradbench.suites.gradients import load_or_compute_gradient
from gradbench.suites.suite import Suite
from gradbench.suites.times import lack_times, measure_times

GIVEN = "given"  # the checkpoint of the parameters that are not named
_ENUMERATED = 1 << 21  # draws of one example that exact moments may take: a second or so
_LARGE = 1 << 16  # coordinates, from which blocks are fewer, as each is as large as the parameters


def _plan(built: GivenInstance, draws: int) -> Plan:
    """Return how draws are cut into blocks."""
    size = coordinates_of(built.shapes())
    return make_plan(draws, (), size, BLOCKS if size < _LARGE else BLOCKS // 2)


class Run(NamedTuple):
    """A run of which some estimators are to be finished, as far as its time allows."""

    results: Results
    suite: Suite
    built: GivenInstance
    estimators: Sequence[str]
    end: float | None
    progress: bool

    def finish(self) -> dict[str, str]:
        """Measure what is left of them, and return those that are not finished, with the reasons.

        Raises:
            GradbenchError: a gradient is zero or cannot be computed, or nothing was measured.
        """
        plan = _plan(self.built, self.suite.draws)
        tasks = list(list_tasks(self.results, self.suite, self.built, plan))
        points = {place: self._point(place) for place in self.built.places}
        failed: dict[str, str] = {}
        late: list[str] = []
        cells: dict[tuple[CheckpointId, str], Cell] = {}
        finished: list[Task] = [task for task in tasks if task.done >= plan.blocks]
        with self._bar(tasks) as bar:
            for spec in self.estimators:
                for task in tasks:
                    if task.cell.estimator != spec or task in finished or spec in failed:
                        continue
                    if self._is_late():
                        late.append(spec)
                        break
                    bar.set_description(label(spec))
                    try:
                        cell = self._measured(task, points[task.cell.place], bar)
                    except Exception as error:  # of any kind: the model is the user's
                        failed[spec] = reason_of(spec, error)
                        continue
                    if self._is_late() and task.cell.done_blocks() < plan.blocks:
                        late.append(spec)
                        break
                    finished.append(task)
                    if cell is not None:
                        cells[task.cell.place, spec] = cell
            if finished and lack_times(self.results, finished):
                rows = [(self.built, finished)]
                measure_times(self.results, self.suite, rows, cells, bar, latency=False)
        if not finished:
            raise GradbenchError(self._nothing(failed))
        return failed | self._told(late)

    def _bar(self, tasks: Sequence[Task]) -> Progress:
        draws = self.suite.draws
        tasks = [task for task in tasks if task.cell.estimator in self.estimators]
        return Progress(
            total=draws * len(tasks),
            unit="draws",
            initial=sum(min(task.done * task.plan.block, draws) for task in tasks),
            show=self.progress,
        )

    def _point(self, place: CheckpointId) -> tuple[Params, Params]:
        """Return the parameters and the gradient of a checkpoint, stored where they are not yet."""
        if self.results.load_checkpoint(place) is None:
            self.results.save_checkpoint(place, self.built.stored(place.checkpoint))
        params = self.built.checkpoints[place.checkpoint]
        try:
            gradient = load_or_compute_gradient(
                self.results, self.built, place, params, self.progress
            )
        except jax.errors.JaxRuntimeError as error:
            raise GradbenchError(in_one_line(error)) from error
        if is_zero(gradient):
            where = "" if place.checkpoint == GIVEN else f" at {place.checkpoint!r}"
            raise GradbenchError(
                f"the exact gradient{where} is zero, so that no error is relative to it; give "
                "other parameters, such as random ones"
            )
        return params, gradient

    def _measured(self, task: Task, at: tuple[Params, Params], bar: Progress) -> Cell | None:
        return measure_cell(
            self.results, self.suite, self.built, task, at, bar, _ENUMERATED, self.end
        )

    def _is_late(self) -> bool:
        return self.end is not None and time.monotonic() > self.end

    def _nothing(self, failed: dict[str, str]) -> str:
        """Return the sentence about a run that has measured nothing."""
        if failed:
            return f"no estimator takes the problem: {next(iter(failed.values()))}"
        return (
            "no estimator was measured within the time limit; give a larger time_limit, fewer "
            "draws or fewer examples"
        )

    def _told(self, late: Sequence[str]) -> dict[str, str]:
        """Return why the estimators were not measured that time was too short for, and warn."""
        if late:
            names = ", ".join(map(label, late[:8])) + f" and {len(late) - 8} more" * (len(late) > 8)
            warnings.warn(
                f"{len(late)} of {len(self.estimators)} estimators were not measured within "
                f"the time limit ({names}); the same call with the same out continues, or give a "
                "larger time_limit",
                GradbenchWarning,
                stacklevel=5,
            )
        return dict.fromkeys(late, LATE)
