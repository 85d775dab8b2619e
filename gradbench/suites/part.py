"""A part of a suite: some problems, estimators and checkpoints of it, measured before the rest.

The results are those of the whole suite, whose manifest they have. Each number depends on the names
of its cell alone, so that a run of the whole, later, measures what is missing and ends with the
numbers of a run that was never cut, but for the times of draws.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics.selection import Selection
from gradbench.results.shards import CheckpointId
from gradbench.suites.suite import Suite


class Part(NamedTuple):
    """The names of problems and estimators, and of checkpoints, that are meant."""

    selection: Selection
    checkpoints: frozenset[str]

    @classmethod
    def of(
        cls,
        suite: Suite,
        problems: Sequence[str] = (),
        estimators: Sequence[str] = (),
        checkpoints: Sequence[str] = (),
    ) -> "Part":
        """Return what is meant by names; all of a kind where none is given.

        Args:
            suite: the suite.
            problems: names of problems, or of what several variants of one have in common.
            estimators: estimators, with arguments or all of a name.
            checkpoints: names of checkpoints such as "epoch 100", or their numbers.

        Raises:
            GradbenchError: the suite has no such problem, estimator or checkpoint, or none of these
                problems has one of the checkpoints; or it is one of training, which has none.
        """
        if checkpoints and suite.plan is not None:
            raise GradbenchError(
                f"the suite {suite.name!r} trains and has no checkpoints to choose; choose "
                "problems and estimators"
            )
        try:
            chosen = Selection.of(suite.as_dict(), problems, estimators)
        except GradbenchError as error:
            raise GradbenchError(str(error).replace("in these results", "in the suite")) from None
        known = {
            problem.checkpoint_name(epoch): epoch
            for problem in suite.problems
            if problem.name in chosen.problems
            for epoch in problem.checkpoints
        }
        short = {str(epoch): name for name, epoch in known.items()}
        found = [short.get(name, name) for name in checkpoints or known]
        for name in found:
            if name not in known:
                remedy = did_you_mean(name, known)
                raise GradbenchError(f"there is no checkpoint {name!r} in the suite; {remedy}")
        return cls(chosen, frozenset(found))

    def of_suite(self, suite: Suite) -> Suite:
        """Return a suite with the problems and estimators that are meant, in its order."""
        return replace(
            suite,
            problems=tuple(one for one in suite.problems if one.name in self.selection.problems),
            estimators=tuple(s for s in suite.estimators if s in self.selection.estimators),
        )

    def has(self, place: CheckpointId, estimator: str) -> bool:
        """Return whether a cell is meant."""
        return self.has_place(place) and estimator in self.selection.estimators

    def has_place(self, place: CheckpointId) -> bool:
        """Return whether cells at a checkpoint are meant."""
        return place.problem in self.selection.problems and place.checkpoint in self.checkpoints
