"""The checkpoints of a problem: trained once, and kept on the way."""

import sys
import warnings

from gradbench.core.atomic import CorruptFile, Json, pack, unpack
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.names import visible_lines
from gradbench.results.shape import fault, natural
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.train import Diverged, TrainingState
from gradbench.suites.training.stored import flattened, restored
from gradbench.suites.unfinished import remove_training, training_file


def train_problem(results: Results, built: ProblemInstance, retrain: bool) -> None:
    """Store the parameters at all checkpoints of a problem, unless they are there.

    A training that was interrupted goes on from where it was last stored. One that diverges is told
    by a warning; the checkpoints before that are stored.
    """
    problem, replicate = built.problem, built.replicate
    places = dict(zip(problem.checkpoints, built.places, strict=True))
    missing = [epoch for epoch, place in places.items() if results.load_checkpoint(place) is None]
    if not missing:
        return
    resumed = _load(results, built)
    if resumed is not None and min(missing) <= resumed.epoch:  # it has gone past one
        resumed = None

    def save(state: TrainingState) -> None:
        try:
            _save(results, built, state)
        except GradbenchError as error:  # as on a full disk
            warnings.warn(f"{error}; the training goes on", GradbenchWarning, stacklevel=2)

    try:
        for epoch, params in built.trained(retrain, resumed, save):
            results.save_checkpoint(places[epoch], params)
    except Diverged as error:
        warnings.warn(
            f"problem {problem.name!r}: {error}; its later checkpoints are left out, the "
            "others go on",
            GradbenchWarning,
            stacklevel=2,
        )
    remove_training(results, problem.name, replicate)


def _save(results: Results, built: ProblemInstance, state: TrainingState) -> None:
    arrays = flattened("state", (state.params, state.optimiser))
    data = pack(arrays, 0, {"epoch": state.epoch}, _whose(results, built))
    results.write(training_file(results, built.problem.name, built.replicate), data)


def _load(results: Results, built: ProblemInstance) -> TrainingState | None:
    """Return how far a training is, None if nothing is stored, or what is has damage."""
    path = training_file(results, built.problem.name, built.replicate)
    if built.problem.training is None or not path.exists():
        return None
    try:
        arrays, _, info = unpack(path, _whose(results, built))
        if fault(info, {"epoch": natural}):
            raise CorruptFile(f"{str(path)!r} does not say its epoch")
        return TrainingState(info["epoch"], *restored(arrays, "state", built.untrained()))
    except CorruptFile as error:
        print(f"gradbench: {visible_lines(str(error))}; it is begun anew", file=sys.stderr)
        return None


def _whose(results: Results, built: ProblemInstance) -> Json:
    """Return what the state of a training says that it belongs to."""
    place = CheckpointId(built.problem.name, built.replicate, "on the way")
    return results.whose("training", place, None)
