"""Data of the user's own: ``[data] file = "mine.npz"`` in the file of a problem."""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gradbench.core.errors import GradbenchError
from gradbench.core.npy import read_npz
from gradbench.suites.data import Examples, data_set
from gradbench.suites.datasets.content import digest_of_all, short

FILE = "file"  # the key that stands for the name of a data set, and the name of this one
_MOST = 2**31  # bytes of all arrays
_NAMES = (("inputs", "targets"), ("x", "y"))


@data_set
def file(
    rng: Generator, file: str, digest: str | None = None, examples: int | None = None
) -> Examples:
    """Examples of an npz of yours with the arrays ``inputs`` and ``targets``, or ``x`` and ``y``.

    In a problem it is named by ``file`` alone, a path beside that of the problem. ``inputs`` are of
    the shape [n, ...] and ``targets`` [n] or [n, k]; ``examples`` takes the first so many. Results
    keep the ``digest`` of the arrays: other data of the same name are refused when it is given.

    Raises:
        GradbenchError: the file cannot be read or is no such npz, the arrays do not fit each other
            or are not finite, there are fewer examples, or the digest is another.
    """
    inputs, targets, found = _read(file)
    if digest is not None and digest not in (found, short(found)):
        raise GradbenchError(
            f"{file!r} has the digest {short(found)}, not {digest}; give the data that were "
            "measured, or take the digest out for others"
        )
    if examples is not None and examples > len(inputs):
        raise GradbenchError(f"{file!r} has {len(inputs)} examples, not {examples}; ask for fewer")
    return Examples(inputs[:examples], targets[:examples])


def digest_of_file(path: str) -> str:
    """Return the digest of the arrays of an npz, as results keep it.

    Raises:
        GradbenchError: see ``file``.
    """
    return short(_read(path)[2])


def _read(path: str) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Return inputs [n, d] in float64, targets and the digest of an npz."""
    arrays = read_npz(path, _MOST)
    names = next((both for both in _NAMES if set(both) <= set(arrays)), None)
    if names is None:
        held = ", ".join(sorted(arrays)[:8]) or "nothing"
        raise GradbenchError(
            f"{path!r} holds {held}; save the arrays as inputs and targets, or as x and y"
        )
    inputs, targets = (arrays[name] for name in names)
    if inputs.ndim < 2 or targets.ndim not in (1, 2) or len(inputs) != len(targets):
        shapes = " and ".join(f"{name} {list(arrays[name].shape)}" for name in names)
        raise GradbenchError(
            f"{path!r} has {shapes}; give inputs [n, ...] and targets [n] or [n, k] with the same n"
        )
    if not inputs.size:
        raise GradbenchError(f"{path!r} has {names[0]} {list(inputs.shape)}; give some numbers")
    for name, array in zip(names, (inputs, targets), strict=True):
        if not np.isfinite(array).all():
            raise GradbenchError(f"{name} of {path!r} has NaN or infinity; give finite numbers")
    found = digest_of_all({"inputs": inputs, "targets": targets})
    whole = targets.dtype.kind in "iu"
    return (
        inputs.reshape(len(inputs), -1).astype(np.float64),
        targets.astype(np.int64 if whole else np.float64),
        found,
    )
