"""Parameters of the user's own: ``[parameters] file = "net.npz"`` in the file of a problem.

The file is an npz whose arrays have the names of the parameters: "0/weight", "0/bias", "1/weight",
..., which begin with the number of the layer. ``numpy.savez(file, **{"0/weight": weight, ...})``
writes one, and so are the checkpoints in a directory of results. It may come from anyone: nothing
is unpickled, and no more is unpacked than the network has parameters.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.archives import read_arrays
from gradbench.core.atomic import digest, no_memory, read_file
from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError, did_you_mean, shortened
from gradbench.core.fields import Text
from gradbench.results.contents import put_together, take_apart

_BESIDE = ("note", "digest")  # what a checkpoint of results has beside its parameters
_SLACK = 1 << 20  # bytes of an archive that are not parameters


@dataclass(frozen=True)
class ParametersTable:
    """The table [parameters]."""

    file: Text


@dataclass(frozen=True)
class StoredParameters:
    """A file of parameters, as its problem names it, with the digest of its bytes.

    ``folder`` is where its path begins.
    """

    file: str
    digest: str
    folder: str | None = field(default=None, compare=False)

    @classmethod
    def located(cls, file: str, folder: str | None) -> "StoredParameters":
        """Return the parameters in a file whose path begins in a folder; nothing is unpacked.

        Raises:
            GradbenchError: it cannot be read.
        """
        content = read_file(Path(os.path.join(folder or "", file)))
        return cls(file, digest(content), folder)

    def load(self, shapes: Params) -> Params:
        """Return the parameters, which have to have the names and the ``shapes`` of a network.

        Raises:
            GradbenchError: they do not, are not finite real numbers, or the file is no npz or
                another one than when the problem was read.
        """
        path = Path(os.path.join(self.folder or "", self.file))
        wanted: dict[str, Any] = {}
        tree = take_apart(shapes, "", wanted)
        most = sum(leaf.size for leaf in wanted.values()) * 8 + _SLACK
        content = read_file(path)
        if digest(content) != self.digest:
            raise GradbenchError(
                f"{str(path)!r} has changed since the problem was read; begin anew with it"
            )
        try:
            found = read_arrays(content, most)
        except MemoryError as error:
            raise no_memory(path) from error
        except Exception as error:  # of any kind: a damaged zip archive makes its reader raise them
            reason = " ".join(str(error).split()) or type(error).__name__
            raise GradbenchError(
                f"{str(path)!r} holds no parameters of this network ({shortened(reason)}); write "
                "an npz by numpy.savez with these arrays: " + _listed(wanted)
            ) from None
        found = {name: array for name, array in found.items() if name not in _BESIDE}
        if fault := _fault(found, wanted):
            raise GradbenchError(f"{str(path)!r} {fault}")
        arrays = {name: np.asarray(found[name], float) for name in wanted}
        return jax.tree.map(jnp.asarray, put_together(tree, arrays))


def _fault(found: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> str:
    """Return what is wrong with arrays, with a remedy, "" if nothing is."""
    for name in wanted:
        if name not in found:
            return f"has no {name!r}; it needs {_listed(wanted)}"
    for name, array in found.items():
        if name not in wanted:
            return f"has {shortened(repr(name))}, which is no parameter; " + did_you_mean(
                name, wanted
            )
        if array.shape != wanted[name].shape:
            one, two = (list(shape) for shape in (array.shape, wanted[name].shape))
            return (
                f"has {name!r} of shape {one}; the network has {two} there: change one of the two"
            )
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            return f"has {name!r}, which is not all finite real numbers; store such numbers alone"
    return ""


def _listed(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """Return names and shapes in words, shortened where there are many."""
    said = [f"{name} {list(leaf.shape)}" for name, leaf in wanted.items()]
    return ", ".join(said[:8]) + ", ..." * (len(said) > 8)
