"""What is being computed in a directory of results, kept until it is done.

DIR/unfinished/PROBLEM/REPLICATE/CHECKPOINT/     a sampled gradient that is being drawn
DIR/unfinished/PROBLEM/REPLICATE/training.npz    the state of a training after some epochs
"""

import contextlib
from pathlib import Path

from gradbench.core.atomic import guard
from gradbench.core.names import file_name
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results


def gradient_folder(results: Results, place: CheckpointId) -> Path:
    """Return the folder in which a sampled gradient is kept until it is known well enough.

    Raises:
        GradbenchError: a link leads it out of the directory.
    """
    return _inside(results, place.problem, str(place.replicate), place.checkpoint)


def training_file(results: Results, problem: str, replicate: int) -> Path:
    """Return the path of the state of a training.

    Raises:
        GradbenchError: a link leads it out of the directory.
    """
    return _inside(results, problem, str(replicate)) / "training.npz"


def remove_gradient(results: Results, place: CheckpointId) -> None:
    """Remove the folder of a sampled gradient, which is stored now."""
    _remove(results, gradient_folder(results, place), "*.npz")


def remove_training(results: Results, problem: str, replicate: int) -> None:
    """Remove the state of a training, whose checkpoints are stored now."""
    file = training_file(results, problem, replicate)
    _remove(results, file.parent, file.name)


def _inside(results: Results, *names: str) -> Path:
    path = results.directory.joinpath("unfinished", *map(file_name, names))
    results.refuse_outside(path)
    return path


def _remove(results: Results, folder: Path, files: str) -> None:
    """Remove files of a folder, and those folders that are empty then."""
    with guard("delete", folder):
        for file in folder.glob(files):
            file.unlink()
        for parent in (folder, *folder.parents):
            if not parent.is_relative_to(results.directory / "unfinished"):
                break
            with contextlib.suppress(OSError):
                parent.rmdir()
